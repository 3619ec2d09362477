"""The gRPC front: calls that wait too long, that were given up, or that are too many."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from gatebench import wait_until

from runtime.clock import SystemClock
from runtime.grpc.front import Answer, Failure, GrpcFront, QueueLimits
from runtime.grpc.grpcio import GrpcioFront
from runtime.grpc.native import NativeFront

PATH = "/test.Service/Method"

Method = grpc.UnaryUnaryMultiCallable


class Held:
    """Answers only once it is released; remembers what it was given."""

    max_batch = 2

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.seen: list[bytes] = []
        self.deadlines_ms: list[float] = []
        self.undelivered_answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        """Echo after the release; what asks to fail fails."""
        self.seen += payloads
        self.deadlines_ms.append(deadline_ms)
        self.entered.set()
        assert self.release.wait(10)
        return [Failure(3, "no, thank you") if one == b"fail" else b"ok:" + one for one in payloads]

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Their lengths."""
        return [*map(len, payloads)]

    def overloaded(self, payload: bytes) -> bytes:
        """Say so."""
        return b"overloaded:" + payload

    def undelivered(self, answer: bytes) -> None:
        """Remember it."""
        self.undelivered_answers.put(answer)


@pytest.fixture
def held() -> Held:
    """The service behind the front."""
    return Held()


@pytest.fixture(params=[NativeFront, GrpcioFront])
def kind(request: pytest.FixtureRequest) -> type[NativeFront | GrpcioFront]:
    """Each front in turn: they keep the same promises."""
    front: type[NativeFront | GrpcioFront] = request.param
    return front


def made(kind: type[NativeFront | GrpcioFront], target: str, service: Held, limits: QueueLimits) -> GrpcFront:
    """Make a front, not started."""
    return kind({PATH: service}, target=target, clock=SystemClock(), on_fault=pytest.fail, limits=limits)


@pytest.fixture
def front(kind: type[NativeFront | GrpcioFront], held: Held, tmp_path: Path) -> Iterator[GrpcFront]:
    """A front with small limits."""
    limits = QueueLimits(calls=6, wait_ms=20, answer_ms=50)
    front = made(kind, f"unix:{tmp_path}/f.sock", held, limits)
    front.start()
    yield front
    held.release.set()
    front.stop(5)


@pytest.fixture
def method(front: GrpcFront) -> Iterator[Method]:
    """The method as a client calls it."""
    with grpc.insecure_channel(front.address) as channel:
        yield channel.unary_unary(PATH)


def test_calls_behind_a_slow_batch_are_refused_not_delayed(held: Held, method: Method) -> None:
    """Those that cannot be looked at within 20 ms of being taken, and those beyond the queue, hear it at once."""
    first = method.future(b"0", timeout=10)
    assert held.entered.wait(10)
    waiting = [method.future(b"%d" % number, timeout=10) for number in range(1, 9)]
    timer = threading.Timer(0.2, held.release.set)
    timer.start()
    answers = [call.result() for call in waiting]
    timer.join()
    assert first.result() == b"ok:0"
    served = [answer for answer in answers if answer.startswith(b"ok:")]
    assert 2 <= len(served) <= 6
    assert sum(answer.startswith(b"overloaded:") for answer in answers) == 8 - len(served)


def test_a_call_may_be_answered_with_an_error(held: Held, method: Method, front: GrpcFront) -> None:
    """With its code and its message, and the others of its batch with what is theirs; nothing is left in flight."""
    held.release.set()
    calls = [method.future(payload, timeout=10) for payload in (b"1", b"fail", b"2")]
    assert [calls[0].result(), calls[2].result()] == [b"ok:1", b"ok:2"]
    with pytest.raises(grpc.RpcError) as failed:
        calls[1].result()
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no, thank you")
    assert method.future(b"3", timeout=10).result() == b"ok:3"
    wait_until(lambda: front.in_flight == 0)


def test_an_error_that_nobody_waits_for_is_dropped(held: Held, method: Method) -> None:
    """The service hears of messages that reached nobody, not of errors."""
    first = method.future(b"fail", timeout=10)
    assert held.entered.wait(10)
    first.cancel()
    await_its_end(method.future(b"overdue", timeout=0.3))  # by now its cancel has arrived
    held.release.set()
    assert method.future(b"last", timeout=10).result() == b"ok:last"
    assert held.undelivered_answers.empty()


def test_a_call_that_was_given_up_is_not_looked_at(held: Held, method: Method) -> None:
    """Cancelled and overdue calls are dropped unseen: nothing can be taken for them."""
    first = method.future(b"first", timeout=10)
    assert held.entered.wait(10)
    cancelled = method.future(b"cancelled", timeout=10)
    await_its_end(method.future(b"overdue", timeout=0.3))  # by now the call before it on the connection has arrived
    cancelled.cancel()
    await_its_end(method.future(b"overdue", timeout=0.3))  # and now its cancel
    held.release.set()
    assert first.result() == b"ok:first"
    assert method.future(b"last", timeout=10).result() == b"ok:last"
    assert held.seen == [b"first", b"last"]


def await_its_end(call: grpc.Future) -> None:
    """Wait until a call's deadline has passed."""
    with pytest.raises(grpc.RpcError):
        call.result()


def test_no_wait_outlasts_the_gates_own_patience(held: Held, method: Method) -> None:
    """A call's deadline is 50 ms after it was taken, however patient its client."""
    held.release.set()
    method(b"x", timeout=10)
    assert held.deadlines_ms[0] <= SystemClock().monotonic_ms() + 50


def test_nothing_is_done_for_a_client_that_has_gone(
    kind: type[NativeFront | GrpcioFront], held: Held, tmp_path: Path
) -> None:
    """A call's deadline is the client's own where that is sooner."""
    held.release.set()
    limits = QueueLimits(answer_ms=60_000)
    front = made(kind, f"unix:{tmp_path}/g.sock", held, limits)
    front.start()
    with grpc.insecure_channel(front.address) as channel:
        channel.unary_unary(PATH)(b"x", timeout=10)
    front.stop(5)
    rounding_ms = 500  # clients write a timeout of ten seconds in steps of 100 ms, rounded up
    assert held.deadlines_ms[0] <= SystemClock().monotonic_ms() + 10_000 + rounding_ms


def test_what_a_call_waited_before_it_was_taken_is_its_clients_time_too(
    kind: type[NativeFront | GrpcioFront], held: Held, tmp_path: Path
) -> None:
    """Behind a batch that takes long: the deadline is counted from no later than the call's arrival."""
    front = made(kind, f"unix:{tmp_path}/g.sock", held, QueueLimits(wait_ms=60_000, answer_ms=60_000))
    front.start()
    with grpc.insecure_channel(front.address) as channel:
        first = channel.unary_unary(PATH).future(b"first", timeout=30)
        assert held.entered.wait(10)
        sent_ms = SystemClock().monotonic_ms()
        second = channel.unary_unary(PATH).future(b"second", timeout=10)
        threading.Timer(1.0, held.release.set).start()
        assert (first.result(), second.result()) == (b"ok:first", b"ok:second")
    front.stop(5)
    rounding_ms = 500
    assert held.deadlines_ms[1] <= sent_ms + 10_000 + rounding_ms


def test_a_hurried_call_does_not_hurry_the_others(held: Held, method: Method) -> None:
    """A call whose client gives up in a few milliseconds is refused; the batch's deadline stays the others'."""
    first = method.future(b"first", timeout=10)
    assert held.entered.wait(10)
    hurried = method.future(b"hurried", timeout=0.3)
    patient = method.future(b"patient", timeout=10)
    threading.Timer(0.295, held.release.set).start()
    with suppress(grpc.RpcError):
        assert hurried.result() == b"overloaded:hurried"
    assert patient.result() in {b"ok:patient", b"overloaded:patient"}
    assert first.result() == b"ok:first"
    assert b"hurried" not in held.seen


def test_an_answer_that_nobody_waits_for_is_told(held: Held, method: Method) -> None:
    """Who gave up, or whose deadline passed, while its call was decided: the service hears of that answer alone."""
    given_up = method.future(b"given up", timeout=10)
    assert held.entered.wait(10)
    heard = method.future(b"heard", timeout=10)
    await_its_end(method.future(b"overdue", timeout=0.3))
    given_up.cancel()
    await_its_end(method.future(b"overdue", timeout=0.3))  # by now its cancel has arrived
    held.release.set()
    assert heard.result() == b"ok:heard"
    assert held.undelivered_answers.get(timeout=10) == b"ok:given up"
    assert method(b"last", timeout=10) == b"ok:last"
    assert held.undelivered_answers.empty()


def test_the_answer_of_a_call_past_its_clients_deadline_is_told(held: Held, method: Method) -> None:
    """A deadline that passes while a call is decided is a cancel: whatever was taken can be given back."""
    overdue = method.future(b"overdue", timeout=0.5)
    assert held.entered.wait(10)
    await_its_end(overdue)
    await_its_end(method.future(b"another", timeout=0.3))
    held.release.set()
    assert held.undelivered_answers.get(timeout=10) == b"ok:overdue"


def test_the_answers_of_a_connection_that_broke_are_told(front: GrpcFront, held: Held) -> None:
    """A proxy that is gone waits for nothing."""
    with grpc.insecure_channel(front.address) as channel:
        gone = channel.unary_unary(PATH).future(b"gone", timeout=10)
        assert held.entered.wait(10)
    with grpc.insecure_channel(front.address) as channel:
        await_its_end(channel.unary_unary(PATH).future(b"another", timeout=0.3))
    held.release.set()
    await_its_end(gone)
    assert held.undelivered_answers.get(timeout=10) == b"ok:gone"
