"""What earlier calls made, asked for through a gate: only where the model's server is one tenant's alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, with_body

from catalog.records import ModelType, Protocol, PublicationRecord
from protos.external_auth_pb2 import CheckRequest

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
PLACES = [("GET", "responses/resp_1"), ("DELETE", "responses/resp_1"), ("GET", "chat/completions/chatcmpl-1")]


@pytest.fixture
def wire() -> Wire:
    """One transport: what is answered here is no matter of the wire."""
    return NATIVE_UNIX


def ask(key: str, publication: PublicationRecord, method: str = "GET", name: str = "responses/resp_1") -> CheckRequest:
    """Ask for something stored, on the publication's own path and without a body."""
    asked = question(key=key, publication=publication, method=method)
    asked.attributes.request.http.path = f"{publication.path}/{name}"
    return asked


def told(asker: Asker, asked: CheckRequest) -> tuple[int, str]:
    """Status, and why."""
    answer = asker.ask(asked)
    reason = "" if status(answer) == 200 else json.loads(answer.denied_response.body)["error"]["reason"]
    return status(answer), reason


@pytest.mark.parametrize(("method", "name"), PLACES)
def test_it_is_reached_on_a_server_of_ones_own(catalog: Catalog, asker: Asker, method: str, name: str) -> None:
    """Every publication that leads to the server is for the same tenant's keys alone."""
    catalog.tenant()
    llm, second = catalog.publication(model="llm", **LLM), catalog.publication(model="second", **LLM)
    catalog.server(llm, second)
    _, key = catalog.key(llm)
    assert told(asker, ask(key, llm, method, name)) == (200, "")


def test_it_is_refused_without_a_record_of_the_server(catalog: Catalog, asker: Asker) -> None:
    """A publication of an earlier release, or one that does not stand in the record, may share its server."""
    catalog.tenant()
    old, other = catalog.publication(model="old", **LLM), catalog.publication(model="other", **LLM)
    _, key = catalog.key(old)
    assert told(asker, ask(key, old)) == (403, "stored_not_allowed")
    catalog.server(other)
    assert told(asker, ask(key, old)) == (403, "stored_not_allowed")


def test_it_is_refused_from_the_answer_on_that_makes_the_server_shared(catalog: Catalog, asker: Asker) -> None:
    """The gate has the record at hand, and yet no call passes on what it said before."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    llm = catalog.publication(model="llm", **LLM)
    server = catalog.server(llm)
    _, key = catalog.key(llm)
    for number in range(20):
        assert told(asker, ask(key, llm)) == (200, "")
        theirs = catalog.publication("tenant-b", f"theirs-{number}", **LLM)
        server = catalog.change(server, callers={**server.callers, theirs.uid: "tenant-b"})
        assert told(asker, ask(key, llm)) == (403, "stored_not_allowed")
        server = catalog.change(server, callers={llm.uid: "tenant-a"})


def test_it_is_refused_to_callers_without_a_key(catalog: Catalog, asker: Asker) -> None:
    """Nobody knows who they are; so it is to keys of the same publication."""
    catalog.tenant()
    free = catalog.publication(model="free", require_api_key=False, **LLM)
    catalog.server(free)
    _, key = catalog.key(free)
    for text in (None, key):
        asked = question(key=text, publication=free, method="GET")
        asked.attributes.request.http.path = f"{free.path}/responses/resp_1"
        assert told(asker, asked) == (403, "stored_not_allowed")


def test_it_is_refused_where_another_tenant_may_call(catalog: Catalog, asker: Asker) -> None:
    """To the owner's keys as well: what they ask for may be the other's."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    shared = catalog.publication(model="shared", allowed_tenants=("tenant-a", "tenant-b"), **LLM)
    catalog.server(shared)
    for tenant in ("tenant-a", "tenant-b"):
        _, key = catalog.key(shared, tenant=tenant)
        assert told(asker, ask(key, shared)) == (403, "stored_not_allowed")


def test_the_shared_entry_asks_for_the_models_own_url(catalog: Catalog, asker: Asker) -> None:
    """Nothing there says whose it is."""
    catalog.tenant()
    llm = catalog.publication(model="llm", **LLM)
    catalog.server(llm)
    catalog.host(llm)
    _, key = catalog.key(llm)
    asked = question(key=key, openai_host=HOST, method="GET")
    asked.attributes.request.http.path = "/v1/responses/resp_1"
    assert told(asker, asked) == (400, "model_missing")
    named = question(key=key, openai_host=HOST, method="DELETE", model="llm")
    named.attributes.request.http.path = "/v1/responses/resp_1"
    assert told(asker, named) == (200, "")


FIELDS: list[dict[str, Any]] = [
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
    {"input_file_id": "file-1"},
]


def both_ways(key: str, llm: PublicationRecord, **fields: Any) -> list[CheckRequest]:
    """A response asked for by the model's own path and by the shared entry."""
    own, shared = question(key=key, publication=llm), question(key=key, openai_host=HOST)
    own.attributes.request.http.path = f"{llm.path}/responses"
    shared.attributes.request.http.path = "/v1/responses"
    return [with_body(one, model="llm", **fields) for one in (own, shared)]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_field_that_names_it_is_held_to_the_same(catalog: Catalog, asker: Asker, fields: dict[str, Any]) -> None:
    """Refused by the field's name, until the server is known to be one tenant's alone; a null names nothing."""
    catalog.tenant()
    llm = catalog.publication(model="llm", **LLM)
    catalog.host(llm)
    _, key = catalog.key(llm)
    for asked in both_ways(key, llm, **fields):
        assert told(asker, asked) == (403, "stored_not_allowed")
    for asked in both_ways(key, llm, **dict.fromkeys(fields)):
        assert told(asker, asked)[0] == 200 or "input" in fields
    catalog.server(llm)
    for asked in both_ways(key, llm, **fields):
        assert told(asker, asked) == (200, "")


def test_background_work_is_refused_unless_allowed(catalog: Catalog, asker: Asker) -> None:
    """By the field's name, both ways."""
    catalog.tenant()
    llm = catalog.publication(model="llm", **LLM)
    catalog.host(llm)
    _, key = catalog.key(llm)
    for asked in both_ways(key, llm, background=True):
        answer = json.loads(asker.ask(asked).denied_response.body)["error"]
        assert (answer["code"], answer["param"]) == ("background_not_allowed", "background")
    for asked in both_ways(key, llm, background=False):
        assert told(asker, asked) == (200, "")
    catalog.change(llm, allow_background=True)
    for asked in both_ways(key, llm, background=True):
        assert told(asker, asked) == (200, "")


def test_an_endpoint_that_is_opened_is_reached_both_ways(catalog: Catalog, asker: Asker) -> None:
    """By the shared entry too, where only the body says whose it is."""
    catalog.tenant()
    llm = catalog.publication(model="llm", **LLM)
    catalog.host(llm)
    _, key = catalog.key(llm)
    asked = both_ways(key, llm)
    for one in asked:
        http = one.attributes.request.http
        http.path = http.path.replace("responses", "load_lora_adapter")
        assert told(asker, one) == (403, "endpoint_not_allowed")
    catalog.change(llm, allowed_endpoints=("load_lora_adapter",))
    for one in asked:
        assert told(asker, one) == (200, "")
    _, unknown = both_ways(key, llm)
    with_body(unknown, model="another").attributes.request.http.path = "/v1/load_lora_adapter"
    assert told(asker, unknown) == (404, "model_not_found")
