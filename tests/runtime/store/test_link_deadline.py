"""The deadline of an exchange with the store, on a clock of the test's own: exact, whatever the other end does."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis

from runtime.store.link import NotSentError, StoreLink

START_MS = 1_000.0


@dataclass
class ManualClock:
    """Stands still until it is moved."""

    now_ms: float = START_MS

    def monotonic_ms(self) -> float:
        """Return what was set."""
        return self.now_ms

    def wall_ms(self) -> int:
        """Not asked for here."""
        return 0


@dataclass
class SlowSocket:
    """A connection whose other end sends one byte after each pause; notes how long each wait was allowed to be."""

    clock: ManualClock
    pause_ms: float
    reply: bytes
    waits_s: list[float] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    family: int = socket.AF_UNIX

    def send(self, data: bytes) -> int:
        """Note it."""
        self.sent.append(bytes(data))
        return len(data)

    def poll(self, wait_ms: float) -> list[tuple[int, int]]:
        """Let the pause pass, or as much of it as may be waited for; what came, as ``select.poll`` tells it."""
        self.waits_s.append(wait_ms / 1_000)
        self.clock.now_ms += min(self.pause_ms, wait_ms)
        return [(0, select.POLLIN)] if self.pause_ms <= wait_ms else []

    def recv(self, _size: int) -> bytes:
        """Hand out what came."""
        byte, self.reply = self.reply[:1], self.reply[1:]
        return byte


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """The link's clock."""
    return ManualClock()


def _link(clock: ManualClock, connection: SlowSocket) -> StoreLink:
    link = StoreLink("unix:///nowhere", clock)
    link._socket = connection  # type: ignore[assignment]  # past redis-py's handshake
    link._poll = connection  # type: ignore[assignment]
    return link


@pytest.mark.parametrize("pause_ms", [1, 7, 10, 49, 50, 51, 10_000])
def test_a_dribbled_reply_is_given_up_at_the_deadline(clock: ManualClock, pause_ms: float) -> None:
    """Each wait is as long as what is left, and the exchange ends neither before the deadline nor after it."""
    connection = SlowSocket(clock, pause_ms, b"+" + b"x" * 10_000)
    link = _link(clock, connection)
    with pytest.raises(redis.TimeoutError):
        link.execute(START_MS + 50, "PING")
    assert clock.now_ms == pytest.approx(START_MS + 50)
    assert connection.waits_s[0] == pytest.approx(0.050)
    assert all(0 < wait_s <= 0.050 for wait_s in connection.waits_s)
    assert not link.connected


def test_a_reply_at_the_last_moment_is_taken(clock: ManualClock) -> None:
    """Seven bytes in 49 ms are in time for 50; the link stays."""
    link = _link(clock, SlowSocket(clock, 7, b"+PONG\r\n"))
    assert link.execute(START_MS + 50, "PING") == b"PONG"
    assert link.connected


def test_nothing_is_sent_after_the_deadline(clock: ManualClock) -> None:
    """At the deadline it is too late: the command surely did not run, and the link stays for the next one."""
    connection = SlowSocket(clock, 1, b"")
    link = _link(clock, connection)
    with pytest.raises(NotSentError):
        link.execute(START_MS, "PING")
    assert connection.sent == []
    assert link.connected
