"""Ordinary descriptors: held exactly and atomically, told in Envoy's words, by a file that may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from gatebench import GRPCIO_TCP, NATIVE_UNIX, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from ordinarybench import Entry, Service, ordinary_gate
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.descriptors.asking import Asked
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.reading import DescriptorsError, parse
from ratelimit.descriptors.telling import Outcome
from ratelimit.descriptors.watching import DescriptorFile
from ratelimit.service.edge import MAX_BATCH, RateLimitService
from ratelimit.service.stream_done import StreamDone
from ratelimit.windows.sizing import SCRIPT_BUDGET_US
from runtime.grpc.front import INVALID_ARGUMENT, Failure

EXAMPLE = Path(__file__).parents[2] / "config/descriptors.yaml"
OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
FILE = """
domain: shop
descriptors:
  - {key: path, rate_limit: {unit: day, requests_per_unit: 5, name: paths}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: banned, rate_limit: {unit: second, requests_per_unit: 0}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: gold, rate_limit: {unit: day, requests_per_unit: 50, replaces: [{name: paths}]}}
"""


@pytest.fixture
def service(
    request: pytest.FixtureRequest, redis_url: str, secrets: Secrets, registry: CollectorRegistry
) -> Iterator[Service]:
    """A gate with the file above, and a client of it."""
    gate = ordinary_gate(redis_url, secrets, registry, getattr(request, "param", NATIVE_UNIX))
    gate.ordinary.use(parse(FILE))
    asking = Service(gate.address)
    yield asking
    asking.close()
    gate.stop()


def test_a_limit_is_held_and_told(service: Service) -> None:
    """What Envoy's X-RateLimit headers are made of: the limit, what is left, and when."""
    first = service.ask({"user": "ann"})
    assert (first.overall_code, first.statuses[0].code) == (OK, OK)
    limit = first.statuses[0].current_limit
    assert (limit.requests_per_unit, limit.unit) == (3, RateLimitResponse.RateLimit.HOUR)
    assert first.statuses[0].limit_remaining == 2
    assert 3_600 <= first.statuses[0].duration_until_reset.seconds <= 3_660
    service.ask({"user": "ann"}, hits=2)
    over = service.ask({"user": "ann"})
    assert (over.overall_code, over.statuses[0].code, over.statuses[0].limit_remaining) == (OVER, OVER, 0)
    assert over.statuses[0].duration_until_reset.seconds > 3_500
    assert service.ask({"user": "bob"}).overall_code == OK


def test_a_call_counts_in_all_its_limits_or_in_none(service: Service) -> None:
    """Refused by one, the others lose nothing; only the one that refused says so."""
    service.ask({"user": "ann"}, hits=3)
    refused = service.ask({"path": "/x"}, {"user": "ann"})
    assert [one.code for one in refused.statuses] == [OK, OVER]
    assert refused.overall_code == OVER
    assert service.ask({"path": "/x"}, each=(0,)).statuses[0].limit_remaining == 5


def test_more_than_any_limit_never_fits(service: Service) -> None:
    """Neither asked at once nor summed up; nobody else in the batch feels it, and nothing is charged."""
    for hits, each in ((2**32 - 1, ()), (0, (2**64 - 1, 1)), (10**9, ())):
        refused = service.ask({"user": "ann"}, {"user": "ann"}, hits=hits, each=each)
        assert refused.overall_code == OVER
    assert service.ask({"trial": ""}, hits=2**32 - 1).overall_code == OK  # shadow mode
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


def test_a_fault_of_ours_ends_no_other_call(
    service: Service, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch is undecided, which refuses by default, and counted; the gate goes on."""
    with monkeypatch.context() as broken:
        broken.setattr("ratelimit.descriptors.asking.never_fits", lambda _limit, _hits: 1 / 0)
        assert service.ask({"user": "ann"}).overall_code == OVER
    assert registry.get_sample_value("tollkeeper_descriptor_decisions_total", {"outcome": "undecided"}) == 1
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


def test_hits_are_the_calls_or_the_descriptors_own(service: Service) -> None:
    """0 of the call is 1; 0 of a descriptor looks and refuses nothing."""
    answer = service.ask({"path": "/x"}, {"user": "ann"}, hits=2, each=(4, None))
    assert [one.limit_remaining for one in answer.statuses] == [1, 1]
    assert service.ask({"path": "/x"}, hits=0).statuses[0].limit_remaining == 0
    look = service.ask({"path": "/x"}, each=(0,))
    assert (look.overall_code, look.statuses[0].limit_remaining) == (OK, 0)


def test_a_wrong_idea_of_the_stores_clock_does_not_last(
    redis_url: str, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """A proof of the link that took long says little of the clock; calls that come too late by it teach better."""
    gate = ordinary_gate(redis_url, secrets, registry)
    gate.ordinary.use(parse(FILE))
    service = Service(gate.address)
    assert gate._offset._low_ms is not None
    gate._offset._low_ms -= 60_000  # the store's clock is known to a minute: each deadline seems to have passed
    assert not service.ask({"user": "ann"}).statuses
    wait_until(lambda: len(service.ask({"user": "ann"}, each=(0,)).statuses) == 1)
    assert service.ask({"user": "ann"}, each=(0,)).statuses[0].limit_remaining == 3
    service.close()
    gate.stop()


def test_a_descriptor_twice_in_a_call_counts_twice(service: Service) -> None:
    """As two calls would; what does not fit together is refused together."""
    assert service.ask({"user": "ann"}, {"user": "ann"}).statuses[1].limit_remaining == 1
    assert service.ask({"user": "ann"}, {"user": "ann"}).overall_code == OVER


def test_shadow_mode_counts_and_refuses_nobody(service: Service) -> None:
    """Not even when it is full; a real limit beside it still does."""
    for _ in range(3):
        answer = service.ask({"trial": "x"})
        assert (answer.overall_code, answer.statuses[0].code) == (OK, OK)
    assert answer.statuses[0].limit_remaining == 0
    assert service.ask({"trial": "x"}, {"user": "ann"}, hits=4).overall_code == OVER


def test_a_refused_call_costs_a_limit_in_shadow_mode_nothing(service: Service) -> None:
    """It is counted with the rest of the call; beside a limit in shadow mode that is full, the others count on."""
    service.ask({"user": "ann"}, hits=2)
    refused = service.ask({"trial": "y"}, {"user": "ann"}, each=(1, 2))
    assert [one.code for one in refused.statuses] == [OK, OVER]
    assert refused.statuses[0].limit_remaining == 2
    assert service.ask({"trial": "y"}, {"user": "bob"}, hits=2).statuses[0].limit_remaining == 0
    beside = service.ask({"trial": "y"}, {"user": "bob"})
    assert (beside.overall_code, [one.limit_remaining for one in beside.statuses]) == (OK, [0, 0])
    assert service.ask({"user": "bob"}).overall_code == OVER


def test_a_limit_in_shadow_mode_that_cannot_be_read_refuses_nobody(service: Service, store: redis.Redis) -> None:
    """Not even by a store's value that is broken."""
    service.ask({"trial": "z"})
    (key,) = store.scan_iter("tk:budget:*")
    store.set(key, b"garbage")
    assert service.ask({"trial": "z"}, {"user": "ann"}).overall_code == OK
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 1


def test_a_replaced_limit_does_not_count(service: Service) -> None:
    """Where a call meets both."""
    for _ in range(7):
        answer = service.ask({"path": "/x"}, {"gold": "yes"})
        assert answer.overall_code == OK
    assert not answer.statuses[0].HasField("current_limit")
    assert service.ask({"path": "/x"}).statuses[0].limit_remaining == 4


def test_unlimited_unknown_and_banned(service: Service) -> None:
    """No limit, no descriptor of ours, another domain, and a limit that lets nothing pass."""
    free = service.ask({"free": "x"}, hits=10**6)
    assert (free.overall_code, free.statuses[0].limit_remaining) == (OK, 2**32 - 1)
    assert service.ask({"other": "x"}).overall_code == OK
    assert service.ask({"user": "ann"}, hits=99, domain="elsewhere").overall_code == OK
    banned = service.ask({"banned": "x"}, {"user": "ann"})
    assert [one.code for one in banned.statuses] == [OVER, OK]
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


def test_what_never_fits_is_over(service: Service) -> None:
    """More hits than the limit: refused, nothing taken."""
    assert service.ask({"user": "ann"}, hits=4).overall_code == OVER
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


@pytest.mark.parametrize("service", [NATIVE_UNIX, GRPCIO_TCP], indirect=True)
@pytest.mark.parametrize(
    ("domain", "descriptors", "told"),
    [
        ("", [{"user": "ann"}], "rate limit domain must not be empty"),
        ("", [], "rate limit domain must not be empty"),
        ("shop", [], "rate limit descriptor list must not be empty"),
        ("elsewhere", [], "rate limit descriptor list must not be empty"),
    ],
)
def test_a_question_without_domain_or_descriptors_is_an_error(
    service: Service, domain: str, descriptors: list[Entry], told: str
) -> None:
    """As at envoyproxy/ratelimit, in its words; what is asked beside it is answered."""
    with pytest.raises(grpc.RpcError) as failed:
        service.ask(*descriptors, domain=domain)
    assert isinstance(failed.value, grpc.Call)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, told)
    assert service.ask(domain="tollkeeper").overall_code == OK  # tells of no call that ended
    assert service.ask({"user": "ann"}).statuses[0].limit_remaining == 2


def test_too_many_descriptors_are_refused(service: Service) -> None:
    """Nobody slips past a limit by naming it late."""
    many = [{"other": str(number)} for number in range(64)]
    assert service.ask(*many).overall_code == OK
    assert service.ask(*many, {"user": "ann"}).overall_code == OVER


@pytest.mark.parametrize(("denies", "code"), [(True, OVER), (False, OK)])
def test_the_setting_says_what_is_told_while_the_store_is_away(denies: bool, code: int) -> None:  # noqa: FBT001
    """Deny unless told otherwise, counted either way."""
    registry = CollectorRegistry()
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(registry))
    ordinary.use(parse(FILE))

    def away(*_command: object) -> object:
        raise redis.ConnectionError

    service = RateLimitService(
        StreamDone(lambda _told: None, lambda: None),
        lambda asked, _deadline_ms: ordinary.decide(asked, away, 0),
        lambda: None,
        on_fault=lambda _calls: pytest.fail("a fault of ours"),
        denies_undecided=lambda: denies,
    )
    request = RateLimitRequest(domain="shop")
    request.descriptors.add().entries.add(key="user", value="ann")
    (answer,) = service.answer([request.SerializeToString()], 0.0)
    assert isinstance(answer, bytes)
    assert RateLimitResponse.FromString(answer).overall_code == code
    assert registry.get_sample_value("tollkeeper_descriptor_decisions_total", {"outcome": "undecided"}) == 1


@given(payload=st.binary(max_size=60))
@settings(max_examples=300)
def test_no_bytes_break_the_service(payload: bytes) -> None:
    """Every question has an answer: a decision, or that it is no question."""
    ordinary = Ordinary(cells=3, metrics=OrdinaryMetrics(CollectorRegistry()))
    service = RateLimitService(
        StreamDone(lambda _told: None, lambda: None),
        lambda asked, _ms: ordinary.decide(asked, _never, 0),
        lambda: None,
        on_fault=lambda _calls: pytest.fail("a fault of ours"),
        denies_undecided=lambda: True,
    )
    (answer,) = service.answer([payload], 0.0)
    if isinstance(answer, Failure):
        assert answer.code == INVALID_ARGUMENT
    else:
        assert RateLimitResponse.FromString(answer).overall_code in {OK, OVER}


def _never(*_command: object) -> object:
    raise AssertionError("no limit is met without a file")


def test_the_file_is_read_again_and_a_bad_one_kept_out(tmp_path: Path) -> None:
    """The one before stays in force and the fault is told, with its line; a good one takes over."""
    path, registry = tmp_path / "limits.yaml", CollectorRegistry()
    path.write_text(FILE)
    file = DescriptorFile(path, OrdinaryMetrics(registry))
    assert not file.look()
    good = file.current
    path.write_text("domain: shop\ndescriptors: 5\n# longer")
    assert not file.look()
    assert file.current is good
    (trouble,) = file.troubles()
    assert "line 2: descriptors: must be a list" in trouble.problem
    path.write_text("domain: other")
    assert file.look()
    assert (file.current.domain, file.troubles()) == ("other", ())
    assert registry.get_sample_value("tollkeeper_descriptor_loads_total", {"outcome": "refused"}) == 1


def test_a_gate_does_not_start_with_a_bad_file(tmp_path: Path) -> None:
    """Gone, not text, not YAML: told with the file's name."""
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    for name in ("a.yaml", "b.yaml"):
        with pytest.raises(DescriptorsError, match=name):
            DescriptorFile(tmp_path / name, OrdinaryMetrics(CollectorRegistry()))


def test_the_example_is_good() -> None:
    """What config/ shows can be used."""
    assert parse(EXAMPLE.read_text()).domain == "shop"


LIMIT = "rate_limit: {unit: minute, requests_per_unit: 9}"
SHADOWS = "domain: shop\ndescriptors:\n" + "".join(
    f"  - {{key: k{number}, shadow_mode: {str(number > 0).lower()}, {LIMIT}}}\n" for number in range(4)
)
MANY = "domain: shop\ndescriptors:\n" + "".join(f"  - {{key: k{number}, {LIMIT}}}\n" for number in range(64))


class Scripts:
    """The real store, which tells how long each script kept it."""

    def __init__(self, store: redis.Redis) -> None:
        self.spent_us: list[int] = []
        self.before: Callable[[], object] = lambda: None
        self._store = store

    def __call__(self, *command: Any) -> Any:
        """Run a command."""
        self.before()
        reply = self._store.execute_command(*command)
        if isinstance(reply, list) and len(reply) > 5:
            self.spent_us.append(reply[4])
        return reply


def _whole_batch(keys: int, first: int = 0) -> list[Asked]:
    """As many calls as one batch has, each with values of its own."""
    calls = range(first, first + MAX_BATCH)
    return [Asked("shop", tuple((((f"k{key}", str(call)),), 1) for key in range(keys))) for call in calls]


def _ordinary(file: str) -> tuple[Ordinary, CollectorRegistry]:
    registry = CollectorRegistry()
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(registry))
    ordinary.use(parse(file))
    return ordinary, registry


@pytest.mark.parametrize(("file", "keys"), [(SHADOWS, 4), (MANY, 16), (MANY, 64)])
def test_a_full_batch_is_decided_whatever_its_calls_ask(store: redis.Redis, file: str, keys: int) -> None:
    """Three limits in shadow mode a call, or sixteen, or as many as a call may have: each of 256 calls is counted."""
    scripts, (ordinary, _) = Scripts(store), _ordinary(file)
    for left in (8, 7):
        said = ordinary.decide(_whole_batch(keys), scripts, 0)
        assert {one.outcome for one in said} == {Outcome.OK}
        assert {status.remaining for one in said for status in one.statuses} == {left}


def test_a_full_batch_keeps_the_store_no_longer_than_two_milliseconds_at_once(store: redis.Redis) -> None:
    """Fifteen limits a call: cut into scripts by what the ones before took, so that others have their turn between."""
    scripts, (ordinary, _) = Scripts(store), _ordinary(MANY)
    for number in range(6):
        ordinary.decide(_whole_batch(15, number * MAX_BATCH), scripts, 0)
    assert len(scripts.spent_us) > 30
    assert sorted(scripts.spent_us)[int(0.98 * len(scripts.spent_us))] <= 5 * SCRIPT_BUDGET_US


def test_what_of_a_batch_comes_too_late_is_undecided(store: redis.Redis) -> None:
    """Those that were in time are decided; the others are counted as undecided, and nothing is taken for them."""
    scripts, (ordinary, registry) = Scripts(store), _ordinary(MANY)
    deadline_ms = int(store.time()[0] * 1_000 + store.time()[1] / 1_000) + 5_000

    def until_it_is_late() -> None:
        if scripts.spent_us:
            wait_until(lambda: store.time()[0] * 1_000 > deadline_ms + 1_000)

    scripts.before = until_it_is_late
    said = ordinary.decide(_whole_batch(15), scripts, deadline_ms)
    decided = sum(one.outcome is Outcome.OK for one in said)
    assert 0 < decided < MAX_BATCH
    assert [one.outcome for one in said] == [Outcome.OK] * decided + [Outcome.UNDECIDED] * (MAX_BATCH - decided)
    counted = registry.get_sample_value("tollkeeper_descriptor_decisions_total", {"outcome": "undecided"})
    assert counted == MAX_BATCH - decided
    assert len(list(store.scan_iter("tk:budget:*", count=10_000))) == 15 * decided


def test_a_part_that_fails_leaves_the_others_decided(store: redis.Redis) -> None:
    """A call that asks nothing of the store is decided anyhow."""
    scripts, (ordinary, _) = Scripts(store), _ordinary(MANY)

    def break_once() -> None:
        if len(scripts.spent_us) == 1:
            scripts.spent_us.append(0)
            raise redis.ConnectionError

    scripts.before = break_once
    said = ordinary.decide([*_whole_batch(15), Asked("shop", (((("other", "x"),), 1),))], scripts, 0)
    undecided = [number for number, one in enumerate(said) if one.outcome is Outcome.UNDECIDED]
    assert 0 < len(undecided) < MAX_BATCH
    assert undecided == list(range(undecided[0], undecided[-1] + 1))
    assert {one.outcome for one in said[undecided[-1] + 1 :]} == {Outcome.OK}
