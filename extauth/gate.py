"""The gate: every part of the Check service put together, with its threads. Knows settings only as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

from catalog import names, reader
from catalog.reader import Delta, Snapshot
from catalog.secrets import Secrets
from extauth import troubles
from extauth.batch import Checker, Events, Execute, Verdict
from extauth.cache import RecordCache
from extauth.call import Call
from extauth.edge import CHECK_PATH, CheckService
from extauth.follower import FeedFollower
from extauth.metrics import CheckMetrics
from extauth.taker import Taker
from ratelimit.budgets import Charge, Taken
from ratelimit.limiter import Limiter
from runtime.clock import Clock
from runtime.grpc_front import BatchService, NativeFront, QueueLimits
from runtime.grpc_health import HEALTH_PATH, HealthService
from runtime.keeper import StoreKeeper
from runtime.link import NotConnectedError, StoreLink
from runtime.offset import ClockOffset
from runtime.readiness import Readiness, Trouble

CELL: Final = "0"
CHECK_SERVICE: Final = "envoy.service.auth.v3.Authorization"
PREPARE_MS: Final = 1_000
"""Longest time for proving a new link: load the script, learn the clock, decide once."""
STOP_S: Final = 2.0

OnTaken = Callable[[Sequence[Charge], Taken], None]


class StoreRecords:
    """``catalog.reader`` for one cell, as ``extauth.batch`` wants it."""

    def read(self, execute: Execute, refs: Sequence[str]) -> Snapshot:
        """Read records together with the epoch."""
        return reader.read(execute, refs, cell=CELL)

    def catch_up(self, execute: Execute, epoch: str) -> Delta | None:
        """Tell what changed since ``epoch``."""
        return reader.catch_up(execute, epoch, cell=CELL)


class Gate:
    """Answers Check on one address. ``start`` and ``stop`` own every thread."""

    def __init__(
        self,
        *,
        target: str,
        redis_url: str,
        secrets: Secrets,
        clock: Clock,
        registry: CollectorRegistry,
        on_fault: Callable[[], object],
        limits: QueueLimits,
        on_taken: OnTaken | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = CheckMetrics(registry)
        self._admission_log = on_taken
        self._draining = False
        self._records = StoreRecords()
        self._limiter = Limiter(cell=CELL, epoch_key=names.epoch(CELL), feed_key=names.feed(CELL))
        self._offset = ClockOffset()
        self._taker = Taker(self._limiter, clock=clock, offset=self._offset, on_taken=self._taken)
        self.cache = RecordCache()
        self._checker = self._make_checker(secrets)
        make_link = partial(StoreLink, redis_url, clock)
        self._keeper = StoreKeeper(make_link, self._prepare, self._store_failed, on_fault)
        self._follower = FeedFollower(
            self.cache,
            make=make_link,
            follow=lambda execute, epoch, block_ms: reader.follow(execute, epoch, block_ms, cell=CELL),
            read_epoch=lambda execute: self._records.read(execute, ()),
            on_error=self._metrics.feed_errors.inc,
            on_fault=on_fault,
            now_ms=clock.monotonic_ms,
        )
        service = CheckService(self._check, self._observe, lambda: self._taker.sizer.calls, clock)
        health = HealthService(lambda: self.readiness().ready, (CHECK_SERVICE,))
        services: dict[str, BatchService] = {CHECK_PATH: service, HEALTH_PATH: health}
        self._front = NativeFront(target, services, clock, on_fault=on_fault, limits=limits)
        self._metrics.feed_lag_s.set_function(self._follower.lag_s)
        self._metrics.in_flight.set_function(lambda: self._front.in_flight)

    def _make_checker(self, secrets: Secrets) -> Checker:
        return Checker(
            cache=self.cache,
            records=self._records,
            limiter=self._taker,
            secrets=secrets,
            now_ms=lambda: self._offset.deadline_on_store_ms(self._clock.monotonic_ms()),
            on=Events(
                stale=self._metrics.stale.inc,
                gathered=self._metrics.gathered,
                unknown_outcome=self._metrics.unknown_outcomes.inc,
                store_error=self._link_failed,
            ),
        )

    # Life

    def start(self) -> None:
        """Bind, connect and begin to answer; calls are refused until the store has been proved."""
        self._front.start()
        self._keeper.start()
        self._follower.start()

    @property
    def address(self) -> str:
        """What clients dial."""
        return self._front.address

    def drain(self) -> None:
        """Say that we are going: health and readiness turn, calls are still answered."""
        self._draining = True

    def stop(self) -> None:
        """Answer what was taken, then end every thread. Bounded."""
        self._draining = True
        self._front.stop(STOP_S)
        self._follower.stop(STOP_S)
        self._keeper.stop(STOP_S)

    def readiness(self) -> Readiness:
        """Say whether calls can be decided, and if not, what is wrong and what to do."""
        facts = {"grpc": self.address, "epoch": self.cache.epoch}
        return Readiness(tuple(self._problems()), facts=facts)

    def _problems(self) -> Iterator[Trouble]:
        if self._draining:
            yield troubles.DRAINING.found("this gate is about to stop")
        if not self._keeper.ready:
            trouble = self._keeper.trouble or "the link to the store broke; a new one is being made"
            yield troubles.STORE_AWAY.found(trouble)

    # The way of a batch

    def _check(self, calls: Sequence[Call], deadline_ms: float) -> list[Verdict]:
        return self._checker.check(calls, self._execute_until(deadline_ms), deadline_ms)

    def _execute_until(self, deadline_ms: float) -> Execute:
        link = self._keeper.current()
        return partial(link.execute, deadline_ms) if link is not None else _refuse

    def _observe(self, verdicts: Sequence[Verdict], spent_ms: float) -> None:
        self._metrics.batch(verdicts, spent_ms)
        self._metrics.cache_entries.set(len(self.cache))

    def _taken(self, charges: Sequence[Charge], taken: Taken) -> None:
        if taken.clock_steps:
            self._metrics.clock_steps.inc(taken.clock_steps)
        if taken.usage_faults:
            self._metrics.usage_faults.inc(taken.usage_faults)
        if self._admission_log is not None:
            self._admission_log(charges, taken)

    def _store_failed(self, error: Exception) -> None:
        self._metrics.store_errors.labels(_error_kind(error)).inc()

    def _link_failed(self, error: Exception) -> None:
        """Count it and have a new link proved; a store that refuses (read-only, no memory) is not one to stay with."""
        self._store_failed(error)
        if isinstance(error, ResponseError):
            self._keeper.discard()
        else:
            self._keeper.renew()

    # Proving a link

    def _prepare(self, link: StoreLink) -> None:
        """Load the script, learn the store's clock and decide once, by looking."""
        execute = partial(link.execute, self._clock.monotonic_ms() + PREPARE_MS)
        self._limiter.load(execute)
        epoch = self._records.read(execute, ()).epoch
        sent_ms = self._clock.monotonic_ms()
        looked = self._limiter.take(execute, [Charge(())], epoch=epoch, look=True)
        self._offset.learn(sent_ms=sent_ms, store_ms=looked.now_ms, received_ms=self._clock.monotonic_ms())


def _refuse(*_command: Any) -> Any:
    raise NotConnectedError("there is no link to the store")


def _error_kind(error: Exception) -> str:
    if isinstance(error, StoreTimeoutError):
        return "timeout"
    if isinstance(error, NotConnectedError):
        return "no_link"
    return "reply" if isinstance(error, ResponseError) else "broken"
