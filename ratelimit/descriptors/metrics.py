"""Every instrument of ordinary descriptors, in one place. Knows no store.

Calls are counted by outcome. Hits are counted limit by limit where the file asks for it (``detailed_metric``,
``value_to_metric``), of limits that refuse nobody and of those that calls bring along. Callers may choose what such a
series is named, so as many as a scrape bears have their own, those in use before others; the rest is ``other``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from ratelimit.descriptors.file import Limit
from ratelimit.descriptors.telling import Outcome, Said, Status
from ratelimit.windows.budgets import MAX_UNITS
from runtime.bounded_labels import MAX_NAMES, BoundedLabels
from runtime.tallies import Tally

MAX_LABEL: Final = 200
"""Most characters of a limit's label; what follows is cut off."""
FILE: Final = "file"
REQUEST: Final = "request"

_LABELS: Final = tuple((outcome, outcome.value) for outcome in Outcome)


class OrdinaryMetrics:
    """The instruments; only the thread that decides adds to tallies."""

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float] = time.monotonic) -> None:
        self._decisions = Tally(
            "tollkeeper_descriptor_decisions",
            "Calls of the rate-limit service about ordinary descriptors, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._hits = Tally(
            "tollkeeper_descriptor_hits",
            "Hits of ordinary descriptors whose limit has a metric of its own, by outcome, who set it, and limit.",
            ["outcome", "source", "limit"],
            registry=registry,
        )
        self._limits = BoundedLabels(MAX_NAMES, lambda labels: self._hits.forget(*labels), now_s)
        self.loads = Counter(
            "tollkeeper_descriptor_loads",
            "Times the file of descriptors was read: loaded, or refused and the one before kept.",
            ["outcome"],
            registry=registry,
        )

    def decided(self, said: Sequence[Said], *, is_measured: bool) -> None:
        """Count a batch; by the thread that decides alone.

        ``is_measured``: some limits may have a metric of their own.
        """
        outcomes = [one.outcome for one in said]
        for outcome, label in _LABELS:
            if calls := outcomes.count(outcome):
                self._decisions.add(calls, label)
        if is_measured:
            self._count_hits([one for one in said if one.plan.labels])

    def failed(self, calls: int) -> None:
        """Count a batch that a fault of ours left undecided."""
        self._decisions.add(calls, Outcome.UNDECIDED.value)

    def _count_hits(self, said: Iterable[Said]) -> None:
        for one in said:
            if one.outcome in {Outcome.UNDECIDED, Outcome.INVALID}:
                continue
            parts = zip(one.plan.labels, one.plan.hits, one.plan.shape.limits, one.statuses, strict=True)
            for label, hits, limit, status in parts:
                outcome = _outcome(one.outcome, limit, hits, status) if label and limit and hits else ""
                if outcome:
                    source = REQUEST if limit and limit.is_brought else FILE
                    self._hits.add(min(MAX_UNITS, abs(hits)), outcome, *self._limits.of(source, label[:MAX_LABEL]))


def _outcome(of_call: Outcome, limit: Limit, hits: int, status: Status) -> str:
    """What became of a descriptor's hits; "" where another limit refused the call, so that they are counted nowhere."""
    if status.is_over:
        return "over_limit"
    if of_call is not Outcome.OK:
        return ""
    if hits < 0:
        return "given_back"
    if status.is_above:
        return "shadow_mode" if limit.is_shadow else "quota_mode"
    return "within_limit"
