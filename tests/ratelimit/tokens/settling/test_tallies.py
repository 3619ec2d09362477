"""Ended calls of a publication are added up before they are counted: the sums are those of the calls one by one."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from ratelimit.tokens.costs import Cost, Ended, Ending
from ratelimit.tokens.ledger import Outcome
from ratelimit.tokens.settling.metrics import SettlementMetrics

ENDINGS = [
    (Ended(200, total=12, prompt=5, completion=7, cached=2, duration_ms=40), Cost(Ending.USAGE, 12), Outcome.SETTLED),
    (Ended(200, total=90, prompt=80, reasoning=3), Cost(Ending.USAGE, 90, clamped=True, above=30), Outcome.REPLACED),
    (Ended(0, duration_ms=700), Cost(Ending.NO_ANSWER, 4), Outcome.SETTLED),
    (Ended(503, cache_written=1), Cost(Ending.FAILED, 0), Outcome.SETTLED),
    (Ended(200, total=9), Cost(Ending.USAGE, 9, above=9), Outcome.UNKNOWN),
    (Ended(200, total=9), Cost(Ending.USAGE, 9), Outcome.CORRUPT),
]


def _counted(*batches: list[tuple[Ended, Cost, Outcome]]) -> dict[str, float]:
    registry = CollectorRegistry()
    metrics = SettlementMetrics(registry)
    for batch in batches:
        metrics.settled("t/m", batch)
    samples = (sample for metric in registry.collect() for sample in metric.samples)
    return {f"{one.name}{sorted(one.labels.items())}": one.value for one in samples if "created" not in one.name}


@pytest.mark.parametrize("at", range(len(ENDINGS) + 1))
def test_a_batch_counts_what_its_calls_count_one_by_one(at: int) -> None:
    """However they come to be in batches."""
    assert _counted(ENDINGS[:at], ENDINGS[at:]) == _counted(*([one] for one in ENDINGS))


def test_what_was_not_settled_is_counted_by_its_outcome_alone() -> None:
    """It charged nothing."""
    counted = {name: value for name, value in _counted(ENDINGS[4:]).items() if value}
    unknown, corrupt = ([("ending", "usage"), ("outcome", outcome)] for outcome in ("unknown", "corrupt"))
    assert counted == {f"tollkeeper_settlements_total{unknown}": 1, f"tollkeeper_settlements_total{corrupt}": 1}
