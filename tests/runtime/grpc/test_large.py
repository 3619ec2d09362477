"""Large calls at both fronts: they are taken up to their bound, wait for small ones, and leave when given up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from runtime.clock import SystemClock
from runtime.grpc.front import MAX_MESSAGE_BYTES, Answer, GrpcFront, QueueLimits
from runtime.grpc.grpcio import GrpcioFront
from runtime.grpc.native import NativeFront

PATH = "/test.Service/Method"
LARGE = 1_000
LIMITS = QueueLimits(small_bytes=LARGE // 10, large_bytes=LARGE, large_bytes_waiting=10 * LARGE, large_answer_ms=700)


class Stepped:
    """Answers one call a step; remembers the order and the deadlines."""

    max_batch = 100

    def __init__(self) -> None:
        self.entered: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self.steps = threading.Semaphore(0)
        self.left_ms: list[float] = []
        self.refused: list[bytes] = []

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        """Echo the first byte after a step."""
        self.left_ms.append(deadline_ms - SystemClock().monotonic_ms())
        self.entered.put([one[:1] for one in payloads])
        assert self.steps.acquire(timeout=10)
        return [one[:1] for one in payloads]

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Their lengths."""
        return [*map(len, payloads)]

    def overloaded(self, payload: bytes) -> bytes:
        """Say so."""
        self.refused.append(payload[:1])
        return b"overloaded"

    def undelivered(self, answer: bytes) -> None:
        """Nothing was taken."""


@pytest.fixture
def stepped() -> Stepped:
    """The service behind the front."""
    return Stepped()


@pytest.fixture(params=[NativeFront, GrpcioFront])
def front(request: pytest.FixtureRequest, stepped: Stepped, tmp_path: Path) -> Iterator[GrpcFront]:
    """Each front in turn: they keep the same promises."""
    kind: type[NativeFront | GrpcioFront] = request.param
    target = f"unix:{tmp_path}/f.sock"
    made = kind({PATH: stepped}, target=target, clock=SystemClock(), on_fault=pytest.fail, limits=LIMITS)
    made.start()
    yield made
    for _ in range(100):
        stepped.steps.release()
    made.stop(5)


@pytest.fixture
def method(front: GrpcFront) -> Iterator[grpc.UnaryUnaryMultiCallable]:
    """The method as a client calls it."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(front.address, options=options) as channel:
        yield channel.unary_unary(PATH)


def large(name: bytes, size: int = 2 * LARGE) -> bytes:
    """A large call's message."""
    return name * size


def test_small_calls_pass_large_ones(method: grpc.UnaryUnaryMultiCallable, stepped: Stepped) -> None:
    """Each large call is answered alone, after the small ones that have come until then, and in order."""
    first = method.future(b"0", timeout=10)
    assert stepped.entered.get(timeout=10) == [b"0"]
    calls = [method.future(large(b"A"), timeout=10), method.future(large(b"B"), timeout=10)]
    calls += [method.future(b"1", timeout=10), method.future(b"2", timeout=10)]
    has_arrived(method)
    stepped.steps.release()
    assert first.result() == b"0"
    order = []
    for _ in range(3):
        order.append(sorted(stepped.entered.get(timeout=10)))
        stepped.steps.release()
    assert order == [[b"1", b"2"], [b"A"], [b"B"]]
    assert [call.result() for call in calls] == [b"A", b"B", b"1", b"2"]


def test_many_that_are_not_small_are_as_one_large_call(method: grpc.UnaryUnaryMultiCallable, stepped: Stepped) -> None:
    """No batch holds more of them than a large call may, and the small ones are in the first."""
    first = method.future(b"0", timeout=10)
    assert stepped.entered.get(timeout=10) == [b"0"]
    calls = [method.future(b"M" * (LARGE // 3), timeout=10) for _ in range(9)]
    calls += [method.future(b"1", timeout=10), method.future(b"2", timeout=10)]
    has_arrived(method)
    stepped.steps.release()
    assert first.result() == b"0"
    batches = []
    for _ in range(3):
        batches.append(sorted(stepped.entered.get(timeout=10)))
        stepped.steps.release()
    assert batches == [[b"1", b"2", *[b"M"] * 3], [b"M"] * 3, [b"M"] * 3]
    assert [call.result() for call in calls] == [b"M"] * 9 + [b"1", b"2"]


def has_arrived(method: grpc.UnaryUnaryMultiCallable) -> None:
    """Wait until all that was sent before is there: a call behind it on the connection has come to its deadline."""
    with pytest.raises(grpc.RpcError):
        method.future(b"9", timeout=0.5).result()


def test_what_waits_is_bounded_in_bytes(method: grpc.UnaryUnaryMultiCallable, stepped: Stepped) -> None:
    """Beyond it a call is told at once that there are too many; those that wait are answered."""
    first = method.future(large(b"0", 6 * LARGE), timeout=10)
    assert stepped.entered.get(timeout=10) == [b"0"]
    fits = [method.future(large(b"A", 6 * LARGE), timeout=10), method.future(large(b"B", 3 * LARGE), timeout=10)]
    has_arrived(method)
    beyond = method.future(large(b"C", 3 * LARGE), timeout=10)
    has_arrived(method)
    for _ in range(10):
        stepped.steps.release()
    assert beyond.result() == b"overloaded"
    assert [call.result() for call in (first, *fits)] == [b"0", b"A", b"B"]
    assert stepped.refused == [b"C"]


def test_a_large_call_has_a_time_of_its_own(method: grpc.UnaryUnaryMultiCallable, stepped: Stepped) -> None:
    """It ends 700 ms after its turn has come, or when its client gives up; a small one after 50."""
    for payload, timeout_s in ((b"1", 10), (large(b"A"), 10), (large(b"B"), 0.4)):
        stepped.steps.release()
        assert method(payload, timeout=timeout_s) == payload[:1]
    small, patient, hurried = stepped.left_ms
    assert 0 < small <= 50 < hurried <= 500 < patient <= 700


def test_a_large_call_that_was_given_up_is_not_looked_at(
    method: grpc.UnaryUnaryMultiCallable, stepped: Stepped
) -> None:
    """Cancelled or overdue while it waits: it leaves, and so do its bytes."""
    first = method.future(large(b"0"), timeout=10)
    assert stepped.entered.get(timeout=10) == [b"0"]
    gone = [method.future(large(b"A", 4 * LARGE), timeout=10), method.future(large(b"B", 4 * LARGE), timeout=0.2)]
    has_arrived(method)
    gone[0].cancel()
    has_arrived(method)
    last = method.future(large(b"C", 9 * LARGE), timeout=10)
    for _ in range(10):
        stepped.steps.release()
    assert (first.result(), last.result()) == (b"0", b"C")
    assert stepped.entered.get(timeout=10) == [b"C"]


def test_the_largest_message_is_taken(method: grpc.UnaryUnaryMultiCallable, stepped: Stepped) -> None:
    """A call with a body of 64 MiB reaches the service, which here has no room for it; neither front breaks it off."""
    assert method(large(b"A", MAX_MESSAGE_BYTES - 1024), timeout=20) == b"overloaded"
    stepped.steps.release()
    assert method(b"1", timeout=10) == b"1"
