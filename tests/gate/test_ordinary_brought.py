"""What a call says of its own limits: those that it brings along, hits that it gives back, quotas that are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc
import pytest
import redis
from gatebench import NATIVE_UNIX
from google.protobuf.json_format import MessageToDict
from ordinarybench import Brought, Service, ordinary_gate
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from protos.rate_limit_pb2 import RateLimitResponse, RateLimitUnit
from ratelimit.descriptors.asking import MAX_BROUGHT, Asked, Planner
from ratelimit.descriptors.asking import Brought as Limited
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import MAX_LABEL, OrdinaryMetrics
from ratelimit.descriptors.reading import parse
from ratelimit.descriptors.telling import Outcome
from ratelimit.windows.budgets import Window
from runtime.bounded_labels import MAX_NAMES, OTHER

OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
HOUR, DAY, MONTH = RateLimitUnit.HOUR, RateLimitUnit.DAY, RateLimitUnit.MONTH
FILE = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 3, name: users}}
  - {key: gold, rate_limit: {unit: hour, requests_per_unit: 9, replaces: [{name: users}]}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: plan, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: told, value_to_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: long, rate_limit: {unit: week, requests_per_unit: 4294967295}}
  - {key: file, value: pdf/*, share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 3}}
"""
METRIC = "tollkeeper_descriptor_hits_total"


@pytest.fixture
def service(redis_url: str, secrets: Secrets, registry: CollectorRegistry) -> Iterator[Service]:
    """A gate with the file above, and a client of it."""
    gate = ordinary_gate(redis_url, secrets, registry, NATIVE_UNIX)
    gate.ordinary.use(parse(FILE))
    asking = Service(gate.address)
    yield asking
    asking.close()
    gate.stop()


def _left(service: Service, entry: dict[str, str], *brought: Brought) -> list[int]:
    """What a call and the ones after it find left, each by a limit that it brings along."""
    return [service.ask(entry, brought=(one,)).statuses[0].limit_remaining for one in brought]


def test_a_limit_that_a_call_brings_along_is_obeyed(service: Service) -> None:
    """Exactly, of a descriptor that the file lists and of one that it does not; told in the answer."""
    for entry in ({"user": "ann"}, {"unlisted": "x"}):
        answers = [service.ask(entry, brought=((2, HOUR),)) for _ in range(3)]
        assert [one.overall_code for one in answers] == [OK, OK, OVER]
        limit = answers[0].statuses[0].current_limit
        assert (limit.requests_per_unit, limit.unit, limit.name) == (2, RateLimitResponse.RateLimit.HOUR, "")
        assert answers[2].statuses[0].duration_until_reset.seconds > 3_500
    assert service.ask({"unlisted": "x"}, brought=((0, DAY),)).overall_code == OVER
    assert service.ask({"unlisted": "x"}).overall_code == OK
    assert service.ask({"unlisted": "x"}, brought=((1, HOUR),), domain="elsewhere", hits=9).overall_code == OK


def test_limits_of_one_unit_are_counted_together_and_others_apart(service: Service) -> None:
    """Whoever brings another limit, or none, begins no new budget; no unit's count ends another's."""
    assert service.ask({"user": "bob"}).statuses[0].limit_remaining == 2
    assert _left(service, {"user": "bob"}, (9, HOUR), (5, DAY), (9, HOUR), (5, DAY), (7, DAY)) == [7, 4, 6, 3, 4]
    assert service.ask({"user": "bob"}).overall_code == OVER
    assert _left(service, {"new": "bob"}, (9, HOUR), (5, DAY), (8, HOUR)) == [8, 4, 6]


def test_one_call_may_bring_two_limits_for_the_same_values(service: Service) -> None:
    """By the hour and by the day each is held; two by the hour are held to the lower one, and count twice."""
    both = ((2, HOUR), (1, DAY))
    assert service.ask({"a": "x"}, {"a": "x"}, brought=both).overall_code == OK
    refused = service.ask({"a": "x"}, {"a": "x"}, brought=both)
    assert [one.code for one in refused.statuses] == [OK, OVER]
    assert [one.limit_remaining for one in refused.statuses] == [1, 0]
    same = ((9, HOUR), (3, HOUR))
    assert [one.limit_remaining for one in service.ask({"b": "x"}, {"b": "x"}, brought=same).statuses] == [7, 1]
    over = service.ask({"b": "x"}, {"b": "x"}, brought=same)
    assert (over.overall_code, [one.code for one in over.statuses]) == (OVER, [OK, OVER])


def test_a_limit_that_is_brought_along_stands_for_the_files(service: Service) -> None:
    """Its shadow mode, its share and its name are the file's own; what replaces by name replaces it no more."""
    for entry in ({"trial": "x"}, {"file": "pdf/x"}):
        service.ask(entry, hits=2)
        assert _left(service, entry, (9, HOUR)) == [8]
        assert service.ask(entry, brought=((1, HOUR),)).overall_code == OVER
    answer = service.ask({"user": "cid"}, {"gold": "yes"}, brought=((1, HOUR), None))
    assert [one.limit_remaining for one in answer.statuses] == [0, 8]


@pytest.mark.parametrize("unit", [RateLimitUnit.UNKNOWN, MONTH, RateLimitUnit.YEAR, 7])
def test_a_unit_that_is_not_offered_is_an_error(service: Service, registry: CollectorRegistry, unit: int) -> None:
    """Not an admission: it says which field and which units there are, counts nothing and is counted."""
    with pytest.raises(grpc.RpcError) as failed:
        service.ask({"user": "ann"}, {"user": "bob"}, brought=(None, (5, unit)))
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "descriptors[1].limit.unit" in str(failed.value.details())
    assert "SECOND, MINUTE, HOUR or DAY" in str(failed.value.details())
    assert registry.get_sample_value("tollkeeper_descriptor_decisions_total", {"outcome": "invalid"}) == 1
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


def test_hits_are_given_back(service: Service) -> None:
    """No more than were counted; a call that is refused gives nothing back, and one that gives back is not refused."""
    service.ask({"user": "ann"}, hits=3)
    assert service.ask({"user": "ann"}).overall_code == OVER
    back = service.ask({"user": "ann"}, each=(-2,))
    assert (back.overall_code, back.statuses[0].limit_remaining) == (OK, 2)
    service.ask({"user": "bob"}, hits=3)
    assert service.ask({"user": "ann"}, {"user": "bob"}, each=(-1, 1)).overall_code == OVER
    assert service.ask({"user": "ann"}, each=(0,)).statuses[0].limit_remaining == 2
    for many in (-5, -(2**64) + 1):
        assert service.ask({"user": "ann"}, each=(many,)).statuses[0].limit_remaining == 3
    assert service.ask({"user": "ann"}, {"user": "ann"}, each=(3, -2)).statuses[0].limit_remaining == 2


def test_the_largest_limit_and_the_longest_window_hold(service: Service, store: redis.Redis) -> None:
    """4,294,967,295 a week: the last hit fits, one more does not; what is stored lives for a week and a bucket."""
    assert service.ask({"long": "x"}, hits=2**32 - 1).statuses[0].limit_remaining == 0
    over = service.ask({"long": "x"})
    assert over.overall_code == OVER
    assert over.statuses[0].current_limit.unit == RateLimitResponse.RateLimit.WEEK
    assert 7 * 86_400 - 7_200 <= over.statuses[0].duration_until_reset.seconds <= 7 * 86_400 + 7_200
    (key,) = store.scan_iter("tk:budget:*")
    assert 0 < store.pttl(key) <= (7 * 86_400 + 7_200) * 1_000


def test_a_quota_is_told_and_refuses_nobody(service: Service) -> None:
    """The answer's metadata names the descriptors that are above theirs, as envoyproxy/ratelimit's does."""
    within = MessageToDict(service.ask({"plan": "x"}, {"user": "ann"}, hits=2).dynamic_metadata)
    assert within == {
        "domain": "shop",
        "descriptors": [{"entries": ["plan=x"]}, {"entries": ["user=ann"]}],
        "quotaModeEnabled": True,
    }
    above = service.ask({"user": "ann"}, {"plan": "x"})
    assert (above.overall_code, [one.code for one in above.statuses]) == (OK, [OK, OK])
    assert MessageToDict(above.dynamic_metadata)["quotaModeViolations"] == [1]
    refused = service.ask({"user": "ann"}, {"plan": "x"})
    assert refused.overall_code == OVER
    assert MessageToDict(refused.dynamic_metadata)["quotaModeViolations"] == [1]
    assert not service.ask({"user": "bob"}).HasField("dynamic_metadata")


def test_hits_are_counted_by_limit_where_it_is_asked_for(service: Service, registry: CollectorRegistry) -> None:
    """Values that the file wants told, limits that refuse nobody, those that calls bring along; no others."""
    service.ask({"told": "x"}, hits=2)
    service.ask({"told": "x"})
    service.ask({"told": "x"}, each=(-1,))
    service.ask({"trial": "x"}, {"plan": "x"}, hits=2)
    service.ask({"trial": "x"}, {"plan": "x"})
    service.ask({"user": "ann"})
    service.ask({"user": "ann", "path": "/x"}, brought=((1, HOUR),))
    service.ask({"user": "bob", "path": "/y"}, brought=((1, HOUR),), hits=5)
    assert {tuple(labels.values()): count for labels, count in _counted(registry)} == {
        ("within_limit", "file", "shop.told_x"): 2,
        ("over_limit", "file", "shop.told_x"): 1,
        ("given_back", "file", "shop.told_x"): 1,
        ("within_limit", "file", "shop.trial"): 2,
        ("shadow_mode", "file", "shop.trial"): 1,
        ("within_limit", "file", "shop.plan"): 2,
        ("quota_mode", "file", "shop.plan"): 1,
        ("within_limit", "request", "shop.user.path"): 1,
        ("over_limit", "request", "shop.user.path"): 5,
    }


def _counted(registry: CollectorRegistry) -> list[tuple[dict[str, str], float]]:
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == METRIC]
    return [(sample.labels, sample.value) for sample in samples]


def _ordinary() -> tuple[CollectorRegistry, Ordinary]:
    registry = CollectorRegistry()
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(registry), writes_format=lambda: 2)
    ordinary.use(parse(FILE))
    return registry, ordinary


def _decide(ordinary: Ordinary, store: redis.Redis, asked: Sequence[Asked]) -> list[Outcome]:
    return [one.outcome for one in ordinary.decide(asked, store.execute_command, 0)]


def test_no_caller_makes_metrics_without_end(store: redis.Redis) -> None:
    """As many values have a series of their own as a scrape bears; the rest is one, and none is long."""
    registry, ordinary = _ordinary()
    many = [Asked("shop", (((("told", f"{number}{'x' * 9_999}"),), 1),)) for number in range(MAX_NAMES + 50)]
    for first in range(0, len(many), 250):
        assert set(_decide(ordinary, store, many[first : first + 250])) == {Outcome.OK}
    counted = _counted(registry)
    assert len(counted) == MAX_NAMES + 1
    assert max(len(labels["limit"]) for labels, _ in counted) == MAX_LABEL
    assert {labels["limit"]: count for labels, count in counted}[OTHER] == 50


def test_no_caller_fills_the_memory_with_limits(store: redis.Redis) -> None:
    """Each call another limit: all are obeyed, and no more are kept than a thousand."""
    _, ordinary = _ordinary()
    for first in range(0, 3 * MAX_BROUGHT, 250):
        batch = [
            Asked("shop", (((("a", str(number)),), 1),), (Limited(Window.DAY, number, "DAY"),))
            for number in range(first, first + 250)
        ]
        outcomes = _decide(ordinary, store, batch)
        assert outcomes == [Outcome.OVER_LIMIT if number == 0 else Outcome.OK for number in range(first, first + 250)]
    planner: Planner = ordinary._in_force.planner
    assert len(planner._brought) <= MAX_BROUGHT
    assert len(planner._shapes) <= MAX_BROUGHT
