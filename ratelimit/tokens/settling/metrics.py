"""Every instrument of settlements, in one place. Labels come from enums or bounded sets, never from key ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ratelimit.tokens.costs import Cost, Ended
from ratelimit.tokens.ledger import Outcome, Settled
from ratelimit.tokens.settling.tallies import Tally
from runtime.bounded_labels import MAX_NAMES, OTHER, BoundedLabels

_LATENCY_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_SCRIPT_S: Final = (0.0005, 0.001, 0.002, 0.004, 0.01, 0.02, 0.05, 0.1)


class SettlementMetrics:
    """The instruments and what an ended call adds to them."""

    def __init__(
        self,
        registry: CollectorRegistry,
        now_s: Callable[[], float] = time.monotonic,
        on_presumed: Callable[[int], object] = lambda _calls: None,
    ) -> None:
        """``on_presumed`` is told how many calls were presumed, as they are counted."""
        self._on_presumed = on_presumed
        self._publications = BoundedLabels(MAX_NAMES, self._publication_gone, now_s)
        self._settlements = Counter(
            "tollkeeper_settlements",
            "Ended calls by the row of the endings table and what the ledger made of it.",
            ["ending", "outcome"],
            registry=registry,
        )
        self._clamped = Counter(
            "tollkeeper_settlements_clamped",
            "Answers that told more usage than is believed of them, by publication.",
            ["publication"],
            registry=registry,
        )
        self._above = Counter(
            "tollkeeper_settlements_above_hold",
            "Ended calls that cost more tokens than they held, by publication.",
            ["publication"],
            registry=registry,
        )
        self._above_tokens = Counter(
            "tollkeeper_tokens_above_hold",
            "Tokens charged at settlement beyond what the calls held.",
            ["publication"],
            registry=registry,
        )
        self._parts = Counter(
            "tollkeeper_tokens_told",
            "Tokens that answers told, by the part of their usage: cached and cache_written are of the prompt too, "
            "reasoning of the completion.",
            ["publication", "part"],
            registry=registry,
        )
        self._tokens = Counter(
            "tollkeeper_tokens_charged", "Tokens charged at settlement.", ["publication"], registry=registry
        )
        self._upstream = Counter(
            "tollkeeper_upstream_answers",
            "Ended openai calls by publication and HTTP status class (none: the caller got no status).",
            ["publication", "status"],
            registry=registry,
        )
        self._upstream_s = Histogram(
            "tollkeeper_upstream_seconds",
            "From the first byte of an openai call to the last of its answer, as the proxy tells it.",
            ["publication"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.released = Counter(
            "tollkeeper_reservations_released",
            "Reservations given back: the proxy gave up the call, or the store's answer to the gate came too late.",
            registry=registry,
        )
        self.awaited = Counter(
            "tollkeeper_background_awaited",
            "Calls whose work goes on in the background: held until a later answer tells what they cost.",
            registry=registry,
        )
        self._presumed = Counter(
            "tollkeeper_reservations_presumed",
            "Reservations that nobody settled in time: charged what they were presumed to cost.",
            registry=registry,
        )
        self._presumed_tokens = Counter(
            "tollkeeper_tokens_presumed", "Tokens charged for reservations that nobody settled.", registry=registry
        )
        self._forgotten = Counter(
            "tollkeeper_reservations_forgotten",
            "Presumed reservations whose tokens are counted no more, deleted.",
            registry=registry,
        )
        self.lost = Counter(
            "tollkeeper_settlements_lost",
            "Ended calls that could not be settled (overflow, too_old, unreadable); the sweep presumes them.",
            ["why"],
            registry=registry,
        )
        self.waiting = Gauge("tollkeeper_settlements_waiting", "Ended calls not settled yet.", registry=registry)
        self.errors = Counter(
            "tollkeeper_settlement_errors", "Times the ledger could not be asked; it is asked again.", registry=registry
        )
        self.faults = Counter(
            "tollkeeper_settlement_faults",
            "Budget values that a settlement could not change.",
            registry=registry,
        )
        self._script_s = Histogram(
            "tollkeeper_settlement_script_seconds",
            "Processor time of the budgets store that one script took which settles or sweeps.",
            ["work"],
            buckets=_SCRIPT_S,
            registry=registry,
        )
        self.swept_s = Gauge(
            "tollkeeper_sweep_age_seconds",
            "Since overdue reservations were last swept in every cell.",
            registry=registry,
        )

    def settled(self, publication: str, endings: Sequence[tuple[Ended, Cost, Outcome]]) -> None:
        """Count ended calls of one publication; ``publication`` is its name, "" where it is not known."""
        tally = Tally.of(endings)
        for (ending, outcome), calls in tally.outcomes.items():
            self._settlements.labels(ending, outcome).inc(calls)
        if not tally.calls:
            return
        (label,) = self._publications.of(publication or OTHER)
        self._tokens.labels(label).inc(tally.tokens)
        for status, calls in tally.statuses.items():
            self._upstream.labels(label, status).inc(calls)
        if tally.clamped:
            self._clamped.labels(label).inc(tally.clamped)
        if tally.above:
            self._above.labels(label).inc(tally.above)
            self._above_tokens.labels(label).inc(tally.tokens_above)
        for part, tokens in tally.parts.items():
            self._parts.labels(label, part).inc(tokens)
        upstream_s = self._upstream_s.labels(label)
        for duration_ms in tally.durations_ms:
            upstream_s.observe(duration_ms / 1000)

    def _publication_gone(self, labels: tuple[str, ...]) -> None:
        counters = (self._clamped, self._above, self._above_tokens, self._parts, self._tokens, self._upstream)
        for instrument in (*counters, self._upstream_s):
            instrument.remove_by_labels({"publication": labels[0]})

    def unreadable(self) -> None:
        """Count a settlement of which nothing can be read."""
        self.lost.labels("unreadable").inc()

    def unknown(self) -> None:
        """Count an ended call that the ledger does not know: settled before, or of another store."""
        self._settlements.labels(Outcome.UNKNOWN.value, Outcome.UNKNOWN.value).inc()

    def ran(self, work: str, settled: Settled) -> None:
        """Count one script, which settled or swept (``work``), and the overdue ones that it ended."""
        if settled.is_resting:
            return
        self._script_s.labels(work).observe(settled.spent_us / 1_000_000)
        self._presumed.inc(settled.presumed)
        self._on_presumed(settled.presumed)
        self._presumed_tokens.inc(settled.presumed_tokens)
        self._forgotten.inc(settled.forgotten)
        self.faults.inc(settled.faults)
