"""Models of gRPC: said when they are registered, asked by gRPC, and published on plain Envoy only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authority import Authority

from admin.models.addresses import AddressRules
from admin.models.probing import Auth, Prober
from catalog.keys.keytext import KeyText
from catalog.records import Kind, ModelType, Protocol, PublicationRecord
from tests.support.inference.server import InferenceServer, inference_server

RULES = AddressRules.of(("127.0.0.0/8",), ())


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    """Knows ``iris``."""
    with inference_server("iris") as made:
        yield made


async def register(api: Any, name: str, url: str, **fields: Any) -> Any:
    """Register a model of gRPC."""
    return await api.model(name, url, protocol="grpc", **fields)


async def test_it_is_asked_by_grpc_and_published(api: Any, server: InferenceServer) -> None:
    """Its own server answers ServerReady and ModelReady; the publication says how it is called."""
    made = await register(api, "iris", server.url)
    assert (made.status, made.body["protocol"], made.body["type"], made.body["ready"]) == (
        *(201, "grpc", "traditional", True),
    ), made.text
    assert [(one.method, one.model) for one in server.asked] == [("ServerReady", ""), ("ModelReady", "iris")]
    published = await api.publish("iris")
    assert published.status == 201, published.text
    assert published.body["externalUrl"].endswith("/inference.GRPCInferenceService")
    assert "x-model: iris" in published.body["examples"]["curl"]
    record = await api.services.store.get(Kind.PUBLICATION, published.body["uid"])
    assert isinstance(record, PublicationRecord)
    assert (record.protocol, record.path) == (Protocol.GRPC, "/models/iris")


async def test_a_server_calls_the_model_as_it_likes(api: Any, server: InferenceServer) -> None:
    """A modelId of any letters is asked for; no path has to name it."""
    server.models = ("a b/é",)
    assert (await register(api, "iris", server.url, modelId="a b/é")).body["ready"]
    assert (await api.publish("iris")).status == 201


async def test_one_that_is_not_ready_is_not_published(api: Any, server: InferenceServer) -> None:
    """Why is told, in our own words; a model that the server does not have is not ready."""
    made = await register(api, "other", server.url)
    assert (made.body["ready"], made.body["message"]) == (False, "the server has no model of this name")
    refused = await api.publish("other")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
    server.ready = False
    waiting = await register(api, "iris", server.url)
    assert waiting.body["message"] == "the server says that it is not ready"
    server.ready = True
    assert (await api.ask("GET", "/api/models/iris")).body["ready"]


async def test_envoy_gateway_has_no_way_for_it(api: Any, server: InferenceServer) -> None:
    """Publishing is refused by the field; what is published already by another admin cannot be changed there."""
    await register(api, "iris", server.url)
    api.publisher.speaks_grpc = False
    refused = await api.publish("iris")
    assert (refused.status, refused.faults) == (400, {"protocol": "not_enabled"})
    assert "plain Envoy only" in refused.text
    api.publisher.speaks_grpc = True
    assert (await api.publish("iris")).status == 201


async def test_what_cannot_be_is_told_by_its_field(api: Any, server: InferenceServer) -> None:
    """Another protocol, an openai model, no name; at publishing an alias, and OpenAI's type."""
    body = {"tenantId": "tenant-a", "url": server.url, "protocol": "grpc"}
    for fields, faults in (
        ({"name": "x", "protocol": "http"}, {"protocol"}),
        ({"name": "x", "type": "openai"}, {"protocol"}),
        ({}, {"name"}),
    ):
        answer = await api.ask("POST", "/api/models", body | fields)
        assert (answer.status, answer.faults.keys()) == (400, faults), answer.text
    await register(api, "iris", server.url)
    assert (await api.publish("iris", aliases=["x"])).faults == {"config.aliases": "reserved"}
    assert (await api.publish("iris", modelType="openai")).code == "MODEL_NOT_READY"
    assert (await api.publish("iris", externalPath="/inference.GRPCInferenceService/x")).status == 400


async def test_a_server_that_speaks_http_is_none(api: Any, kserve: str) -> None:
    """And one of gRPC, registered without a word, is asked by HTTP and is none of those either."""
    made = await register(api, "iris", kserve)
    assert (made.body["ready"], made.body["protocol"]) == (False, "grpc")
    assert "no connection by gRPC" in made.body["message"]


async def test_it_moves_to_another_server_of_grpc_only(api: Any, server: InferenceServer, kserve: str) -> None:
    """Live, and asked before."""
    await register(api, "iris", server.url)
    assert (await api.publish("iris")).status == 201
    refused = await api.ask("PATCH", "/api/models/iris", {"url": kserve})
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
    with inference_server("iris") as second:
        moved = await api.ask("PATCH", "/api/models/iris", {"servers": [{"url": server.url}, {"url": second.url}]})
        assert (moved.status, moved.body["ready"]) == (200, True), moved.text
        assert second.asked


async def test_it_is_asked_over_tls_by_what_it_wants(tmp_path: Path) -> None:
    """Its certificate must be of a known authority and of its name."""
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    wants = ("authorization", "Bearer own")
    auth = Auth("authorization", KeyText("Bearer own"))
    with inference_server(certificate=ours.give("models.example"), wants=wants) as server:
        prober = Prober(RULES, upstream_ca=ours.ca)
        assert (await prober.ask_grpc(server.url, "iris", None, auth)).ready
        locked = await prober.ask_grpc(server.url, "iris", None)
        assert (locked.ready, locked.is_locked) == (False, True)
        assert "upstreamAuth" in locked.message
        stranger = await Prober(RULES, upstream_ca=others.ca).ask_grpc(server.url, "iris", None, auth)
        assert "no connection" in stranger.message
    with inference_server(certificate=ours.give("models.example", alone=True), wants=wants) as server:
        assert not (await prober.ask_grpc(server.url, "iris", None, auth)).ready


async def test_addresses_are_held_to_the_rules(server: InferenceServer) -> None:
    """No channel is opened to what may not be asked, nor for longer than is waited."""
    refused = await Prober(AddressRules.of((), ())).ask_grpc(server.url, "iris", None)
    assert (refused.protocol, "loopback" in refused.message) == (Protocol.GRPC, True)
    assert server.asked == []
    silent = await Prober(RULES, timeout_s=0.2).ask_grpc("http://127.0.0.1:9", "iris", ModelType.TRADITIONAL)
    assert not silent.ready
