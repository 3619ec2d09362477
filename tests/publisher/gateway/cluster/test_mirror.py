"""Publications as ConfigMaps: what they are called, where they lie, what they say, and what they never hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from catalog.records import ContextFrom, Limits, TokenPolicy
from publisher.gateway.cluster.mirror import Front, homes, mirror, mirror_name, mirrors
from tests.e2e.proxy import HOST, openai, publication


def address(host: str, path: str) -> str:
    """Where callers find a publication."""
    return f"https://{host}{path}"


def namespace(name: str, tenant: str | None) -> dict[str, Any]:
    """A namespace as the API has it."""
    return {"metadata": {"name": name, "labels": {"tollkeeper.dev/tenant": tenant} if tenant else None}}


def test_a_publication_says_what_the_guide_asks_for_and_no_secret() -> None:
    """All of it, as text; neither the key's id nor the free metadata."""
    record = publication(
        "0a1uid",
        "/models/my-model",
        model="my-model",
        key_id="0a1thekey",
        allowed_tenants=("tenant-a", "tenant-b"),
        limits=Limits(burst=10, per_minute=100, per_hour=5_000),
        metadata={"contact": "somebody"},
    )
    made = mirror(record, "team-a", Front("my-gateway", address))
    assert made["metadata"] == {
        "name": "published-model-my-model",
        "namespace": "team-a",
        "labels": {
            "app.kubernetes.io/managed-by": "tollkeeper",
            "tollkeeper.dev/gateway": "my-gateway",
            "tollkeeper.dev/publication": "0a1uid",
            "tollkeeper.dev/tenant": "tenant-a",
        },
    }
    limits = {"burstLimit": 10, "requestsPerHour": 5000, "requestsPerMinute": 100, "tokensPerHour": None}
    assert json.loads(made["data"].pop("rateLimiting")) == limits
    assert json.loads(made["data"].pop("publish.json"))["config"]["rateLimiting"] == limits
    assert made["data"] == {
        "uid": "0a1uid",
        "modelName": "my-model",
        "modelId": "my-model",
        "tenantId": "tenant-a",
        "modelType": "traditional",
        "publicHostname": HOST,
        "externalPath": "/models/my-model",
        "externalUrl": f"https://{HOST}/models/my-model",
        "allowedTenants": "tenant-a tenant-b",
        "statusPath": "/api/models/my-model/publish?tenantId=tenant-a",
    }
    assert "thekey" not in json.dumps(made)
    assert "somebody" not in json.dumps(made)


def test_only_openai_publications_tell_of_tokens() -> None:
    """Others have none to hold back."""
    told = [
        json.loads(mirror(one, "n", Front("tollkeeper", address))["data"]["publish.json"]) for one in _one_of_each()
    ]
    own = ["allowBackground", "allowedEndpoints", "tokens"]
    assert [sorted(one["config"].keys() & set(own)) for one in told] == [[], own]


def test_a_context_that_nobody_gave_is_left_to_be_told_again() -> None:
    """Else what a server told would be a setting of whoever restores the backup."""
    told: list[Any] = []
    for source in ContextFrom:
        record = structs.replace(openai("u2", "/v1/models/b"), tokens=TokenPolicy(4_096, context_tokens_from=source))
        text = mirror(record, "n", Front("tollkeeper", address))["data"]["publish.json"]
        told.append(json.loads(text)["config"]["tokens"].get("contextTokens"))
    assert dict(zip(ContextFrom, told, strict=True)) == {
        ContextFrom.SETTING: 4_096,
        ContextFrom.SERVER: None,
        ContextFrom.DEFAULT: None,
    }


def _one_of_each() -> tuple[Any, Any]:
    return publication("u1", "/models/a"), openai("u2", "/v1/models/b")


@pytest.mark.parametrize("model", ["my-model", "m" * 63, "llama-3.1-8b", "1"])
def test_a_models_name_is_in_its_mirrors_name(model: str) -> None:
    """The guide greps for it."""
    assert mirror_name(model) == f"published-model-{model}"


@pytest.mark.parametrize("model", ["Llama_3", "A", "x.-y"])
def test_a_name_that_no_config_map_can_have_is_told_apart(model: str) -> None:
    """It still begins alike, is a name, and no two models share one."""
    name = mirror_name(model)
    assert name.startswith("published-model-")
    assert name == name.lower()
    assert not set(name) & set("_.")
    assert name != mirror_name(model.lower() + "x")
    assert mirror_name("a_b") != mirror_name("a-b")


def test_a_tenants_mirrors_lie_in_its_first_namespace_by_name() -> None:
    """The others are told of; what nobody's label names is nobody's."""
    found, faults = homes([namespace("b", "tenant-a"), namespace("a", "tenant-a"), namespace("c", None)])
    assert found == {"tenant-a": "a"}
    assert faults == ("namespace b: tenant tenant-a's publications are mirrored in a only",)


def test_a_tenant_without_a_namespace_has_no_mirrors() -> None:
    """There is no place for them."""
    records = [publication("u2", "/b"), publication("u1", "/a"), publication("u3", "/c", tenant="elsewhere")]
    made = mirrors(records, {"tenant-a": "a"}, Front("tollkeeper", address))
    assert [one["metadata"]["name"] for one in made] == ["published-model-u1", "published-model-u2"]
