"""Check over gRPC on a real Valkey: who is let through, who is refused, and what each is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from gatebench import HOST, Asker, Catalog, question, status, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.records import Credential, Kind, Limits, ModelType, Protocol
from extauth.credentials.carriers import CREDENTIAL_HEADERS
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckResponse


def error(answer: CheckResponse) -> dict[str, Any]:
    """The error object of a refusal."""
    body: dict[str, Any] = json.loads(answer.denied_response.body)["error"]
    return body


def headers(answer: CheckResponse) -> dict[str, str]:
    """Response headers of either kind of answer."""
    denied = answer.HasField("denied_response")
    options = answer.denied_response.headers if denied else answer.ok_response.response_headers_to_add
    return {option.header.key: option.header.value for option in options}


def test_a_valid_key_is_admitted_and_not_forwarded(catalog: Catalog, asker: Asker) -> None:
    """An admitted call reaches the model with who called, and without the key."""
    catalog.tenant()
    publication = catalog.publication()
    record, text = catalog.key(publication)
    answer = asker.ask(question(key=text, publication=publication))
    assert status(answer) == 200
    assert answer.status.code == 0
    added = {option.header.key: option.header.value for option in answer.ok_response.headers}
    assert added == {"x-tenant-id": "tenant-a", "x-key-id": record.id}
    assert set(answer.ok_response.headers_to_remove) == {*CREDENTIAL_HEADERS}
    assert dict(answer.dynamic_metadata) == {"key": record.id, "tenant": "tenant-a", "publication": publication.uid}


def test_a_bearer_token_is_a_key(catalog: Catalog, asker: Asker) -> None:
    """OpenAI's clients send the key as a bearer token."""
    catalog.tenant()
    publication = catalog.publication()
    _, text = catalog.key(publication)
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = asker.ask(question(publication=publication, headers={"authorization": f"{scheme} {text}"}))
        assert status(answer) == 200
    basic = question(publication=publication, headers={"authorization": f"Basic {text}"})
    assert status(asker.ask(basic)) == 401


def test_every_way_a_key_is_wrong_gets_one_answer(catalog: Catalog, asker: Asker) -> None:
    """Absent, repeated, malformed, unknown, wrong, disabled, expired: 401 and one text, so nothing can be learnt."""
    catalog.tenant()
    catalog.tenant("tenant-off", disabled=True)
    publication = catalog.publication(allowed_tenants=("tenant-a", "tenant-off"))
    _, good = catalog.key(publication)
    _, disabled = catalog.key(publication, disabled=True)
    _, expired = catalog.key(publication, expires_at_ms=1)
    _, of_disabled_tenant = catalog.key(publication, tenant="tenant-off")
    never_stored = mint("abc" + "a" * 16, catalog.secrets, lambda count: b"x" * count).reveal()
    record, _ = catalog.key(publication)
    other_secret = mint(record.id, catalog.secrets, lambda count: b"y" * count).reveal()
    wrong = {
        "absent": None,
        "empty": "",
        "repeated": f"{good},{other_secret}",
        "malformed": "tk_nonsense",
        "never stored": never_stored,
        "another secret": other_secret,
        "disabled": disabled,
        "expired": expired,
        "tenant disabled": of_disabled_tenant,
    }
    answers = {name: asker.ask(question(key=text, publication=publication)) for name, text in wrong.items()}
    assert {name: status(answer) for name, answer in answers.items()} == dict.fromkeys(wrong, 401)
    bodies = {json.dumps(error(answer) | {"key": None}) for answer in answers.values()}
    assert len(bodies) == 1
    assert all("www-authenticate" in headers(answer) for answer in answers.values())
    assert error(answers["disabled"])["key"] == disabled[:9] + "…"
    assert error(answers["malformed"])["key"] is None


def test_what_is_visible_but_not_allowed_is_403_and_the_rest_404(catalog: Catalog, asker: Asker) -> None:
    """Within the tenant's sight a key learns that it may not; outside there is nothing."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    mine, also_mine = catalog.publication(), catalog.publication(model="other")
    hidden = catalog.publication("tenant-b", "hidden")
    _, text = catalog.key(mine)
    assert status(asker.ask(question(key=text, publication=also_mine))) == 403
    refused = asker.ask(question(key=text, publication=hidden))
    assert status(refused) == 404
    catalog.remove(Kind.PUBLICATION, hidden)
    assert asker.ask(question(key=text, publication=hidden)) == refused
    assert status(asker.ask(question(key=text))) == 404
    assert status(asker.ask(question())) == 404


def test_an_openai_call_may_go_where_check_alone_can_send_it(catalog: Catalog, asker: Asker) -> None:
    """Its publication is named to the proxy whatever decided it: on Envoy Gateway no other call reaches its server."""
    catalog.tenant()
    iris = catalog.publication()
    llm = catalog.publication(model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    _, text = catalog.key(iris, llm)
    for publication, named in ((iris, None), (llm, llm.uid)):
        answer = asker.ask(question(key=text, publication=publication, model="llm"))
        told = {o.header.key: o.header.value for o in answer.ok_response.headers}
        assert (status(answer), told.get("x-tollkeeper-publication")) == (200, named)


def test_the_body_names_the_model_of_a_host_route(catalog: Catalog, asker: Asker) -> None:
    """Own models by name, another tenant's as tenant/name; unknown and invisible ones alike are 404."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    llm = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
    own = catalog.publication(model="llm", **llm)
    shared = catalog.publication("tenant-b", "shared", allowed_tenants=("tenant-a", "tenant-b"), **llm)
    hidden = catalog.publication("tenant-b", "hidden", **llm)
    catalog.host(own, shared, hidden)
    _, text = catalog.key(own, shared, hidden)

    def ask(model: Any, **more: Any) -> CheckResponse:
        return asker.ask(question(key=text, openai_host=HOST, model=model, **more))

    def routed(answer: CheckResponse) -> str:
        return {o.header.key: o.header.value for o in answer.ok_response.headers}["x-tollkeeper-publication"]

    assert routed(ask("llm")) == own.uid
    assert routed(ask("tenant-a/llm")) == own.uid
    assert routed(ask("tenant-b/shared")) == shared.uid
    for absent in ("shared", "nothing", "tenant-b/hidden", "tenant-b/nothing"):
        answer = ask(absent)
        assert (status(answer), error(answer)["code"]) == (404, "model_not_found"), absent
    assert status(ask(7.0)) == 400
    assert status(asker.ask(question(key=text, openai_host=HOST))) == 400
    plain = question(key=text, openai_host=HOST, headers={"content-type": "text/plain"})
    assert status(asker.ask(plain)) == 415


def test_a_route_of_one_model_serves_no_other(catalog: Catalog, asker: Asker) -> None:
    """On a publication's own path the body cannot reach another model of the same server."""
    catalog.tenant()
    llm = catalog.publication(model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    _, text = catalog.key(llm)
    assert status(asker.ask(question(key=text, publication=llm, model="llm"))) == 200
    assert status(asker.ask(question(key=text, publication=llm, model="secret-model"))) == 404
    assert status(asker.ask(question(key=text, publication=llm))) == 400
    assert status(asker.ask(question(key=text, publication=llm, method="GET"))) == 405


@pytest.mark.parametrize("level", ["key", "tenant", "publication"])
def test_each_level_limits_and_says_so(catalog: Catalog, asker: Asker, level: str) -> None:
    """The third call of a budget of two is refused with level, limit, remaining and an exact wait."""
    limits = {name: Limits(per_minute=2) if name == level else Limits() for name in ("key", "tenant", "publication")}
    catalog.tenant(limits=limits["tenant"])
    publication = catalog.publication(limits=limits["publication"])
    _, text = catalog.key(publication, limits=limits["key"])
    answers = [asker.ask(question(key=text, publication=publication)) for _ in range(3)]
    assert [status(answer) for answer in answers] == [200, 200, 429]
    told = error(answers[2])
    assert told["level"] == level
    assert 55_000 < told["retry_after_ms"] <= 61_000
    assert int(headers(answers[2])["retry-after-ms"]) == told["retry_after_ms"]
    assert int(headers(answers[2])["retry-after"]) == -(-told["retry_after_ms"] // 1000)
    if level == "tenant":
        assert not {"limit", "remaining"} & told.keys()
        assert "ratelimit" not in headers(answers[0])
    else:
        assert (told["limit"], told["remaining"]) == (2, 0)
        assert headers(answers[0])["x-ratelimit-remaining"] == "1"
        assert headers(answers[0])["ratelimit-policy"] == f'"{level}-minute";q=2;w=60'
        assert headers(answers[1])["ratelimit"].startswith(f'"{level}-minute";r=0;t=')


def test_a_long_wait_tells_clients_to_give_up(catalog: Catalog, asker: Asker) -> None:
    """OpenAI's SDK retries by itself unless told not to: beyond a minute it is told."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_hour=1), type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    _, text = catalog.key(publication)
    first, second = (asker.ask(question(key=text, publication=publication, model="my-model")) for _ in range(2))
    assert headers(first)["x-ratelimit-limit-requests"] == "1"
    assert headers(second)["x-should-retry"] == "false"


def test_a_refused_call_changes_nothing(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """Whatever refuses a call, no counter moves: budgets and usage are as they were."""
    catalog.tenant(limits=Limits(per_hour=50))
    publication = catalog.publication(limits=Limits(per_minute=1))
    _, text = catalog.key(publication, limits=Limits(burst=50, per_hour=50))
    asker.ask(question(key=text, publication=publication))
    wait_until(lambda: store.exists(f"tk:usage:{{0}}:p:{publication.uid}"))

    def counters() -> dict[bytes, bytes | None]:
        keys = [*store.scan_iter("tk:budget:*"), *store.scan_iter("tk:usage:*")]
        return {key: store.dump(key) for key in keys}

    before = counters()
    for refused in (
        question(key=text, publication=publication),
        question(key="x", publication=publication),
        question(),
    ):
        assert status(asker.ask(refused)) != 200
    assert counters() == before
    assert len(before) >= 3


def test_a_new_limit_binds_the_next_call(catalog: Catalog, asker: Asker) -> None:
    """Lower and higher limits hold from the answer of the change on."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=100))
    _, text = catalog.key(publication)
    ask = question(key=text, publication=publication)
    assert [status(asker.ask(ask)) for _ in range(3)] == [200] * 3
    publication = catalog.change(publication, limits=Limits(per_minute=3))
    assert status(asker.ask(ask)) == 429
    catalog.change(publication, limits=Limits(per_minute=4))
    assert [status(asker.ask(ask)) for _ in range(2)] == [200, 429]


def test_a_rotated_text_dies_at_once_or_after_its_grace(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """Grace ends by the store's clock; without grace the old text is refused from the next call on."""
    catalog.tenant()
    publication = catalog.publication()
    record, old = catalog.key(publication)
    new = mint(record.id, catalog.secrets, lambda count: b"n" * count)
    now_ms = int(store.time()[0]) * 1000
    grace = Credential(record.current.hash, record.current.peppers, valid_until_ms=now_ms + 3_600_000)

    def answers() -> tuple[int, int]:
        texts = (old, new.reveal())
        return tuple(status(asker.ask(question(key=text, publication=publication))) for text in texts)  # type: ignore[return-value]

    assert answers() == (200, 401)
    record = catalog.change(record, current=hash_key(new, catalog.secrets), previous=grace)
    assert answers() == (200, 200)
    ended = Credential(grace.hash, grace.peppers, valid_until_ms=now_ms - 1)
    record = catalog.change(record, previous=ended)
    assert answers() == (401, 200)
    catalog.change(record, previous=None)
    assert answers() == (401, 200)


def test_an_unreadable_record_fails_its_own_calls_only(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """A corrupt key is 503 for its caller; the others in the same batch are served."""
    catalog.tenant()
    publication = catalog.publication()
    broken, broken_text = catalog.key(publication)
    _, text = catalog.key(publication)
    store.set(f"tk:rec:key:{broken.id}", b"{nonsense")
    answers = asker.ask_many([question(key=one, publication=publication) for one in (broken_text, text, text)])
    assert [status(answer) for answer in answers] == [503, 200, 200]


def test_a_question_that_is_not_one_is_refused(catalog: Catalog, asker: Asker) -> None:
    """Bytes that are no CheckRequest get a refusal, and the others of the batch their answers."""
    catalog.tenant()
    publication = catalog.publication()
    _, text = catalog.key(publication)
    raw = asker._check.future(b"\xff\xff\xff", timeout=5)
    assert status(asker.ask(question(key=text, publication=publication))) == 200
    assert status(CheckResponse.FromString(raw.result())) == 503


def test_decisions_are_counted(catalog: Catalog, asker: Asker, registry: CollectorRegistry) -> None:
    """Every answer is in decisions_total under its outcome, reason, publication and tenant; never a key."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=1))
    _, text = catalog.key(publication)
    for _ in range(2):
        asker.ask(question(key=text, publication=publication))

    def count(outcome: str, reason: str) -> float | None:
        labels = {"outcome": outcome, "reason": reason, "publication": "tenant-a/my-model", "tenant": "tenant-a"}
        return registry.get_sample_value("tollkeeper_decisions_total", labels)

    wait_until(lambda: count("limited", "limited") == 1)
    assert count("allowed", "ok") == 1


def test_usage_is_counted_within_a_second(catalog: Catalog, asker: Asker, gate: Gate, store: redis.Redis) -> None:
    """Admitted calls are in the publication's and the key's totals, refused ones are not."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=3))
    record, text = catalog.key(publication)
    answers = asker.ask_many([question(key=text, publication=publication)] * 5)
    assert sorted(map(status, answers)) == [200, 200, 200, 429, 429]
    for subject in (f"p:{publication.uid}", f"k:{record.id}"):
        wait_until(lambda name=f"tk:usage:{{0}}:{subject}": store.hget(name, "total") == b"3")  # type: ignore[misc]
    assert gate.readiness().ready


def test_a_record_that_no_decision_can_use_fails_its_own_calls_only(
    catalog: Catalog, asker: Asker, store: redis.Redis
) -> None:
    """A limit out of range in one key refuses that key and nobody else in the batch."""
    catalog.tenant()
    publication = catalog.publication()
    broken, broken_text = catalog.key(publication, limits=Limits(burst=7))
    _, text = catalog.key(publication)
    raw = store.get(f"tk:rec:key:{broken.id}")
    store.set(f"tk:rec:key:{broken.id}", raw.replace(b'"burst":7', b'"burst":0'))
    answers = asker.ask_many([question(key=one, publication=publication) for one in (broken_text, text, text)])
    assert [status(answer) for answer in answers] == [503, 200, 200]


def test_an_expired_key_learns_nothing_more(catalog: Catalog, asker: Asker) -> None:
    """Expired is 401 even where the key would not be allowed or the body is wrong."""
    catalog.tenant()
    llm = catalog.publication(model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    _, text = catalog.key(expires_at_ms=1)
    assert status(asker.ask(question(key=text, publication=llm, model="llm"))) == 401
    assert status(asker.ask(question(key=text, publication=llm))) == 401
