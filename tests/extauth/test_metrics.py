"""What a gate counts, besides its verdicts."""

from __future__ import annotations

import redis
from gatebench import Asker, Catalog, question, wait_until
from prometheus_client import CollectorRegistry

from catalog.records import UNLIMITED
from catalog.store import names
from gate.assembly import Gate


def test_records_are_misses_once_and_hits_from_then_on(
    asker: Asker, catalog: Catalog, registry: CollectorRegistry
) -> None:
    """The first call reads key, tenant and publication; once the feed is followed up to them, every call finds them."""
    _, asked = catalog.callable_publication(UNLIMITED)

    def counted(outcome: str) -> float:
        return registry.get_sample_value(f"tollkeeper_cache_{outcome}_total") or 0.0

    def finds_all_three() -> bool:
        before = counted("hits")
        asker.ask(asked)
        return counted("hits") == before + 3

    asker.ask(asked)
    assert counted("hits") == 0
    assert counted("misses") >= 3  # more where the feed's news of the records came in the middle of the call
    wait_until(finds_all_three)
    misses = counted("misses")
    assert all(finds_all_three() for _ in range(10))
    assert counted("misses") == misses


def test_stale_decisions_are_counted_by_calls(
    asker: Asker, catalog: Catalog, store: redis.Redis, registry: CollectorRegistry
) -> None:
    """A change behind the feed's back makes the next call be decided again: one stale decision."""
    _, asked = catalog.callable_publication(UNLIMITED)
    asker.ask(asked)
    before = registry.get_sample_value("tollkeeper_stale_decisions_total")
    store.set(names.epoch("0"), "99-0123456789abcdef")
    asker.ask(asked)
    assert (registry.get_sample_value("tollkeeper_stale_decisions_total") or 0) == (before or 0) + 1


def test_the_feeds_lag_is_small_while_it_is_followed(gate: Gate, registry: CollectorRegistry) -> None:
    """A follower that has its link is never far behind; one that lost it grows old."""
    assert gate.readiness().ready
    wait_until(lambda: (registry.get_sample_value("tollkeeper_feed_lag_seconds") or 0) < 1.5)
    gate.stop()
    wait_until(lambda: (registry.get_sample_value("tollkeeper_feed_lag_seconds") or 0) > 1.5)


def test_nothing_is_in_flight_between_calls(asker: Asker, catalog: Catalog, registry: CollectorRegistry) -> None:
    """What was answered is not in flight any more, refused or admitted."""
    _, asked = catalog.callable_publication(UNLIMITED)
    asker.ask_many([asked, question()] * 20)
    wait_until(lambda: registry.get_sample_value("tollkeeper_calls_in_flight") == 0)
