"""Whose body is read: nobody's before the key, the route and the endpoint have let the call pass so far."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, wait_until, with_body

from catalog.records import Kind, Limits, ModelType, Protocol, PublicationRecord
from extauth.batches import bodies
from extauth.request.body import Body, BodyFault
from extauth.request.reading import read_body
from protos.external_auth_pb2 import CheckRequest, CheckResponse


@pytest.fixture
def wire() -> Wire:
    """One transport: what is decided here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that were read, in order."""
    seen: list[bytes] = []

    def counted(raw: bytes, content_type: str, **how: Any) -> Body | BodyFault:
        seen.append(raw)
        return read_body(raw, content_type, **how)

    monkeypatch.setattr(bodies, "read_body", counted)
    return seen


def openai(catalog: Catalog, **fields: Any) -> PublicationRecord:
    """Add an openai model."""
    return catalog.publication(type=ModelType.OPENAI, protocol=Protocol.OPENAI, **({"model": "llm"} | fields))


def error(answer: CheckResponse) -> dict[str, Any]:
    """The error object of a refusal."""
    found: dict[str, Any] = json.loads(answer.denied_response.body)["error"]
    return found


def _both_ways(key: str | None, llm: PublicationRecord) -> list[CheckRequest]:
    """A call by the model's own path and one by the host's shared entry."""
    return [
        with_body(question(key=key, publication=llm), model="llm"),
        with_body(question(key=key, openai_host=HOST), model="llm"),
    ]


@pytest.mark.replaces
def test_only_what_may_pass_is_read(catalog: Catalog, asker: Asker, read: list[bytes]) -> None:
    """Not the body of a call without a key, with a wrong, revoked, expired or disabled one, or one for other models."""
    catalog.tenant()
    llm, other = openai(catalog), openai(catalog, model="other")
    catalog.host(llm, other)
    good, revoked = catalog.key(llm), catalog.key(llm)
    expired = catalog.key(llm, expires_at_ms=int(time.time() * 1_000) - 5_000)
    disabled, elsewhere = catalog.key(llm, disabled=True), catalog.key(other)
    assert {status(one) for one in asker.ask_many(_both_ways(good[1], llm))} == {200}
    assert len(read) == 2
    catalog.remove(Kind.KEY, revoked[0])
    asked = [one for key in (None, "tk_x", revoked[1], expired[1], disabled[1]) for one in _both_ways(key, llm)]
    assert {status(one) for one in asker.ask_many(asked)} == {401}
    assert status(asker.ask(with_body(question(key=elsewhere[1], publication=llm), model="llm"))) == 403
    assert status(asker.ask(with_body(question(key=good[1]), model="llm"))) == 404
    assert len(read) == 2


@pytest.mark.replaces
def test_a_disabled_tenants_bodies_are_not_read(catalog: Catalog, asker: Asker, read: list[bytes]) -> None:
    """Nor those for a publication whose owner is disabled."""
    catalog.tenant(disabled=True)
    llm = openai(catalog)
    catalog.host(llm)
    _, key = catalog.key(llm)
    assert {status(one) for one in asker.ask_many(_both_ways(key, llm))} == {401}
    assert read == []


@pytest.mark.replaces
def test_a_traditional_call_is_not_read(catalog: Catalog, asker: Asker, read: list[bytes]) -> None:
    """Whatever its proxy hands over: it may be anything."""
    catalog.tenant()
    iris = catalog.publication(model="iris")
    _, key = catalog.key(iris)
    asked = question(key=key, publication=iris)
    asked.attributes.request.http.raw_body = b"\xff\xfe"
    assert status(asker.ask(asked)) == 200
    assert read == []


def test_a_doubled_type_is_told_alike_each_time(catalog: Catalog, asker: Asker) -> None:
    """As it is decided first, and by what was kept: made one where the body is read, else left alone."""
    catalog.tenant()
    llm, iris = openai(catalog, limits=Limits(per_minute=1000)), catalog.publication(model="iris")
    doubled = {"content-type": "application/json,application/json"}
    for model, told in ((llm, ["application/json"]), (iris, [])):
        _, key = catalog.key(model)
        for _ in range(3):
            asked = question(key=key, publication=model, headers=doubled)
            if model is llm:
                with_body(asked, model="llm")
            answer = asker.ask(asked)
            assert status(answer) == 200
            changed = {one.header.key: one.header.value for one in answer.ok_response.headers}
            assert [changed[name] for name in ("content-type",) if name in changed] == told


@pytest.mark.replaces
def test_a_body_is_read_once(catalog: Catalog, asker: Asker, read: list[bytes]) -> None:
    """However often its call is decided: a key that is new to the gate, records that have changed meanwhile."""
    catalog.tenant()
    llm = openai(catalog, limits=Limits(per_minute=1000))
    catalog.host(llm)
    for _ in range(3):
        _, key = catalog.key(llm)
        assert {status(one) for one in asker.ask_many(_both_ways(key, llm))} == {200}
    assert len(read) == 6


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b'{"model":"llm","Model":"big"}', "misspelt_field", "Model"),
        (b'{"model":"llm","MAX_TOKENS":9}', "misspelt_field", "MAX_TOKENS"),
        (b'{"model":"llm","model":"llm"}', "repeated_field", "model"),
        (b'{"model":"llm","best_of":"9"}', "invalid_best_of", "best_of"),
        (b'{"model":"llm"', "invalid_json", None),
    ],
)
def test_a_refusal_names_the_field(catalog: Catalog, asker: Asker, raw: bytes, code: str, param: str | None) -> None:
    """400 in OpenAI's shape, by both ways to a model."""
    catalog.tenant()
    llm = openai(catalog)
    catalog.host(llm)
    _, key = catalog.key(llm)
    for asked in _both_ways(key, llm):
        asked.attributes.request.http.raw_body = raw
        answer = asker.ask(asked)
        assert (status(answer), error(answer)["code"], error(answer)["param"]) == (400, code, param)
        assert error(answer)["type"] == "invalid_request_error"


def test_the_path_names_a_model_by_itself(catalog: Catalog, asker: Asker) -> None:
    """On a model's own path ``model`` may be left out; through the shared entry it is required."""
    catalog.tenant()
    llm = openai(catalog)
    catalog.host(llm)
    _, key = catalog.key(llm)
    for raw in (b"{}", b'{"model":null}', b'{"model":""}'):
        by_path, by_body = _both_ways(key, llm)
        by_path.attributes.request.http.raw_body = by_body.attributes.request.http.raw_body = raw
        assert status(asker.ask(by_path)) == 200
        assert (status(refused := asker.ask(by_body)), error(refused)["code"]) == (400, "model_required")


def test_a_body_that_came_as_text(catalog: Catalog, asker: Asker) -> None:
    """As Envoy Gateway's proxies send it."""
    catalog.tenant()
    llm = openai(catalog)
    _, key = catalog.key(llm)
    asked = question(key=key, publication=llm)
    asked.attributes.request.http.body = '{"model":"llm","x":"é"}'
    assert status(asker.ask(asked)) == 200
    asked.attributes.request.http.body = '{"mo!del":"llm"}'
    assert status(asker.ask(asked)) == 400


def test_a_revoke_ends_calls_whose_bodies_were_read_before(catalog: Catalog, asker: Asker) -> None:
    """A key that goes while bodies are read is refused from then on."""
    catalog.tenant()
    llm = openai(catalog)
    catalog.host(llm)
    record, key = catalog.key(llm)
    assert {status(one) for one in asker.ask_many(_both_ways(key, llm) * 10)} == {200}
    catalog.remove(Kind.KEY, record)
    wait_until(lambda: {status(one) for one in asker.ask_many(_both_ways(key, llm) * 10)} == {401})
