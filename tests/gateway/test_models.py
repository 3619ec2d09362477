"""Models chosen by the body: one path for all of a host, and the key's tenant decides what a name means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gatewaystack import Machine, both_modes

from tests.e2e.proxy import Reply

pytestmark = [pytest.mark.gateway, both_modes]

TEAM, OTHERS = "body-team", "body-others"
HOST = "body.example.test"
CODES_PATH = "/models/code"
ALIAS = "meta-llama/Llama-3.1-8B"
CHAT = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}


def rewrites(gateway: Machine) -> bool:
    """Whether its Envoy writes into bodies what the server calls its model."""
    return gateway.parts.wiring.meter != "none"


@pytest.fixture(scope="module")
def keys(gateway: Machine) -> Iterator[dict[str, str]]:
    """Two models of the team's, one with an alias, and two of others': one shared, one hidden. The keys, by tenant."""
    server = gateway.servers["openai"]
    places = [(TEAM, "chat"), (TEAM, "code"), (OTHERS, "shared"), (OTHERS, "hidden")]
    for tenant, model in places:
        allowed = [tenant, TEAM] if model == "shared" else [tenant]
        path = CODES_PATH if model == "code" else f"/v1/models/{tenant}-{model}"
        config: dict[str, Any] = {"publicHostname": HOST, "externalPath": path}
        if model == "chat" and rewrites(gateway):  # else nobody may give one
            config["aliases"] = [ALIAS]
        gateway.publish(tenant, model, server, live=False, authentication={"allowedTenants": allowed}, **config)
    for tenant, model in places:
        gateway.await_live(tenant, model)
    asked = {"tenantId": TEAM, "name": "all", "publications": ["chat", "code", f"{OTHERS}/shared"]}
    yield {
        TEAM: gateway.operator.must("POST", "/api/keys", asked)["apiKey"],
        OTHERS: gateway.operator.must(
            "POST", "/api/keys", {"tenantId": OTHERS, "name": "all", "publications": ["shared", "hidden"]}
        )["apiKey"],
    }
    for tenant, model in places:
        gateway.unpublish(tenant, model)


def ask(gateway: Machine, key: str, model: str, path: str = "/v1/chat/completions", *headers: str) -> Reply:
    """Call a model by its name in the body."""
    body = json.dumps(CHAT | {"model": model}).encode()
    return gateway.post(path, body, f"x-api-key: {key}", *headers, host=HOST)


@pytest.mark.parametrize(
    ("said", "model"),
    [("chat", "chat"), ("code", "code"), (f"{TEAM}/chat", "chat"), (f"{OTHERS}/shared", "shared")],
)
def test_the_body_names_the_model(gateway: Machine, keys: dict[str, str], said: str, model: str) -> None:
    """Two models on one host, and another tenant's by ``tenant/name``: a server hears what it knows, where it can."""
    answer = ask(gateway, keys[TEAM], said)
    assert (answer.status, answer.json["model"]) == (200, model if rewrites(gateway) else said), answer
    assert "x-ratelimit-remaining-tokens" in answer.headers


@pytest.mark.parametrize("said", [ALIAS, f"{TEAM}/{ALIAS}"])
def test_an_alias_is_a_name_where_bodies_are_rewritten(gateway: Machine, keys: dict[str, str], said: str) -> None:
    """Its server hears its own; elsewhere there is no such model."""
    answer = ask(gateway, keys[TEAM], said)
    if rewrites(gateway):
        assert (answer.status, answer.json["model"]) == (200, "chat"), answer
    else:
        assert answer.status == 404


@pytest.mark.parametrize("model", ["nobody", "shared", f"{OTHERS}/hidden", f"{TEAM}/nobody", "../chat", "", "CHAT"])
def test_a_model_that_is_not_for_the_caller_does_not_exist(gateway: Machine, keys: dict[str, str], model: str) -> None:
    """Unknown, another's by a bare name, or hidden: the same 404 (400 where there is no name)."""
    answer = ask(gateway, keys[TEAM], model)
    if model:
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    else:
        assert answer.status == 400


def test_a_name_is_the_callers_own(gateway: Machine, keys: dict[str, str]) -> None:
    """The same body reaches each tenant's own models only."""
    assert ask(gateway, keys[OTHERS], "shared").status == 200
    assert ask(gateway, keys[OTHERS], "chat").status == 404


def test_a_forged_choice_changes_nothing(gateway: Machine, keys: dict[str, str]) -> None:
    """The header that Check sets for the second route is taken off a caller's call before the first."""
    forged = "x-tollkeeper-publication: anything"
    assert ask(gateway, keys[TEAM], "chat", "/v1/chat/completions", forged).json["model"] == "chat"
    assert ask(gateway, keys[TEAM], "nobody", "/v1/chat/completions", forged).status == 404


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_every_spelling_of_json_is_read(gateway: Machine, keys: dict[str, str], kind: str) -> None:
    """A type with a parameter is JSON too."""
    assert ask(gateway, keys[TEAM], "chat", "/v1/chat/completions", f"content-type: {kind}").status == 200


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [("application/json", b"{broken", 400), ("application/json", b"{}", 400), ("text/plain", b"hello", 415)],
)
def test_a_body_without_a_model_is_refused(
    gateway: Machine, keys: dict[str, str], kind: str, body: bytes, status: int
) -> None:
    """Not JSON, no model, another type: told in OpenAI's error shape."""
    headers = (f"x-api-key: {keys[TEAM]}", f"content-type: {kind}")
    answer = gateway.post("/v1/chat/completions", body, *headers, host=HOST)
    assert (answer.status, answer.json["error"]["type"]) == (status, "invalid_request_error")


def test_no_body_is_taken_where_none_is_read(gateway: Machine, keys: dict[str, str]) -> None:
    """A publication's bare path is its model's, asked for by GET; a POST there would pass its server unread."""
    headers = (f"x-api-key: {keys[TEAM]}", "content-type: application/json")
    answer = gateway.post(CODES_PATH, json.dumps(CHAT | {"model": "code"}).encode(), *headers, host=HOST)
    assert (answer.status, answer.json["error"]["code"]) == (403, "endpoint_not_allowed")
    assert ask(gateway, keys[TEAM], "code", f"{CODES_PATH}/chat/completions").status == 200


def test_the_list_of_models_is_the_callers(gateway: Machine, keys: dict[str, str]) -> None:
    """Check answers it: the caller's own by name, others' as ``tenant/name``, and no hidden one."""
    answer = gateway.get("/v1/models", f"x-api-key: {keys[TEAM]}", host=HOST)
    assert {one["id"] for one in answer.json["data"]} == {
        "chat",
        "code",
        f"{OTHERS}/shared",
        *([ALIAS] if rewrites(gateway) else []),
    }


def test_a_stream_passes_as_events(gateway: Machine, keys: dict[str, str]) -> None:
    """Server-sent events come through to their end."""
    body = json.dumps(CHAT | {"model": "chat", "stream": True}).encode()
    answer = gateway.post("/v1/chat/completions", body, f"x-api-key: {keys[TEAM]}", host=HOST)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("root", [CODES_PATH, "/v1"], ids=["own", "shared"])
@pytest.mark.parametrize(
    "name", ["load_lora_adapter", "files", "/FILES/", "%66iles", "fine_tuning/jobs", "responses/r"]
)
def test_what_else_a_server_has_is_refused(gateway: Machine, keys: dict[str, str], root: str, name: str) -> None:
    """By Check, which names the endpoint: no route lists them."""
    answer = ask(gateway, keys[TEAM], "code", f"{root}/{name}")
    assert answer.status == 403, answer
    assert answer.json["error"]["code"] == ("stored_not_allowed" if "responses" in name else "endpoint_not_allowed")
