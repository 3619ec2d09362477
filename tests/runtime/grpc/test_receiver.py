"""The receiver of streams: what clients send is taken, whatever they are like, and a stream's end loses nothing."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from authority import Authority
from gatebench import wait_until

from protos.health_pb2 import HealthCheckRequest, HealthCheckResponse
from runtime.grpc.health import HEALTH_PATH, HealthService
from runtime.grpc.receiver import ReceiverLimits, StreamEnd, StreamReceiver
from runtime.grpc.tls import Certificates, TlsFiles
from runtime.lifecycle import CannotStart

METHOD = "/test.Log/Stream"
PATIENCE_S = 10
LONG = ReceiverLimits(message_bytes=1_000, streams=2, least_age_s=60, most_age_s=60)
SHORT = ReceiverLimits(least_age_s=0.05, most_age_s=0.1)


class Taken:
    """A receiver, and what it took."""

    def __init__(self, target: str, limits: ReceiverLimits, **fields: Any) -> None:
        self.messages: list[bytes] = []
        self.ends: list[StreamEnd] = []
        self.serving = True
        self.on_message: Callable[[bytes], object] = lambda _message: None
        self.receiver = StreamReceiver(
            {METHOD: self._take},
            HealthService(lambda: self.serving, ["test.Log"]),
            target=target,
            on_end=self.ends.append,
            on_fault=lambda: pytest.fail("the receiver ended by a fault"),
            limits=limits,
            **fields,
        )

    def _take(self, message: bytes) -> None:
        if message == b"raise":
            raise ValueError
        self.messages.append(message)
        self.on_message(message)


class Client:
    """A stream that sends what it is given, as Envoy does: it hears nothing but the end."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = channel.stream_unary(METHOD).future(iter(self._waiting.get, None))

    def send(self, *messages: bytes) -> None:
        """Send these."""
        for message in messages:
            self._waiting.put(message)

    def close(self) -> None:
        """Say that no more will come."""
        self._waiting.put(None)

    def cancel(self) -> None:
        """Give the stream up."""
        self._call.cancel()
        self.close()

    @property
    def is_done(self) -> bool:
        """Whether the stream has ended."""
        return bool(self._call.done())

    def code(self) -> grpc.StatusCode:
        """How it ended; waits for it."""
        try:
            self._call.result(PATIENCE_S)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]
        finally:
            self.close()
        return grpc.StatusCode.OK


@contextmanager
def receiving(folder: Path, limits: ReceiverLimits = LONG, **fields: Any) -> Iterator[tuple[Taken, grpc.Channel]]:
    """A receiver on a socket, and a connection to it."""
    taken = Taken(f"unix:{folder}/r.sock", limits, **fields)
    taken.receiver.start()
    try:
        with grpc.insecure_channel(taken.receiver.address) as channel:
            yield taken, channel
    finally:
        taken.receiver.stop()


def test_messages_are_taken_in_the_order_of_their_stream(tmp_path: Path) -> None:
    """While the stream is open, and all of them before its end."""
    with receiving(tmp_path) as (taken, channel):
        client = Client(channel)
        client.send(b"0")
        wait_until(lambda: taken.messages == [b"0"])
        client.send(*(b"%d" % number for number in range(1, 100)))
        client.close()
        assert client.code() is grpc.StatusCode.OK
        assert taken.messages == [b"%d" % number for number in range(100)]
        wait_until(lambda: taken.ends == [StreamEnd.CLOSED])
        assert taken.receiver.streams == 0


def test_streams_are_renewed_and_lose_nothing(tmp_path: Path) -> None:
    """A client that sends a message at intervals begins a new stream after each end; every message arrives."""
    with receiving(tmp_path, SHORT) as (taken, channel):
        client = Client(channel)
        for number in range(25):
            if client.is_done:
                client = Client(channel)
            client.send(b"%d" % number)
            time.sleep(0.1)  # the client's own interval, many times what a stream is left quiet before it ends
        client.close()
        wait_until(lambda: len(taken.messages) == 25)
        assert taken.messages == [b"%d" % number for number in range(25)]
        assert taken.ends.count(StreamEnd.RENEWED) >= 5


def test_a_silent_stream_stays_open(tmp_path: Path) -> None:
    """However old it grows: a client that has nothing to say is not made to begin again."""
    with receiving(tmp_path, SHORT) as (taken, channel):
        client = Client(channel)
        client.send(b"0")
        wait_until(lambda: len(taken.messages) == 1)
        time.sleep(0.3)  # three times the greatest age
        assert not client.is_done
        client.close()


def test_a_drained_receiver_sends_clients_elsewhere(tmp_path: Path) -> None:
    """After their next message, which is taken."""
    with receiving(tmp_path) as (taken, channel):
        client = Client(channel)
        client.send(b"0")
        wait_until(lambda: len(taken.messages) == 1)
        taken.receiver.drain()
        client.send(b"1")
        assert client.code() is grpc.StatusCode.OK
        assert (taken.messages, taken.ends) == ([b"0", b"1"], [StreamEnd.RENEWED])


def test_a_stop_takes_what_has_arrived_and_is_bounded(tmp_path: Path) -> None:
    """What was sent before it is taken; a stream that stays silent is cut off, and no thread is left."""
    taken = Taken(f"unix:{tmp_path}/r.sock", LONG)
    taken.receiver.start()
    with grpc.insecure_channel(taken.receiver.address) as channel:
        client, silent = Client(channel), Client(channel)
        client.send(b"first")
        wait_until(lambda: len(taken.messages) == 1)
        client.send(*[b"x" * 900] * 50)
        begun_s = time.monotonic()
        taken.receiver.stop()
        assert time.monotonic() - begun_s < 5
        assert len(taken.messages) == 51
        assert {client.code(), silent.code()} == {grpc.StatusCode.OK}
        assert taken.ends == [StreamEnd.RENEWED] * 2
    assert "grpc-streams" not in {thread.name for thread in threading.enumerate()}
    assert not (tmp_path / "r.sock").exists()


def test_a_message_above_the_bound_ends_its_stream_alone(tmp_path: Path) -> None:
    """Counted as broken; another stream goes on."""
    with receiving(tmp_path) as (taken, channel):
        good, large = Client(channel), Client(channel)
        good.send(b"0")
        large.send(b"x" * 1_001)
        assert large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: taken.ends == [StreamEnd.BROKEN])
        good.send(b"x" * 1_000)
        wait_until(lambda: taken.messages == [b"0", b"x" * 1_000])
        good.close()


def test_streams_are_bounded(tmp_path: Path) -> None:
    """One more is refused, and has a place once another has ended, however it ended."""
    with receiving(tmp_path) as (taken, channel):
        one, two = Client(channel), Client(channel)
        wait_until(lambda: taken.receiver.streams == 2)
        three = Client(channel)
        assert three.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert taken.ends == [StreamEnd.REFUSED]
        one.cancel()
        wait_until(lambda: taken.receiver.streams == 1)
        four = Client(channel)
        four.send(b"4")
        wait_until(lambda: taken.messages == [b"4"])
        assert sorted(taken.ends) == [StreamEnd.BROKEN, StreamEnd.REFUSED]
        two.close()
        four.close()


def test_what_cannot_be_taken_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours at one message is logged; the stream's others are taken."""
    with receiving(tmp_path) as (taken, channel):
        client = Client(channel)
        client.send(b"raise", b"1")
        wait_until(lambda: taken.messages == [b"1"])
        assert "a message could not be taken" in caplog.text
        client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",  # connects and says nothing
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # a client's preface, and no settings
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        bytes(range(256)) * 100,
    ],
    ids=["silent", "http1", "half", "broken", "noise"],
)
def test_clients_that_speak_something_else_harm_nobody(tmp_path: Path, sent: bytes) -> None:
    """Fifty of them, who stay: a good one is heard beside them, and the stop is not held up."""
    with receiving(tmp_path) as (taken, channel), ExitStack() as stack:
        for _ in range(50):
            odd = stack.enter_context(socket.socket(socket.AF_UNIX))
            odd.connect(f"{tmp_path}/r.sock")
            with suppress(OSError):
                odd.sendall(sent)
        client = Client(channel)
        client.send(b"good")
        wait_until(lambda: taken.messages == [b"good"])
        begun_s = time.monotonic()
        taken.receiver.stop()
        assert time.monotonic() - begun_s < 5


def test_health_is_told(tmp_path: Path) -> None:
    """So that Envoy leaves a gate out that is not ready."""
    with receiving(tmp_path) as (taken, channel):
        ask = channel.unary_unary(HEALTH_PATH, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString)
        assert ask(HealthCheckRequest(service="test.Log")).status == HealthCheckResponse.SERVING
        taken.serving = False
        assert ask(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING


def test_two_do_not_share_an_address(tmp_path: Path) -> None:
    """The second says that it cannot start."""
    with receiving(tmp_path):
        second = Taken(f"unix:{tmp_path}/r.sock", LONG)
        with pytest.raises(CannotStart, match="another process listens there"):
            second.receiver.start()


def test_with_tls_only_known_clients_are_heard(tmp_path: Path) -> None:
    """One that shows a certificate of the authority; neither one without nor plaintext."""
    ours = Authority(tmp_path, "ours")
    (chain, key), (shown, shown_key) = ours.give("gate"), ours.give("envoy")
    taken = Taken("127.0.0.1:0", LONG, certificates=Certificates(TlsFiles(chain, key, ours.ca), lambda _: None))
    taken.receiver.start()
    try:
        root = ours.ca.read_bytes()
        known = grpc.ssl_channel_credentials(root, shown_key.read_bytes(), shown.read_bytes())
        with grpc.secure_channel(taken.receiver.address, known) as channel:
            client = Client(channel)
            client.send(b"known")
            wait_until(lambda: taken.messages == [b"known"])
            client.close()
            assert client.code() is grpc.StatusCode.OK
        for stranger in (
            grpc.secure_channel(taken.receiver.address, grpc.ssl_channel_credentials(root)),
            grpc.insecure_channel(taken.receiver.address),
        ):
            with stranger:
                client = Client(stranger)
                client.send(b"unknown")
                assert client.code() is grpc.StatusCode.UNAVAILABLE
        assert taken.messages == [b"known"]
    finally:
        taken.receiver.stop()


def test_what_a_client_sent_before_it_gave_up_is_taken(tmp_path: Path) -> None:
    """An Envoy that stops sends what it has and resets its stream: both may be there when we next look."""
    with receiving(tmp_path, LONG) as (taken, channel):
        busy = threading.Event()
        taken.on_message = lambda message: busy.wait(PATIENCE_S) if message == b"busy" else None
        leaving, other = Client(channel), Client(channel)
        wait_until(lambda: taken.receiver.streams == 2)
        other.send(b"busy")
        wait_until(lambda: taken.messages == [b"busy"])
        leaving.send(b"last")
        time.sleep(0.1)  # on its way: nobody tells that a message was sent
        leaving.cancel()
        time.sleep(0.1)
        busy.set()
        wait_until(lambda: taken.ends == [StreamEnd.BROKEN])
        wait_until(lambda: taken.messages == [b"busy", b"last"])
        other.close()
