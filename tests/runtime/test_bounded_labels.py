"""Labels of publications: as many as a scrape bears, for those in use."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from catalog.records import Limits, ModelType, Protocol, PublicationRecord, TenantRecord
from extauth.metrics import CheckMetrics
from extauth.reasons import Reason
from extauth.records.entries import PublicationEntry, TenantEntry, entry_of
from extauth.verdict import Verdict
from ratelimit.tokens.costs import Cost, Ended, Ending
from ratelimit.tokens.ledger import Outcome
from ratelimit.tokens.settling.metrics import SettlementMetrics
from runtime.bounded_labels import IDLE_S, MAX_NAMES

ENDED = Ended(200, duration_ms=5)
COST = Cost(Ending.USAGE, 7)
NAMES = [f"m{number}" for number in range(600)]


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


def verdict(model: str, caller: str = "t") -> Verdict:
    """An admitted call of a publication."""
    record = PublicationRecord(
        model, "t", model, "http://a", ModelType.OPENAI, Protocol.OPENAI, "h", "/p", Limits(), True, ("t",), "k", 1, 1
    )
    publication, tenant = entry_of(record), entry_of(TenantRecord(caller, 1, 1, 1))
    assert isinstance(publication, PublicationEntry)
    assert isinstance(tenant, TenantEntry)
    return Verdict(Reason.OK, publication=publication, tenant=tenant)


class Counted:
    """Check's metrics under a clock."""

    def __init__(self) -> None:
        self.registry, self.clock = CollectorRegistry(), Clock()
        self.metrics = CheckMetrics(self.registry, self.clock)

    def call(self, *models: str, caller: str = "t") -> None:
        """One call of each."""
        self.metrics.batch([verdict(model, caller) for model in models], 1.0)

    def calls(self, publication: str, tenant: str = "t") -> float | None:
        """What is counted under a label."""
        labels = {"outcome": "allowed", "reason": "ok", "publication": publication, "tenant": tenant}
        return self.registry.get_sample_value("tollkeeper_decisions_total", labels)

    def series(self) -> int:
        """How many series of decisions there are."""
        (family,) = (one for one in self.registry.collect() if one.name == "tollkeeper_decisions")
        return sum(one.name.endswith("_total") for one in family.samples)


def test_names_that_came_and_went_leave_their_labels_to_new_ones() -> None:
    """600 publications that are gone do not make everybody's metrics ``other``; the series stay bounded."""
    counted = Counted()
    counted.call(*NAMES)
    assert counted.calls("other") == len(NAMES) - MAX_NAMES
    counted.clock.now_s += IDLE_S
    counted.call("new", "new")
    assert counted.calls("t/new") == 2
    counted.call(*(f"x{number}" for number in range(300)))
    assert counted.calls("t/x299") == 1
    assert counted.calls("t/m0") is None
    assert counted.series() == MAX_NAMES + 1


def test_what_is_in_use_keeps_its_label_and_never_goes_down() -> None:
    """However many names come and go; ``other`` counts on, and by nothing but its own calls."""
    counted = Counted()
    highest: dict[str, float] = {}
    for turn in range(40):
        counted.call("live", "other-live", *(f"n{turn}-{number}" for number in range(100)))
        for name in ("t/live", "t/other-live"):
            now = counted.calls(name) or 0.0
            assert now == highest.get(name, 0.0) + 1
            highest[name] = now
        others = counted.calls("other") or 0.0
        assert highest.get("other", 0.0) <= others <= highest.get("other", 0.0) + 100
        highest["other"] = others
        counted.clock.now_s += IDLE_S / 8


def test_a_publication_takes_its_callers_along() -> None:
    """Every tenant's series of a publication that lost its label are gone; come back, it counts from nothing."""
    counted = Counted()
    for caller in ("t", "u", "v"):
        counted.call("gone", caller=caller)
    counted.clock.now_s += IDLE_S
    counted.call(*NAMES[:MAX_NAMES])
    assert [counted.calls("t/gone", caller) for caller in ("t", "u", "v")] == [None] * 3
    counted.clock.now_s += IDLE_S
    counted.call("gone", caller="u")
    assert counted.calls("t/gone", "u") == 1


@pytest.mark.parametrize("name", ["tollkeeper_tokens_charged_total", "tollkeeper_upstream_seconds_count"])
def test_settlements_give_up_labels_too(name: str) -> None:
    """Of tokens, answers and times alike."""
    registry, clock = CollectorRegistry(), Clock()
    metrics = SettlementMetrics(registry, clock)

    def settle(publication: str) -> None:
        metrics.settled(publication, [(ENDED, COST, Outcome.SETTLED)])

    def counted(publication: str) -> Any:
        return registry.get_sample_value(name, {"publication": publication})

    for model in NAMES:
        settle(f"t/{model}")
    clock.now_s += IDLE_S
    settle("t/new")
    assert counted("t/new") == (COST.tokens if "tokens" in name else 1)
    assert counted("t/m0") is None
    assert counted("t/m1") is not None
