"""The policy ``bounded``: what passes while the store is away, and what does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from boundedbench import Running, bounded_gate, settle
from faultproxy import FaultProxy, fault_proxy
from gatebench import Catalog, question, wait_until, with_body

from catalog.keys.secrets import Secrets
from catalog.records import Limits, ModelType, Protocol
from extauth.records.allowances import PER_MINUTE
from gate.bounded import BoundedPolicy
from gate.formats import Saying
from gate.heartbeat import KEPT_MS, beat
from runtime.store.offset import ClockOffset


@pytest.fixture
def proxy(redis_url: str) -> Iterator[FaultProxy]:
    """The way to the store."""
    with fault_proxy(redis_url, late_s=1) as proxy:
        yield proxy
        proxy.heal()


def test_known_calls_go_on_and_unknown_ones_do_not(
    proxy: FaultProxy, catalog: Catalog, secrets: Secrets, store: redis.Redis
) -> None:
    """What is in the cache is decided as ever, its refusals too; what is not is 503. The gate stays ready and warns."""
    catalog.tenant()
    publication, other = catalog.publication(limits=Limits(per_hour=4)), catalog.publication(model="other")
    _, text = catalog.key(publication)
    _, dead = catalog.key(publication, disabled=True)
    known, disabled = question(key=text, publication=publication), question(key=dead, publication=publication)
    with bounded_gate(proxy.url, secrets, BoundedPolicy()) as running:
        settle(running)
        assert [running.ask(one) for one in (known, disabled)] == [200, 401]
        usage = f"tk:usage:{{0}}:p:{publication.uid}"
        wait_until(lambda: store.hget(usage, "total") == b"1")
        proxy.hang()
        assert [running.ask(known) for _ in range(5)] == [200, 200, 200, 200, 429]
        assert running.ask(disabled) == 401
        assert running.ask(question(key=text, publication=other)) == 503
        assert running.ask(question(key="tk_forged", publication=publication)) == 401
        assert running.troubles()[0] == set()
        assert {"bounded_mode", "store_away"} <= running.troubles()[1]
        assert running.sample("tollkeeper_bounded_admissions_total") == 4
        assert running.sample("tollkeeper_bounded_mode") == 1
        proxy.flow()
        wait_until(lambda: not running.is_away)
        assert [running.ask(known) for _ in range(4)] == [200, 200, 200, 429]
        assert running.sample("tollkeeper_bounded_mode") == 0
        assert "bounded_mode" not in running.troubles()[1]
        wait_until(lambda: store.hget(usage, "total") == b"4")


def test_bad_calls_and_lists_are_bounded_too(proxy: FaultProxy, catalog: Catalog, secrets: Secrets) -> None:
    """By this gate's share of what a key may do beside its calls; neither is an admission, and calls go on."""
    catalog.tenant()
    facts: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
    publication = catalog.publication(model="llm", path="/llm", **facts)
    _, text = catalog.key(publication)
    call = with_body(question(key=text, publication=publication), model="llm")
    bad = with_body(question(key=text, publication=publication), model="other")
    asked = question(key=text, publication=publication, method="GET")
    asked.attributes.request.http.path = "/llm/models"
    with bounded_gate(proxy.url, secrets, BoundedPolicy(least_gates=2)) as running:
        settle(running)
        assert [running.ask(one) for one in (call, bad, asked)] == [200, 404, 200]
        proxy.hang()
        assert running.ask(call) == 200
        half = PER_MINUTE // 2
        assert [running.ask(bad) for _ in range(half + 2)] == [404] * half + [429] * 2
        assert [running.ask(asked) for _ in range(half + 2)] == [200] * half + [429] * 2
        assert running.ask(call) == 200
        assert running.sample("tollkeeper_bounded_admissions_total") == 2


def test_its_lanes_are_those_of_all_calls(proxy: FaultProxy, secrets: Secrets) -> None:
    """One bound for both, and one sweep: a table of its own would be counted and given back by nobody."""
    with bounded_gate(proxy.url, secrets, BoundedPolicy()) as running:
        bounded = running.gate._bounded
        assert bounded is not None
        assert bounded._checker.lanes is running.gate._checker.lanes


def test_a_store_that_comes_and_goes_gives_no_second_share(
    proxy: FaultProxy, catalog: Catalog, secrets: Secrets
) -> None:
    """What was admitted without the store stays counted when it is back, so a flapping link cannot be farmed."""
    _, ask = catalog.callable_publication(Limits(per_hour=3))
    with bounded_gate(proxy.url, secrets, BoundedPolicy()) as running:
        settle(running)
        wait_until(lambda: running.ask(ask) == 429)  # the store's share is gone
        admitted = 0
        for _ in range(3):
            proxy.hang()
            wait_until(lambda: running.ask(ask) is not None and running.is_away)
            admitted = int(running.sample("tollkeeper_bounded_admissions_total"))
            proxy.flow()
            wait_until(lambda: not running.is_away)
        proxy.hang()
        assert {running.ask(ask) for _ in range(6)} <= {200, 429}
        assert admitted <= running.sample("tollkeeper_bounded_admissions_total") == 3


def test_a_share_of_nothing_refuses(proxy: FaultProxy, catalog: Catalog, secrets: Secrets) -> None:
    """Three units among four gates: 503, not a wait that would never end. ``--gate-replicas`` is the least number."""
    _, ask = catalog.callable_publication(Limits(per_hour=3))
    with bounded_gate(proxy.url, secrets, BoundedPolicy(least_gates=4)) as running:
        settle(running)
        assert running.ask(ask) == 200
        proxy.hang()
        assert {running.ask(ask) for _ in range(3)} == {503}


def test_it_ends_when_the_time_is_over(proxy: FaultProxy, catalog: Catalog, secrets: Secrets) -> None:
    """After ``--bounded-for-s`` calls are refused, the gate is unready; ten times as long with the store renews it."""
    _, ask = catalog.callable_publication(Limits(per_hour=1_000))
    with bounded_gate(proxy.url, secrets, BoundedPolicy(longest_ms=400)) as running:
        settle(running)
        assert running.ask(ask) == 200
        for _ in range(2):
            wait_until(lambda: left_ms(running) == 400)
            proxy.hang()
            wait_until(lambda: running.ask(ask) == 200 and running.is_away)
            wait_until(lambda: running.ask(ask) == 503)
            assert running.troubles()[0] == {"store_away"}
            proxy.flow()
            wait_until(lambda: not running.is_away)


def left_ms(running: Running) -> float:
    """How long calls could go on without the store."""
    bounded = running.gate._bounded
    assert bounded is not None
    return bounded.left_ms()


def test_a_store_that_is_back_for_a_moment_renews_nothing(
    proxy: FaultProxy, catalog: Catalog, secrets: Secrets
) -> None:
    """Outages add up: a store that comes and goes does not keep a gate going for ever."""
    _, ask = catalog.callable_publication(Limits(per_hour=1_000_000))
    with bounded_gate(proxy.url, secrets, BoundedPolicy(longest_ms=60_000)) as running:
        settle(running)
        assert running.ask(ask) == 200
        proxy.hang()
        wait_until(lambda: running.ask(ask) == 200 and running.is_away)
        wait_until(lambda: left_ms(running) < 59_000)
        proxy.flow()
        wait_until(lambda: not running.is_away)
        assert left_ms(running) < 59_500


@pytest.mark.replaces
@pytest.mark.parametrize("how", ["by the script", "before it was sent"])
def test_a_store_that_answers_too_late_is_not_away(
    redis_url: str, catalog: Catalog, secrets: Secrets, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Overload is no outage: a call whose time was over when the script began, or was to be sent, is a 503."""
    _, ask = catalog.callable_publication(Limits(per_hour=1_000))
    with bounded_gate(redis_url, secrets, BoundedPolicy()) as running:
        settle(running)
        assert running.ask(ask) == 200
        if how == "by the script":
            monkeypatch.setattr(ClockOffset, "deadline_on_store_ms", lambda _self, _deadline_ms: 1)
        else:
            links = running.gate._links
            until = links.until
            monkeypatch.setattr(links, "until", lambda _deadline_ms: until(0))
        assert {running.ask(ask) for _ in range(5)} == {503}
        assert not running.is_away
        assert running.sample("tollkeeper_bounded_admissions_total") == 0
        monkeypatch.undo()
        assert running.ask(ask) == 200


def test_a_key_expires_without_the_store(proxy: FaultProxy, catalog: Catalog, secrets: Secrets) -> None:
    """Expiry goes by the store's clock as it was last known."""
    catalog.tenant()
    publication = catalog.publication()
    expires_at_ms = int(time.time() * 1000) + 6_000
    _, text = catalog.key(publication, expires_at_ms=expires_at_ms)
    ask = question(key=text, publication=publication)
    with bounded_gate(proxy.url, secrets, BoundedPolicy()) as running:
        settle(running)
        assert running.ask(ask) == 200
        proxy.hang()
        wait_until(lambda: running.ask(ask) == 401)
        assert time.time() * 1000 >= expires_at_ms - 100


def test_nobody_goes_on_before_the_others_can_know(proxy: FaultProxy, catalog: Catalog, secrets: Secrets) -> None:
    """A gate whose heartbeats did not reach the store has no share: the others divide by one less."""
    _, ask = catalog.callable_publication(Limits(per_hour=1_000))
    proxy.deaf_to = frozenset({b"EVAL"})
    with bounded_gate(proxy.url, secrets, BoundedPolicy()) as running:
        wait_until(lambda: running.ask(ask) == 200)
        proxy.hang()
        assert {running.ask(ask) for _ in range(3)} == {503}
        assert running.troubles()[0] == {"store_away"}


def test_heartbeats_tell_how_many_gates_there_are(store: redis.Redis, secrets: Secrets, redis_url: str) -> None:
    """Each gate counts itself and the others; one that stopped counts for a minute; the key does not live for ever."""
    with ExitStack() as stack:
        gates = [stack.enter_context(bounded_gate(redis_url, secrets, BoundedPolicy())) for _ in range(3)]
        settle(*gates)
        wait_until(lambda: all(running.sample("tollkeeper_gates") == 3 for running in gates))
    assert 0 < store.pttl("tk:gates") <= KEPT_MS
    for is_new in (True, False):
        members, was_new = beat(store.execute_command, gate_id="mine", kept_ms=KEPT_MS, newest=2, saying=Saying.WAITS)
        assert (len(members), was_new) == (4, is_new)
    time.sleep(0.05)  # the store's clock has to pass them
    assert beat(store.execute_command, gate_id="other", kept_ms=20, newest=1, saying=Saying.KEPT) == (
        [b"other:1"],
        True,
    )
