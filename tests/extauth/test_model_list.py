"""Which models may this key call? Asked as OpenAI's clients ask, answered by the gate on a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
import redis
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, wait_until, with_body

from catalog.records import Kind, Limits, ModelType, Protocol, PublicationRecord
from extauth.records.allowances import PER_MINUTE
from protos.external_auth_pb2 import CheckRequest, CheckResponse

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI, "created_at_ms": 1_767_225_600_999}
BOTH = ("tenant-a", "tenant-b")


def by_host(key: str | None, path: str = "/v1/models", method: str = "GET") -> CheckRequest:
    """Ask as Envoy does for the host's openai entry."""
    asked = question(key=key, openai_host=HOST, method=method)
    asked.attributes.request.http.path = path
    return asked


def by_path(key: str | None, publication: PublicationRecord, tail: str = "/models") -> CheckRequest:
    """Ask as Envoy does for a publication's own path."""
    asked = question(key=key, publication=publication, method="GET")
    asked.attributes.request.http.path = publication.path + tail
    return asked


def body(answer: CheckResponse) -> Any:
    """The JSON of an answer that Envoy gives by itself."""
    return json.loads(answer.denied_response.body)


def names(answer: CheckResponse) -> list[str]:
    """The models of a list, in order."""
    assert (status(answer), body(answer)["object"]) == (200, "list"), answer
    return [card["id"] for card in body(answer)["data"]]


def headers(answer: CheckResponse) -> dict[str, str]:
    """Its response headers."""
    return {option.header.key: option.header.value for option in answer.denied_response.headers}


@pytest.fixture
def wire() -> Wire:
    """One transport: what is answered here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture(params=[False, True], ids=["table", "routes"])
def closed(request: pytest.FixtureRequest) -> bool:
    """Whether the host's models stand in records of their own."""
    return bool(request.param)


@pytest.fixture
def models(catalog: Catalog, *, closed: bool) -> dict[str, PublicationRecord]:
    """Of tenant-a: llm, other, and iris, which is no openai model; of tenant-b: shared with tenant-a, and hidden."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    found = {
        "llm": catalog.publication(model="llm", path="/v1/models/llm", **LLM),
        "other": catalog.publication(model="other", path="/own/other", **LLM),
        "iris": catalog.publication(model="iris"),
        "shared": catalog.publication("tenant-b", "shared", path="/v1/models/s", allowed_tenants=BOTH, **LLM),
        "hidden": catalog.publication("tenant-b", "hidden", path="/v1/models/hidden", **LLM),
    }
    catalog.host(*(one for one in found.values() if one.type is ModelType.OPENAI), closed=closed)
    return found


def key_of(catalog: Catalog, models: dict[str, PublicationRecord], *may: str, **fields: Any) -> str:
    """A key of tenant-a for these models."""
    return catalog.key(*(models[name] for name in may), **fields)[1]


def test_a_list_holds_what_this_key_may_call(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """Own openai models by name, another tenant's as tenant/name; neither what is invisible nor other kinds."""
    text = key_of(catalog, models, *models)
    answer = asker.ask(by_host(text))
    assert names(answer) == ["llm", "other", "tenant-b/shared"]
    assert body(answer)["data"][2] == {
        "id": "tenant-b/shared",
        "object": "model",
        "created": 1_767_225_600,
        "owned_by": "tenant-b",
    }
    assert names(asker.ask(by_host(key_of(catalog, models, "other")))) == ["other"]
    assert names(asker.ask(by_host(key_of(catalog, models, "iris", "hidden")))) == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("llm", 200),
        ("tenant-a/llm", 200),
        ("tenant-b/shared", 200),
        ("other", 403),
        ("shared", 404),
        ("tenant-b/hidden", 404),
        ("iris", 404),
        ("nothing", 404),
        ("tenant-b/nothing", 404),
        ("llm/", 404),
        ("LLM", 404),
    ],
)
def test_one_model_is_answered_as_a_call_of_it_would_be(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord], asked: str, code: int
) -> None:
    """200 what may be called, 403 what is seen and not allowed, one 404 for what is unknown or invisible."""
    text = key_of(catalog, models, "llm", "shared", "hidden", "iris")
    answer = asker.ask(by_host(text, f"/v1/models/{asked}"))
    assert status(answer) == code
    if code == 200:
        owner, _, name = asked.rpartition("/")
        own = owner in {"", "tenant-a"}
        assert body(answer)["id"] == (name if own else asked)
    if not asked.endswith("/"):
        called = asker.ask(question(key=text, openai_host=HOST, model=asked))
        assert status(called) == code
        assert code == 200 or called == answer


def test_every_name_that_may_be_said_is_listed(catalog: Catalog, asker: Asker, *, closed: bool) -> None:
    """What its server calls it and its aliases too, of another's with the tenant; one's own go first."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    aliases = ("gpt-4o", "tenant-b/shared", "模型 1")
    own = catalog.publication(model="llm", path="/own", model_id="org/llm:8b", aliases=aliases, **LLM)
    named: dict[str, Any] = {"model_id": "s:8b", "allowed_tenants": BOTH, **LLM}
    shared = catalog.publication("tenant-b", "shared", path="/v1/models/s", **named)
    catalog.host(own, shared, closed=closed)
    _, text = catalog.key(own, shared)
    listed = names(asker.ask(by_host(text)))
    assert listed == ["llm", "org/llm:8b", *aliases, "tenant-b/s:8b"]
    for name in listed:
        assert asker.ask(question(key=text, openai_host=HOST, model=name)).HasField("ok_response"), name
        assert body(asker.ask(by_host(text, f"/v1/models/{quote(name)}")))["id"] == name
    assert body(asker.ask(by_host(text, "/v1/models/tenant-b/shared")))["owned_by"] == "tenant-a"
    assert names(asker.ask(by_path(text, own))) == ["llm", "org/llm:8b", *aliases]
    assert status(asker.ask(by_path(text, own, "/models/gpt-4o"))) == 200


def test_a_publications_path_tells_of_its_model_alone(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """With a publication's path as base URL there is one model, whatever else its server or the key knows."""
    text = key_of(catalog, models, "llm", "other", "shared")
    assert names(asker.ask(by_path(text, models["llm"]))) == ["llm"]
    assert names(asker.ask(by_path(text, models["shared"]))) == ["shared"]
    for tail in ("", "/models/other"):
        assert body(asker.ask(by_path(text, models["other"], tail)))["id"] == "other"
    assert status(asker.ask(by_path(text, models["llm"], "/models/other"))) == 404
    assert status(asker.ask(by_path(text, models["hidden"]))) == 404
    assert status(asker.ask(by_path(key_of(catalog, models, "llm"), models["other"]))) == 403


def test_a_host_without_a_table_has_no_list(catalog: Catalog, asker: Asker) -> None:
    """Where nothing is published (any more) there is nothing to be asked."""
    catalog.tenant()
    _, text = catalog.key(catalog.publication(model="llm", **LLM))
    for path in ("/v1/models", "/v1/models/llm"):
        assert status(asker.ask(by_host(text, path))) == 404


def test_only_a_get_of_these_paths_is_a_question(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """Anything else is a call, and an openai model's other paths are not open."""
    text = key_of(catalog, models, "llm", "iris")
    for path in ("/v1/models?limit=20", "/v1/models/"):
        assert names(asker.ask(by_host(text, path))) == ["llm"], path
    assert names(asker.ask(by_path(text, models["llm"], "/models/"))) == ["llm"]
    assert status(asker.ask(by_host(text, "/v1/models", "HEAD"))) == 200
    assert status(asker.ask(by_host(text, "/v1/models/llm", "DELETE"))) == 403
    for path in ("/v1/model", "/v1/modelsx", "/v1/files"):  # another model may have it open, at its own URL
        assert status(asker.ask(by_host(text, path))) == 400, path
    assert status(asker.ask(by_host(text, ""))) == 403
    for tail in ("/modelsx", "/files/1"):
        assert status(asker.ask(by_path(text, models["llm"], tail))) == 403, tail
    assert asker.ask(by_path(text, models["iris"])).HasField("ok_response")
    assert asker.ask(by_path(text, models["iris"], "")).HasField("ok_response")


def test_a_question_needs_a_good_key(catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]) -> None:
    """Nobody learns of models without a key; a disabled one is none."""
    disabled = key_of(catalog, models, "llm", disabled=True)
    for text in (None, "tk_nonsense", disabled):
        assert status(asker.ask(by_host(text))) == 401
        assert status(asker.ask(by_host(text, "/v1/models/llm"))) == 401
        assert status(asker.ask(by_path(text, models["llm"]))) == 401


def test_who_needs_no_key_is_told_of_the_one_model(catalog: Catalog, asker: Asker) -> None:
    """Where a publication asks for no key, so does the question about it; its address has a budget of these too."""
    catalog.tenant()
    limits: dict[str, Any] = {"require_api_key": False, "anonymous_per_minute": 2, "limits": Limits(per_minute=2)}
    free = catalog.publication(model="free", path="/v1/models/free", **LLM, **limits)
    assert names(asker.ask(by_path(None, free))) == ["free"]
    assert status(asker.ask(by_path(None, free, "/models/other"))) == 404
    assert body(asker.ask(by_path(None, free, "/models/free")))["id"] == "free"
    answers = [status(one) for one in asker.ask_many([by_path(None, free)] * PER_MINUTE)]
    assert (answers.count(200), answers.count(429)) == (PER_MINUTE - 2, 2)
    call = with_body(question(key=None, publication=free), model="free", messages=[])
    assert [status(asker.ask(call)) for _ in range(3)] == [200, 200, 429]


def test_a_question_costs_nobody_a_call(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """Neither budget nor usage of key, tenant or model has it: who polls the list calls as many times as before."""
    catalog.tenant(limits=Limits(per_minute=3))
    llm = catalog.publication(model="llm", limits=Limits(per_minute=3), **LLM)
    catalog.host(llm)
    record, text = catalog.key(llm, limits=Limits(per_minute=2))
    for path in ("/v1/models", "/v1/models/llm") * 5:
        told = asker.ask(by_host(text, path))
        assert status(told) == 200
    assert headers(told)["ratelimit"].startswith('"model-list-minute";r=50;t=')
    assert headers(told)["ratelimit-policy"] == '"model-list-minute";q=60;w=60'
    assert not [name for name in headers(told) if name.startswith("x-ratelimit-")]
    call = question(key=text, openai_host=HOST, model="llm")
    assert [status(asker.ask(call)) for _ in range(3)] == [200, 200, 429]
    assert names(asker.ask(by_host(text))) == ["llm"]
    assert names(asker.ask(by_path(text, llm))) == ["llm"]
    wait_until(lambda: store.hget(f"tk:usage:{{0}}:k:{record.id}", "total") == b"2")
    assert store.hget(f"tk:usage:{{0}}:p:{llm.uid}", "total") == b"2"


def test_a_key_has_its_questions_a_minute(catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]) -> None:
    """The 61st is 429 and says for how long; another key's are its own, and calls go on."""
    text, other = key_of(catalog, models, "llm"), key_of(catalog, models, "llm")
    answers = asker.ask_many([by_host(text)] * (PER_MINUTE + 5))
    assert [status(one) for one in answers].count(429) == 5
    refused = asker.ask(by_host(text, "/v1/models/llm"))
    assert (status(refused), body(refused)["error"]["level"]) == (429, "model-list")
    assert int(headers(refused)["retry-after-ms"]) > 0
    assert 0 < int(headers(refused)["retry-after"]) <= 61
    assert names(asker.ask(by_host(other))) == ["llm"]
    assert status(asker.ask(question(key=text, openai_host=HOST, model="llm"))) == 200


def unchanged(asker: Asker, asked: CheckRequest, tags: str) -> CheckResponse:
    """Ask for what has changed since the answers of these tags."""
    asked.attributes.request.http.headers["if-none-match"] = tags
    return asker.ask(asked)


def test_an_answer_has_a_tag_by_which_it_is_asked_for_again(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """304 without a body while it is the same, for that key; a model that is taken from the key makes it another."""
    record, text = catalog.key(models["llm"], models["other"])
    told = asker.ask(by_host(text))
    tag = headers(told)["etag"]
    assert (headers(told)["cache-control"], headers(told)["vary"]) == ("private, no-cache", "anthropic-version")
    assert tag.startswith('"')  # strong: another byte, another tag
    for tags in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = unchanged(asker, by_host(text), tags)
        assert (status(same), same.denied_response.body) == (304, ""), tags
        assert {name: headers(same)[name] for name in ("etag", "cache-control")} == {
            "etag": tag,
            "cache-control": "private, no-cache",
        }
        assert "content-type" not in headers(same)
    for tags in ('"x"', tag.strip('"'), "", tag[:-2] + '"', "W/" * 3_000 + tag):
        assert status(unchanged(asker, by_host(text), tags)) == 200, tags
    one = asker.ask(by_host(text, "/v1/models/llm"))
    assert headers(one)["etag"] != tag
    assert status(unchanged(asker, by_host(text, "/v1/models/llm"), headers(one)["etag"])) == 304
    assert status(unchanged(asker, by_host(key_of(catalog, models, "llm")), tag)) == 200
    catalog.change(record, publications=(models["llm"].uid,))
    changed = unchanged(asker, by_host(text), tag)
    assert names(changed) == ["llm"]
    assert headers(changed)["etag"] != tag


def test_what_has_not_changed_is_a_question_too(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """It costs as much; and who may not ask any more is 401, or 429, whatever it has already."""
    record, text = catalog.key(models["llm"])
    tag = headers(asker.ask(by_host(text)))["etag"]
    answers = [status(unchanged(asker, by_host(text), tag)) for _ in range(PER_MINUTE)]
    assert (answers.count(304), answers.count(429)) == (PER_MINUTE - 1, 1)
    catalog.change(record, disabled=True)
    assert status(unchanged(asker, by_host(text), tag)) == 401


def test_a_list_is_true_from_the_answer_of_a_change_on(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord]
) -> None:
    """What was taken from a key, hidden or unpublished is in no list that begins afterwards, feed alive or not."""
    record, text = catalog.key(models["llm"], models["other"], models["shared"])
    for _ in range(5):
        assert names(asker.ask(by_host(text))) == ["llm", "other", "tenant-b/shared"]
        record = catalog.change(record, publications=(models["llm"].uid, models["shared"].uid))
        assert names(asker.ask(by_host(text))) == ["llm", "tenant-b/shared"]
        shared = catalog.change(models["shared"], allowed_tenants=("tenant-b",))
        assert names(asker.ask(by_host(text))) == ["llm"]
        models["shared"] = catalog.change(shared, allowed_tenants=BOTH)
        uids = tuple(models[name].uid for name in ("llm", "other", "shared"))
        record = catalog.change(record, publications=uids)
    catalog.remove(Kind.PUBLICATION, models["other"])
    assert names(asker.ask(by_host(text))) == ["llm", "tenant-b/shared"]


def test_a_list_leaves_out_what_cannot_be_read(
    catalog: Catalog, asker: Asker, models: dict[str, PublicationRecord], store: redis.Redis
) -> None:
    """A damaged record of one model keeps nobody from the others; that model alone is 503."""
    text = key_of(catalog, models, "llm", "other")
    store.set(f"tk:rec:pub:{models['other'].uid}", b"{broken")
    assert names(asker.ask(by_host(text))) == ["llm"]
    assert status(asker.ask(by_host(text, "/v1/models/other"))) == 503
    assert status(asker.ask(by_host(text, "/v1/models/llm"))) == 200


def test_the_longest_list_is_answered(catalog: Catalog, asker: Asker) -> None:
    """A key may name a hundred models: one answer of a few kilobytes."""
    catalog.tenant()
    many: Sequence[PublicationRecord] = [
        catalog.publication(model=f"m{number:03}", path=f"/v1/models/m{number:03}", **LLM) for number in range(100)
    ]
    catalog.host(*many)
    _, text = catalog.key(*many)
    answer = asker.ask(by_host(text))
    assert names(answer) == [one.model for one in many]
    assert len(answer.denied_response.body) < 20_000
