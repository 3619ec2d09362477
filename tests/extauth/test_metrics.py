"""What a gate counts, besides its verdicts."""

from __future__ import annotations

import redis
from gatebench import Asker, Catalog, question, wait_until
from prometheus_client import CollectorRegistry

from catalog.records import UNLIMITED
from catalog.store import names
from gate.assembly import Gate


def test_records_are_read_once_and_calls_go_by_their_lane_from_then_on(
    asker: Asker, catalog: Catalog, registry: CollectorRegistry
) -> None:
    """The first call reads key, tenant and publication; once the feed is followed up to them, every call has a lane."""
    _, asked = catalog.callable_publication(UNLIMITED)

    def counted(name: str) -> float:
        return registry.get_sample_value(f"tollkeeper_{name}") or 0.0

    def goes_by_a_lane() -> bool:
        before = counted("lane_calls_total")
        asker.ask(asked)
        return counted("lane_calls_total") == before + 1

    asker.ask(asked)
    assert counted("lane_calls_total") == 0
    assert counted("cache_misses_total") >= 3  # more where the feed's news of the records came amid the call
    wait_until(goes_by_a_lane)
    misses = counted("cache_misses_total")
    assert all(goes_by_a_lane() for _ in range(10))
    assert counted("cache_misses_total") == misses
    assert counted("lanes") == 1
    assert 1_500 < counted("lane_bytes") < 2_500


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
