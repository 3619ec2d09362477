"""Every instrument of the Check service, in one place. Labels come from enums or bounded sets, never from key ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from extauth.reasons import WIRE, Reason
from extauth.records.entries import PublicationEntry, TenantEntry
from extauth.verdict import Verdict
from runtime.bounded_labels import MAX_NAMES, BoundedLabels
from runtime.tallies import Spread, Tally

MAX_PAIRS: Final = 2_000
"""Most combinations of a publication and a caller's tenant: a scrape must not hold up the calls."""
NONE: Final = ""

_LATENCY_S: Final[tuple[float, ...]] = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class CheckMetrics:
    """The instruments and what a batch adds to them; only the thread that decides adds to tallies and spreads."""

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float] = time.monotonic) -> None:
        self._publications = BoundedLabels(MAX_NAMES, self._publication_gone, now_s)
        self._pairs = BoundedLabels(MAX_PAIRS, self._pair_gone, now_s)
        self._decisions = Tally(
            "tollkeeper_decisions",
            "Calls decided, by outcome, reason, publication (tenant/model) and the caller's tenant.",
            ["outcome", "reason", "publication", "tenant"],
            registry=registry,
        )
        self.latency_s = Spread(
            "tollkeeper_decision_seconds",
            "From reading a batch of calls to its answers, in seconds, for each call.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.batch_calls = Spread(
            "tollkeeper_batch_calls", "Calls decided together.", buckets=_BATCH, registry=registry
        )
        self.store_errors = Counter(
            "tollkeeper_store_errors", "Commands to the store that failed, by kind.", ["kind"], registry=registry
        )
        self.stale = Tally(
            "tollkeeper_stale_decisions", "Calls decided again because a record had changed.", registry=registry
        )
        self.denied = Tally(
            "tollkeeper_remembered_denials",
            "Calls refused as a moment ago by a full budget: the store was asked for the epoch only.",
            registry=registry,
        )
        self.unknown_outcomes = Tally(
            "tollkeeper_unknown_outcomes",
            "Calls that the store may have counted although its answer did not come; none was admitted by it.",
            registry=registry,
        )
        self.store_up = Gauge(
            "tollkeeper_store_up", "1 while every store has a link that was proved, else 0.", registry=registry
        )
        self.store_links = Counter(
            "tollkeeper_store_links", "Links to a store that came into use, the first one included.", registry=registry
        )
        self.bounded_mode = Gauge(
            "tollkeeper_bounded_mode", "1 while known calls go on although a store is away, else 0.", registry=registry
        )
        self.bounded_admissions = Counter(
            "tollkeeper_bounded_admissions",
            "Calls admitted under this gate's own share of the limits; no store counted them.",
            registry=registry,
        )
        self.gates = Gauge(
            "tollkeeper_gates",
            "Gates that share the stores, as last told by them.",
            registry=registry,
        )
        self.store_format = Gauge(
            "tollkeeper_store_format",
            "Format in which budgets and reservations are written: the newest once every gate reads it, else 1.",
            registry=registry,
        )
        self.clock_steps = Counter(
            "tollkeeper_store_clock_steps",
            "Windows found ahead of the store's clock: it stepped back.",
            registry=registry,
        )
        self.feed_errors = Counter(
            "tollkeeper_feed_errors", "Times the change feed could not be followed.", registry=registry
        )
        self.cache_entries = Gauge("tollkeeper_cache_entries", "Records in the cache.", registry=registry)
        self.lane_calls = Tally(
            "tollkeeper_lane_calls", "Calls of a key and route that was decided before.", registry=registry
        )
        self.lanes = Gauge("tollkeeper_lanes", "Keys and routes whose decision is kept.", registry=registry)
        self.lane_bytes = Gauge("tollkeeper_lane_bytes", "About how much memory they take.", registry=registry)
        self._cache_hits = Tally(
            "tollkeeper_cache_hits",
            "Records that a batch needed, for calls without a lane, and the cache had.",
            registry=registry,
        )
        self._cache_misses = Tally(
            "tollkeeper_cache_misses", "Records that a batch needed and read from the store.", registry=registry
        )
        self.feed_lag_s = Gauge(
            "tollkeeper_feed_lag_seconds",
            "Since the cache was last known to be as new as the change feed; up to 1 s while nothing changes.",
            registry=registry,
        )
        self._lines_left_out = Counter(
            "tollkeeper_log_suppressed",
            "Refusals without a line in the log: one a second and reason is written.",
            ["reason"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "tollkeeper_calls_in_flight",
            "Calls taken and not answered yet, waiting ones included.",
            registry=registry,
        )

    def line_left_out(self, reason: Reason) -> None:
        """Count a refusal that is not in the log, because the log had one like it a moment ago."""
        self._lines_left_out.labels(reason.value).inc()

    def gathered(self, needed: int, read: int) -> None:
        """Count the records of a batch: how many it needed and how many of them were read from the store."""
        self._cache_hits.add(max(0, needed - read))
        self._cache_misses.add(read)

    def batch(self, verdicts: Sequence[Verdict], spent_ms: float) -> None:
        """Count a batch that was answered in ``spent_ms``."""
        self.batch_calls.observe(len(verdicts))
        self.latency_s.observe(spent_ms / 1000, len(verdicts))
        alike: dict[tuple[Reason, PublicationEntry | None, TenantEntry | None], int] = {}
        for verdict in verdicts:
            of = verdict.reason, verdict.publication, verdict.tenant
            alike[of] = alike.get(of, 0) + 1
        for (reason, publication, tenant), calls in alike.items():
            names = self._names(publication, tenant)
            self._decisions.add(calls, WIRE[reason].outcome.value, reason.value, *names)

    def _publication_gone(self, labels: tuple[str, ...]) -> None:
        """Take the pairs of a publication along, which had no calls for as long."""
        for pair in self._pairs.with_first(labels[0]):
            self._pairs.forget(pair)

    def _pair_gone(self, pair: tuple[str, ...]) -> None:
        self._decisions.forget(*pair)

    def _names(self, publication: PublicationEntry | None, caller: TenantEntry | None) -> tuple[str, ...]:
        """Name publication and caller's tenant, each and together within their bounds."""
        tenant = caller.record.id if caller else NONE
        if publication is None:
            return self._pairs.of(NONE, tenant)
        record = publication.record
        return self._pairs.of(*self._publications.of(f"{record.tenant}/{record.model}"), tenant)
