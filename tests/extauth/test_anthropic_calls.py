"""Calls in Anthropic's API against the gate on a real Valkey: refusals, limits, ids and lists in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, with_body

from catalog.records import Limits, ModelType, Protocol, PublicationRecord
from protos.core_pb2 import HeaderValueOption
from protos.external_auth_pb2 import CheckRequest, CheckResponse

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI, "created_at_ms": 1_767_225_600_999}
ID, OTHER_ID = "5c2f1a06-4f57-4f0e-8f7b-0a1d4c9a77aa", "a4d0b6a5-5d2f-4a61-9a43-36e0a1f0c0de"
MESSAGES = "/v1/messages"


@pytest.fixture
def wire() -> Wire:
    """One transport: what is answered here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture
def llm(catalog: Catalog) -> PublicationRecord:
    """An openai model on a host, without limits of its own."""
    catalog.tenant()
    made = catalog.publication(model="llm", path="/models/llm", **LLM)
    catalog.host(made)
    return made


def asked(
    key: str | None,
    path: str = MESSAGES,
    *,
    model: str = "llm",
    request_id: str = ID,
    of: PublicationRecord | None = None,
    version: bool = True,
    method: str = "POST",
    **body: Any,
) -> CheckRequest:
    """Ask about a call as Anthropic's clients make it; ``of``: on a publication's own path."""
    made = (
        question(key=key, publication=of, method=method) if of else question(key=key, openai_host=HOST, method=method)
    )
    http = made.attributes.request.http
    http.path = path
    http.headers["x-request-id"] = request_id
    if version:
        http.headers["anthropic-version"] = "2023-06-01"
    if method == "POST":
        with_body(made, model=model, max_tokens=16, messages=[{"role": "user", "content": "Hello!"}], **body)
    return made


def told(answer: CheckResponse) -> Any:
    """The JSON of an answer that Envoy gives by itself."""
    return json.loads(answer.denied_response.body)


def headers(answer: CheckResponse) -> dict[str, str]:
    """What the caller is told besides, of an admitted call or of another."""
    added = answer.ok_response.response_headers_to_add or answer.denied_response.headers
    return {option.header.key: option.header.value for option in added}


def test_an_admitted_call_is_told_limits_and_its_id(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """By its first call as by those of its lane; a server that says an id of its own keeps that."""
    _, key = catalog.key(llm, limits=Limits(per_minute=10, tokens_per_hour=1_000))
    for used, request_id in enumerate((ID, OTHER_ID, ID), 1):
        answer = asker.ask(asked(key, request_id=request_id))
        said = headers(answer)
        assert status(answer) == 200
        assert said["request-id"] == request_id
        (option,) = (one for one in answer.ok_response.response_headers_to_add if one.header.key == "request-id")
        assert option.append_action == HeaderValueOption.ADD_IF_ABSENT
        assert said["anthropic-ratelimit-requests-limit"] == "10"
        assert said["anthropic-ratelimit-requests-remaining"] == str(10 - used)
        assert said["anthropic-ratelimit-tokens-limit"] == "1000"
        assert said["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert said["x-ratelimit-remaining"] == str(10 - used)
        assert "x-ratelimit-remaining-requests" not in said


def test_each_api_has_its_words_in_turn(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """One key, one model, one budget: a chat between messages is told OpenAI's headers and no id."""
    _, key = catalog.key(llm, limits=Limits(per_minute=10))
    for turn in range(3):
        chat = headers(asker.ask(asked(key, "/v1/chat/completions")))
        assert chat["x-ratelimit-remaining-requests"] == str(10 - 2 * turn - 1)
        assert not [name for name in chat if name.startswith("anthropic") or name == "request-id"]
        message = headers(asker.ask(asked(key)))
        assert message["anthropic-ratelimit-requests-remaining"] == str(10 - 2 * turn - 2)


def test_a_full_budget_refuses_each_call_by_its_own_id(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """What is remembered of a refusal is told to both APIs, to each in its words, and names the call that asks."""
    _, key = catalog.key(llm, limits=Limits(per_minute=1))
    assert status(asker.ask(asked(key))) == 200
    for request_id in (ID, OTHER_ID, "", "short", OTHER_ID):
        answer = asker.ask(asked(key, request_id=request_id))
        said = told(answer)
        assert (status(answer), said["error"]["type"]) == (429, "rate_limit_error")
        assert said["request_id"] == (request_id or None)
        assert headers(answer).get("request-id", "") == request_id
        assert said["error"]["details"]["budget"] == "key-minute"
        assert int(headers(answer)["retry-after"]) >= 1
        plain = asker.ask(asked(key, "/v1/chat/completions", request_id=request_id))
        assert (status(plain), told(plain)["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "request-id" not in headers(plain)


@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize(
    ("change", "code", "kind", "error_code"),
    [
        ({"key": None}, 401, "authentication_error", "invalid_api_key"),
        ({"key": "tk_nonsense"}, 401, "authentication_error", "invalid_api_key"),
        ({"model": "nothing"}, 404, "not_found_error", "model_not_found"),
        ({"n": "x"}, 400, "invalid_request_error", "invalid_n"),
        ({"background": True}, 400, "invalid_request_error", "background_not_allowed"),
        ({"path": "messages/batches"}, 403, "permission_error", "endpoint_not_allowed"),
        ({"method": "PUT"}, 405, "invalid_request_error", "method_not_allowed"),
    ],
)
def test_refusals(
    catalog: Catalog,
    asker: Asker,
    llm: PublicationRecord,
    by_path: bool,  # noqa: FBT001
    change: dict[str, Any],
    code: int,
    kind: str,
    error_code: str,
) -> None:
    """At the host's path and at the model's own, with and without a version."""
    _, text = catalog.key(llm)
    root = llm.path if by_path else "/v1"
    given = {"key": text, "path": "messages"} | change
    key, path = given.pop("key"), f"{root}/{given.pop('path')}"
    for version in (True, False):
        answer = asker.ask(asked(key, path, of=llm if by_path else None, version=version, **given))
        said = told(answer)
        assert (status(answer), said["type"], said["request_id"]) == (code, "error", ID)
        assert (said["error"]["type"], said["error"]["details"]["error_code"]) == (kind, error_code)
        assert headers(answer)["request-id"] == ID


@pytest.mark.parametrize("tail", ["messages", "%6Dessages", "messages/count_tokens", "models"])
def test_what_is_not_for_this_caller_is_told_as_what_is_not_there(
    catalog: Catalog, asker: Asker, llm: PublicationRecord, tail: str
) -> None:
    """By no header more: where there is no route the proxy answers alone, and it finds the words of both."""
    catalog.tenant("tenant-b")
    _, key = catalog.key(tenant="tenant-b")
    answer = asker.ask(asked(key, f"{llm.path}/{tail}", of=llm))
    assert status(answer) == 404
    assert headers(answer) == {"content-type": "application/json"}
    assert told(answer)["error"]["code"] == "not_found"


def test_too_many_bad_calls_are_told_to_each_in_its_words(
    catalog: Catalog, asker: Asker, llm: PublicationRecord
) -> None:
    """They are counted together, whichever API they speak."""
    _, key = catalog.key(llm)
    for turn in range(60):
        path = MESSAGES if turn % 2 else "/v1/chat/completions"
        assert status(asker.ask(asked(key, path, model="nothing"))) == 404
    for request_id in (ID, OTHER_ID):
        answer = asker.ask(asked(key, model="nothing", request_id=request_id))
        said = told(answer)
        assert (status(answer), said["error"]["type"], said["request_id"]) == (429, "rate_limit_error", request_id)
        assert said["error"]["details"]["reason"] == "too_many_errors"
        plain = asker.ask(asked(key, "/v1/chat/completions", model="nothing", request_id=request_id))
        assert (status(plain), told(plain)["error"]["reason"]) == (429, "too_many_errors")
    assert status(asker.ask(asked(key))) == 200


def test_a_traditional_model_has_no_api_of_anthropics(catalog: Catalog, asker: Asker) -> None:
    """Its paths are its own, whatever they are called."""
    catalog.tenant()
    iris = catalog.publication(model="iris", path="/models/iris")
    _, key = catalog.key(iris, limits=Limits(per_minute=1))
    one = asked(key, "/models/iris/messages", of=iris)
    assert "request-id" not in headers(asker.ask(one))
    assert told(asker.ask(one))["error"]["code"] == "rate_limit_exceeded"


def test_counting_tokens_costs_a_call_and_no_token(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """``messages/count_tokens`` is open as it is, and holds nothing."""
    _, key = catalog.key(llm, limits=Limits(per_minute=10, tokens_per_hour=1_000))
    answer = asker.ask(asked(key, f"{MESSAGES}/count_tokens"))
    said = headers(answer)
    assert status(answer) == 200
    assert said["anthropic-ratelimit-requests-remaining"] == "9"
    assert said["anthropic-ratelimit-tokens-remaining"] == "1000"
    assert "reservation" not in answer.dynamic_metadata.fields


# Lists


def listed(key: str | None, path: str = "/v1/models", query: str = "", *, version: bool = True) -> CheckRequest:
    """Ask for models, as Anthropic's clients do."""
    return asked(key, path + (f"?{query}" if query else ""), method="GET", version=version)


@pytest.fixture
def many(catalog: Catalog) -> list[PublicationRecord]:
    """Twenty-five models of the tenant's, a to y, and one of another's."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    own = [catalog.publication(model=chr(97 + number), path=f"/m/{number}", **LLM) for number in range(25)]
    both = ("tenant-a", "tenant-b")
    foreign = catalog.publication("tenant-b", "z", path="/m/z", allowed_tenants=both, aliases=("claude",), **LLM)
    catalog.host(*own, foreign)
    return [*own, foreign]


def test_models_are_told_in_the_words_of_who_asks(
    catalog: Catalog, asker: Asker, many: list[PublicationRecord]
) -> None:
    """Anthropic's where the call names its version, else OpenAI's; by one price."""
    _, key = catalog.key(*many[:2], many[-1])
    answer = asker.ask(listed(key))
    said = told(answer)
    assert (status(answer), headers(answer)["request-id"]) == (200, ID)
    assert {**said, "data": None} == {"data": None, "has_more": False, "first_id": "a", "last_id": "tenant-b/claude"}
    assert [card["id"] for card in said["data"]] == ["a", "b", "tenant-b/z", "tenant-b/claude"]
    assert said["data"][0] == {
        "type": "model",
        "id": "a",
        "display_name": "a",
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
    }
    plain = asker.ask(listed(key, version=False))
    assert (told(plain)["object"], "request-id" in headers(plain)) == ("list", False)
    assert headers(answer)["ratelimit"].split(";")[1] == "r=59"
    assert headers(plain)["ratelimit"].split(";")[1] == "r=58"


def test_pages(catalog: Catalog, asker: Asker, many: list[PublicationRecord]) -> None:
    """Twenty at once unless told; the next page begins behind the last name, the one before ends before the first."""
    _, key = catalog.key(*many)

    def page(query: str) -> tuple[list[str], bool]:
        said = told(asker.ask(listed(key, query=query)))
        ids = [card["id"] for card in said["data"]]
        assert (said["first_id"], said["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, said["has_more"]

    first, has_more = page("")
    assert (first, has_more) == ([chr(97 + number) for number in range(20)], True)
    assert page("after_id=t") == (["u", "v", "w", "x", "y", "tenant-b/z", "tenant-b/claude"], False)
    assert page("limit=3&before_id=u") == (["r", "s", "t"], True)
    assert page("limit=1000")[1] is False
    assert page("after_id=tenant-b%2Fclaude") == ([], False)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after_id=nothing", "before_id=a&after_id=b"])
def test_a_page_that_cannot_be_is_400(
    catalog: Catalog, asker: Asker, many: list[PublicationRecord], query: str
) -> None:
    """In Anthropic's words, by the field; who speaks OpenAI's API is not asked for pages."""
    _, key = catalog.key(*many[:2])
    answer = asker.ask(listed(key, query=query))
    said = told(answer)
    assert (status(answer), said["error"]["type"], said["request_id"]) == (400, "invalid_request_error", ID)
    assert said["error"]["details"]["param"] in query
    assert answer.dynamic_metadata["reason"] == "field_invalid"
    assert status(asker.ask(listed(key, query=query, version=False))) == 200


def test_one_model(catalog: Catalog, asker: Asker, many: list[PublicationRecord]) -> None:
    """By its name; what the key may not call is refused in Anthropic's words."""
    _, key = catalog.key(many[0])
    assert told(asker.ask(listed(key, "/v1/models/a")))["display_name"] == "a"
    for name, kind in (("b", "permission_error"), ("nothing", "not_found_error")):
        assert told(asker.ask(listed(key, f"/v1/models/{name}")))["error"]["type"] == kind
    assert told(asker.ask(listed(None)))["error"]["type"] == "authentication_error"


def test_a_models_own_path_lists_it_in_these_words_too(catalog: Catalog, asker: Asker, llm: PublicationRecord) -> None:
    """One name, with nothing behind it."""
    _, key = catalog.key(llm)
    said = told(asker.ask(asked(key, f"{llm.path}/models", of=llm, method="GET")))
    assert ([card["id"] for card in said["data"]], said["has_more"]) == (["llm"], False)
