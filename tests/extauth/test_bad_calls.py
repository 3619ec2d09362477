"""Bad calls of a good key: they cost none of its budgets, and have one of their own, exact over all gates."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gatebench import (
    HOST,
    NATIVE_UNIX,
    Asker,
    Catalog,
    Wire,
    make_gate,
    question,
    status,
    wait_until,
    with_body,
)
from prometheus_client import CollectorRegistry

from catalog.ids import new_id, shard_of
from catalog.keys.secrets import Secrets
from catalog.records import HostRecord, Kind, Limits, ModelType, Protocol, PublicationRecord, RouteRecord
from catalog.routes import route_id
from extauth.reasons import BAD_CALLS, WIRE, Reason
from extauth.records.allowances import PER_MINUTE, Allowances
from gate.assembly import Gate
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from ratelimit.windows.budgets import MAX_UNITS

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}


@pytest.fixture
def wire() -> Wire:
    """One transport: what is decided here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture
def llm(catalog: Catalog) -> PublicationRecord:
    """A model of tenant-a, on its host."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    record = catalog.publication(model="llm", path="/v1/models/llm", **LLM)
    catalog.host(record, closed=True)
    return record


def routed(catalog: Catalog, publication: PublicationRecord) -> None:
    """Serve one more model on the host."""
    catalog.add(RouteRecord(route_id(HOST, publication.tenant, publication.model), publication.uid))


def error(answer: CheckResponse) -> dict[str, Any]:
    """The error object of a refusal."""
    found: dict[str, Any] = json.loads(answer.denied_response.body)["error"]
    return found


def headers(answer: CheckResponse) -> dict[str, str]:
    """A refusal's headers."""
    return {option.header.key: option.header.value for option in answer.denied_response.headers}


def call(key: str, model: str = "llm") -> CheckRequest:
    """Call a model by the body."""
    return question(key=key, openai_host=HOST, model=model)


def bad_calls(key: str, llm: PublicationRecord, other: PublicationRecord) -> dict[str, tuple[CheckRequest, int]]:
    """One of each sort, with the status that it has while there is room."""
    broken = question(key=key, openai_host=HOST)
    broken.attributes.request.http.raw_body = b"{"
    encoded = question(key=key, openai_host=HOST, model="llm", headers={"content-encoding": "br"})
    typed = question(key=key, publication=llm, headers={"content-type": "text/plain"})
    typed.attributes.request.http.raw_body = b"Hello"
    closed = question(key=key, publication=llm, method="DELETE")
    closed.attributes.request.http.path = f"{llm.path}/files/1"
    unknown = question(key=key, openai_host=HOST, method="GET")
    unknown.attributes.request.http.path = "/v1/models/nothing"
    return {
        "no JSON": (broken, 400),
        "an encoding": (encoded, 415),
        "a type": (typed, 415),
        "a method": (question(key=key, publication=llm, method="PUT"), 405),
        "a field": (with_body(call(key), model="llm", max_tokens="x"), 400),
        "no model": (with_body(call(key), prompt="x"), 400),
        "an unknown model": (call(key, "nothing"), 404),
        "a question about one": (unknown, 404),
        "not for this key": (question(key=key, publication=other), 403),
        "an endpoint": (closed, 403),
    }


def test_each_sort_of_bad_call_is_counted_in_one_budget(
    catalog: Catalog, asker: Asker, llm: PublicationRecord, registry: CollectorRegistry
) -> None:
    """Whatever is wrong, sixty a minute are told; then each is 429, and says what to do."""
    other = catalog.publication(model="other", path="/other")
    _, text = catalog.key(llm)
    sorts = bad_calls(text, llm, other)
    for number in range(PER_MINUTE):
        name = list(sorts)[number % len(sorts)]
        asked, code = sorts[name]
        assert status(asker.ask(asked)) == code, name
    for name, (asked, _) in sorts.items():
        refused = asker.ask(asked)
        assert (status(refused), error(refused)["code"]) == (429, "too_many_errors"), name
        assert error(refused)["reason"] == "too_many_errors"
        assert error(refused)["type"] == "rate_limit_error"
        assert (error(refused)["budget"], error(refused)["limit"]) == ("errors-minute", PER_MINUTE)
        assert 0 < int(headers(refused)["retry-after"]) <= 61
        assert headers(refused)["x-should-retry"] == "false"
        assert not [header for header in headers(refused) if header.startswith("x-ratelimit-")]
    assert status(asker.ask(call(text))) == 200
    labels = {"outcome": "limited", "reason": "too_many_errors", "publication": "", "tenant": "tenant-a"}
    wait_until(lambda: (registry.get_sample_value("tollkeeper_decisions_total", labels) or 0) > 0)


def test_bad_calls_cost_nothing_else(
    catalog: Catalog, asker: Asker, store: redis.Redis, llm: PublicationRecord
) -> None:
    """Neither budgets nor usage of the key, its tenant or the model; and what these refuse is no bad call."""
    record, text = catalog.key(llm, limits=Limits(per_minute=2))
    wrong = asker.ask_many([call(text, "nothing")] * PER_MINUTE)
    assert {status(one) for one in wrong} == {404}
    assert not any("ratelimit" in name for one in wrong for name in headers(one))
    assert [status(asker.ask(call(text))) for _ in range(4)] == [200, 200, 429, 429]
    assert [error(asker.ask(call(text, model)))["code"] for model in ("llm", "nothing")] == [
        "rate_limit_exceeded",
        "too_many_errors",
    ]
    wait_until(lambda: store.hget(f"tk:usage:{{0}}:k:{record.id}", "total") == b"2")
    assert store.hget(f"tk:usage:{{0}}:p:{llm.uid}", "total") == b"2"
    assert not store.keys("tk:usage:*e:*")


def test_limits_and_faults_of_keys_are_no_bad_calls(
    catalog: Catalog, asker: Asker, store: redis.Redis, llm: PublicationRecord
) -> None:
    """429 of a budget, 400 of a call that never fits, and whatever has no good key: nobody counts them by a key."""
    small = catalog.publication(model="small", path="/v1/models/small", limits=Limits(tokens_per_hour=1), **LLM)
    record, text = catalog.key(small, llm, limits=Limits(per_minute=1))
    _, disabled = catalog.key(llm, disabled=True)
    never = with_body(question(key=text, publication=small), model="small", max_tokens=50)
    for asked, code in (
        (never, 400),
        (call(text), 200),
        (call(text), 429),
        (call(disabled, "nothing"), 401),
        (call("tk_nonsense", "nothing"), 401),
        (call(text[:-1] + ("a" if text[-1] != "a" else "b"), "nothing"), 401),
    ):
        assert status(asker.ask(asked)) == code
    assert not store.keys("tk:budget:*e:*")
    assert status(asker.ask(call(text, "nothing"))) == 404
    assert store.keys("tk:budget:*e:*") == [f"tk:budget:{{0}}:e:{record.id}".encode()]
    assert 0 < store.pttl(f"tk:budget:{{0}}:e:{record.id}") <= 61_000


@contextmanager
def gates(url: str | StoreUrls, secrets: Secrets, count: int, **options: Any) -> Iterator[list[tuple[Gate, Asker]]]:
    """So many gates on the same stores, each with a client."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        made = [
            make_gate(f"unix:{folder}/{number}.sock", url, secrets, CollectorRegistry(), **options)
            for number in range(count)
        ]
        for gate in made:
            gate.start()
        askers = [Asker(gate.address) for gate in made]
        try:
            for gate in made:
                wait_until(lambda gate=gate: gate.readiness().ready)  # type: ignore[misc]
            yield list(zip(made, askers, strict=True))
        finally:
            for asker in askers:
                asker.close()
            for gate in made:
                gate.stop()


def burst(askers: Sequence[Asker], asked: CheckRequest, calls: int) -> Counter[int]:
    """Ask all of them at once, so many times together."""
    told: list[int] = []

    def ask(asker: Asker) -> None:
        told.extend(status(one) for one in asker.ask_many([asked] * (calls // len(askers)), timeout_s=20))

    threads = [threading.Thread(target=ask, args=(asker,), name="burst") for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(told)


def test_a_burst_on_two_gates_is_counted_exactly(
    catalog: Catalog, redis_url: str, secrets: Secrets, llm: PublicationRecord
) -> None:
    """A thousand bad calls at once: sixty are told what is wrong, not one more or less; good ones go on beside them."""
    _, text = catalog.key(llm)
    with gates(redis_url, secrets, 2) as running:
        askers = [asker for _, asker in running]
        broken = question(key=text, openai_host=HOST)
        broken.attributes.request.http.raw_body = b"{"
        good: Counter[int] = Counter()
        beside = threading.Thread(target=lambda: good.update(burst(askers, call(text), 200)), name="good")
        beside.start()
        assert burst(askers, broken, 1_000) == {400: PER_MINUTE, 429: 1_000 - PER_MINUTE}
        beside.join()
        assert good == {200: 200}
        lists = question(key=text, openai_host=HOST, method="GET")
        lists.attributes.request.http.path = "/v1/models"
        assert burst(askers, lists, 200) == {200: PER_MINUTE, 429: 200 - PER_MINUTE}


def test_repeated_ones_are_refused_without_the_script(
    catalog: Catalog, asker: Asker, llm: PublicationRecord, registry: CollectorRegistry
) -> None:
    """The deny cache knows for a second: a flood costs the store little more than the epoch."""
    _, text = catalog.key(llm)
    flood = [call(text, "nothing")] * 100
    for _ in range(10):
        asker.ask_many(flood)
    remembered = registry.get_sample_value("tollkeeper_remembered_denials_total") or 0
    assert remembered > 500


def test_a_call_that_was_bad_is_good_from_the_answer_of_a_change_on(
    catalog: Catalog, asker: Asker, llm: PublicationRecord
) -> None:
    """Its errors used up or not; and a key that is deleted meanwhile is 401 from then on, not 404 or 429."""
    for spent in (0, PER_MINUTE):
        record, text = catalog.key()
        for _ in range(spent):
            assert status(asker.ask(call(text))) == 403
        assert status(asker.ask(call(text))) == (429 if spent else 403)
        record = catalog.change(record, publications=(llm.uid,))
        assert status(asker.ask(call(text))) == 200
        bad = call(text, "nothing")
        assert status(asker.ask(bad)) == (429 if spent else 404)
        catalog.remove(Kind.KEY, record)
        assert status(asker.ask(bad)) == 401


@pytest.mark.parametrize("lacks", ["a route", "a host", "a publication"])
def test_what_a_refusal_lacked_is_there_from_its_making_on(
    catalog: Catalog, redis_url: str, secrets: Secrets, llm: PublicationRecord, lacks: str
) -> None:
    """A refusal rests on what is not there too: a gate that hears of no change knows by the script that it is old."""
    uids = [new_id(shard_of("tenant-a"), os.urandom) for _ in range(3)]
    record, text = catalog.key(llm)
    catalog.change(record, publications=tuple(uids))
    with gates(redis_url, secrets, 1) as ((gate, asker),):
        gate._follower.stop(5)
        for number, uid in enumerate(uids):
            model, host = f"new-{number}", f"host-{number}" if lacks == "a host" else HOST
            route = RouteRecord(route_id(host, "tenant-a", model), uid)
            if lacks == "a publication":
                catalog.add(route)
            asked = question(key=text, openai_host=host, model=model)
            assert status(asker.ask(asked)) == 404
            if lacks == "a publication":
                catalog.remove(Kind.ROUTE, route)
            catalog.publication(uid=uid, model=model, path=f"/v1/models/{model}", **LLM)
            catalog.add(route, *([HostRecord(host, None, None)] if lacks == "a host" else []))
            assert status(asker.ask(asked)) == 200


def test_an_endpoint_is_open_from_its_opening_on(
    catalog: Catalog, redis_url: str, secrets: Secrets, llm: PublicationRecord
) -> None:
    """Nothing but the publication changes; and what needed the server's record has it."""
    _, text = catalog.key(llm)
    files = question(key=text, publication=llm, method="GET")
    files.attributes.request.http.path = f"{llm.path}/files/1"
    stored = with_body(question(key=text, publication=llm), model="llm", previous_response_id="resp_1")
    stored.attributes.request.http.path = f"{llm.path}/responses"
    with gates(redis_url, secrets, 1) as ((gate, asker),):
        gate._follower.stop(5)
        assert [status(asker.ask(one)) for one in (files, stored)] == [403, 403]
        catalog.server(llm)
        assert status(asker.ask(stored)) == 200
        catalog.change(llm, allowed_endpoints=("files",))
        assert status(asker.ask(files)) == 200


def test_another_tenants_model_hides_behind_both_answers(
    catalog: Catalog, asker: Asker, llm: PublicationRecord
) -> None:
    """Whether it exists cannot be told by 429 either: the same bytes as for one that nobody has."""
    hidden = catalog.publication("tenant-b", "hidden", path="/v1/models/hidden", **LLM)
    routed(catalog, hidden)
    _, text = catalog.key(llm)
    for _ in range(PER_MINUTE // 2):
        told = [asker.ask(call(text, name)) for name in ("tenant-b/hidden", "tenant-b/nothing")]
        assert told[0] == told[1]
        assert status(told[0]) == 404
    told = [asker.ask(call(text, name)) for name in ("tenant-b/hidden", "tenant-b/nothing")]
    assert {status(one) for one in told} == {429}
    shown = [error(one) | {"message": "", "retry_after_ms": 0} for one in told]
    assert shown[0] == shown[1]
    assert headers(told[0]).keys() == headers(told[1]).keys()


def test_a_path_of_another_tenant_stays_one_of_nobodys(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """Envoy answers those 404 by itself, however many: so is what is published there for others."""
    foreign = catalog.publication("tenant-b", "foreign")
    _, text = catalog.key(llm)
    asker.ask_many([call(text, "nothing")] * (PER_MINUTE + 1))
    assert status(asker.ask(call(text, "nothing"))) == 429
    assert status(asker.ask(question(key=text, publication=foreign))) == 404


def test_what_is_counted_is_the_callers_fault() -> None:
    """No limit, no trouble of ours and nothing about keys is in it."""
    assert {WIRE[reason].status for reason in BAD_CALLS} == {400, 403, 404, 405, 415}
    assert {Reason.MODEL_NOT_FOUND, Reason.NOT_ALLOWED, Reason.BODY_NOT_JSON, Reason.BODY_TYPE} < BAD_CALLS
    assert not BAD_CALLS & {Reason.NEVER_FITS, Reason.KEY_IN_URL, Reason.NO_PUBLICATION}


def test_a_key_has_its_own(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """Another key of the tenant is not touched."""
    (_, first), (_, second) = catalog.key(llm), catalog.key(llm)
    asker.ask_many([call(first, "nothing")] * (PER_MINUTE + 1))
    assert status(asker.ask(call(first, "nothing"))) == 429
    assert status(asker.ask(call(second, "nothing"))) == 404


@pytest.mark.parametrize(("allowed", "calls"), [(1, 3), (MAX_UNITS, 70)])
def test_both_are_settings(
    catalog: Catalog, redis_url: str, secrets: Secrets, llm: PublicationRecord, allowed: int, calls: int
) -> None:
    """From one a minute to as many as a budget may hold."""
    _, text = catalog.key(llm)
    lists = question(key=text, openai_host=HOST, method="GET")
    lists.attributes.request.http.path = "/v1/models"
    with gates(redis_url, secrets, 1, allowances=Allowances(allowed, allowed)) as ((_, asker),):
        for asked, code in ((call(text, "nothing"), 404), (lists, 200)):
            told = Counter(status(asker.ask(asked)) for _ in range(calls))
            assert told[code] == min(allowed, calls)
            assert told[429] == calls - told[code]


def test_a_log_line_a_second_says_whose_they_are(
    catalog: Catalog, asker: Asker, llm: PublicationRecord, caplog: pytest.LogCaptureFixture
) -> None:
    """By the masked key; as long as there is room nothing is logged."""
    record, text = catalog.key(llm)
    with caplog.at_level(logging.WARNING):
        asker.ask_many([call(text, "nothing")] * PER_MINUTE)
        assert caplog.messages == []
        asker.ask_many([call(text, "nothing")] * 500)
        wait_until(lambda: bool(caplog.messages))
    assert caplog.messages[0].startswith(f"refused, 429: too_many_errors, publication {HOST}, key tk_{record.id[:4]}")
    assert len(caplog.messages) <= 5
    assert text not in caplog.text


def test_a_stored_value_that_cannot_be_read_lets_nothing_else_fail(
    catalog: Catalog, asker: Asker, store: redis.Redis, llm: PublicationRecord
) -> None:
    """A damaged count of bad calls makes these 503; good ones do not look at it."""
    record, text = catalog.key(llm)
    store.set(f"tk:budget:{{0}}:e:{record.id}", b"\xff", px=60_000)
    assert status(asker.ask(call(text, "nothing"))) == 503
    assert status(asker.ask(call(text))) == 200
