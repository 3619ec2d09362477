"""How a gate hears of endings: what arrives at its receiver's address, and how many calls nobody tells the end of.

Owns the receiver's life and the measure of loss: Envoy does not count what it loses, so the calls that the sweep had to
presume are held against the endings heard. Knows protobuf by its edge only, and no transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from ratelimit.service.endings_edge import ENDINGS_PATH, EndingsService
from ratelimit.service.metrics import EndingsMetrics, Way
from ratelimit.tokens.endings import Told
from ratelimit.tokens.meter import Meter
from runtime.clock import Clock
from runtime.grpc.health import HealthService

if TYPE_CHECKING:
    from runtime.grpc.receiver import OnEnd, StreamReceiver, Take

ReceiverFactory = Callable[["Mapping[str, Take]", HealthService, "OnEnd"], "StreamReceiver"]
"""Makes a receiver of these methods, not started yet. Its room loads grpcio: imported where one is asked for."""

PERIOD_MS: Final = 600_000
"""Endings are counted by periods, of which the newest and the one before count: ten to twenty minutes."""
LEAST_PRESUMED: Final = 20
"""Fewer are no loss of endings: an Envoy that was killed leaves some."""
MOST_LOST: Final = 0.001
"""More of the calls than this is no chance."""


@dataclass
class _Period:
    heard: int = 0
    presumed: int = 0


class Shortfall:
    """Endings that were heard, and calls that had to be presumed, lately."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._until_ms = now_ms() + PERIOD_MS
        self._before, self._now = _Period(), _Period()

    def heard(self, endings: int) -> None:
        """Count endings."""
        self._turn()
        self._now.heard += endings

    def presumed(self, calls: int) -> None:
        """Count calls of which nobody told in time."""
        if calls:
            self._turn()
            self._now.presumed += calls

    def found(self) -> tuple[int, int] | None:
        """Calls presumed and endings heard, where too many are missing."""
        self._turn()
        presumed = self._before.presumed + self._now.presumed
        heard = self._before.heard + self._now.heard
        is_much = presumed >= LEAST_PRESUMED and presumed > MOST_LOST * (presumed + heard)
        return (presumed, heard) if is_much else None

    def _turn(self) -> None:
        late_ms = self._now_ms() - self._until_ms
        if late_ms < 0:
            return
        self._before = self._now if late_ms < PERIOD_MS else _Period()
        self._now = _Period()
        self._until_ms = self._now_ms() + PERIOD_MS


class Endings:
    """Hears endings by both ways, and passes them on to be settled."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Clock,
        settle: Callable[[Sequence[Told]], None],
        *,
        shortfall: Shortfall,
        meter: Meter,
    ) -> None:
        self._metrics = EndingsMetrics(registry)
        self._settle = settle
        self._shortfall = shortfall
        self._service = EndingsService(
            self.by_log,
            on_unreadable=self._metrics.unreadable.inc,
            on_fault=self._metrics.faults.inc,
            on_delay=self._metrics.delay_s.observe,
            wall_ms=clock.wall_ms,
            meter=meter,
        )
        self._heard = {way: self._metrics.heard.labels(way.value) for way in Way}
        self._receiver: StreamReceiver | None = None

    def made(self, calls: int) -> None:
        """Count calls admitted whose ending is waited for."""
        if calls:
            self._metrics.made.inc(calls)

    def by_log(self, told: Sequence[Told]) -> None:
        """Take note of the entries of a message of the access log."""
        self._note(told, Way.LOG)

    def by_stream_done(self, told: Told) -> None:
        """Take note of what an Envoy of the release before says."""
        self._note((told,), Way.STREAM_DONE)

    def _note(self, told: Sequence[Told], way: Way) -> None:
        self._heard[way].inc(len(told))
        self._shortfall.heard(len(told))
        self._settle(told)

    # The receiver's life

    def listen(self, make: ReceiverFactory, is_ready: Callable[[], bool]) -> None:
        """Have a receiver; it is started with ``start``."""
        health = HealthService(is_ready, [ENDINGS_PATH.split("/")[1]])
        receiver = make({ENDINGS_PATH: self._service.take}, health, lambda end: self._metrics.ended.labels(end).inc())
        self._metrics.streams.set_function(lambda: receiver.streams)
        self._receiver = receiver

    @property
    def address(self) -> str:
        """Where endings are received; "" where none are."""
        return self._receiver.address if self._receiver else ""

    def start(self) -> None:
        """Begin to receive."""
        if self._receiver:
            self._receiver.start()

    def drain(self) -> None:
        """Have Envoys go elsewhere."""
        if self._receiver:
            self._receiver.drain()

    def stop(self) -> None:
        """Take what has arrived, and close. Bounded."""
        if self._receiver:
            self._receiver.stop()
