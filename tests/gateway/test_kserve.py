"""KServe's paths on the real Envoy Gateway: Check finds the model by the name in the path, and writes the path anew."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from gatewaystack import Machine, both_modes
from kserveserver import KServeServer, kserve_server

from tests.e2e.proxy import Reply

pytestmark = [pytest.mark.gateway, both_modes, pytest.mark.timeout(300)]

TEAM = "path-team"
HOST = "path.example.test"
NUMBERS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}]}


@pytest.fixture(scope="module")
def server() -> Iterator[KServeServer]:
    """It knows ``digits-v7`` alone."""
    with kserve_server("digits-v7", "v2") as made:
        yield made


@pytest.fixture(scope="module")
def key(gateway: Machine, server: KServeServer) -> Iterator[str]:
    """A key for iris (v1), digits (v2, by another name of its server's) and an openai model, all on one host."""
    gateway.operator.ask("POST", "/api/tenants", {"tenantId": TEAM})
    named = {"name": "digits", "tenantId": TEAM, "url": server.url, "modelId": server.model}
    gateway.operator.must("POST", "/api/models", named)
    urls = {"iris": gateway.servers["kserve"], "digits": server.url, "chat": gateway.servers["openai"]}
    for model, url in urls.items():
        gateway.publish(TEAM, model, url, live=False, publicHostname=HOST)
    for model in urls:
        gateway.await_live(TEAM, model)
    asked = {"tenantId": TEAM, "name": "all", "publications": [*urls]}
    text: str = gateway.operator.must("POST", "/api/keys", asked)["apiKey"]
    yield text
    for model in urls:
        gateway.unpublish(TEAM, model)


def call(gateway: Machine, key: str, path: str, body: object = None) -> Reply:
    """Get, or post JSON."""
    headers = (f"x-api-key: {key}",)
    if body is None:
        return gateway.get(path, *headers, host=HOST)
    return gateway.post(path, json.dumps(body).encode(), *headers, host=HOST)


@pytest.mark.parametrize("base", ["", "/models/iris"])
def test_v1_by_name(gateway: Machine, key: str, base: str) -> None:
    """On the host and below the publication's path: a prediction, the model's status, and that a server is there."""
    predicted = call(gateway, key, f"{base}/v1/models/iris:predict?x=1", {"instances": [[1, 2, 3, 4]]})
    assert predicted.status == 200, predicted
    assert predicted.json["predictions"]
    assert call(gateway, key, f"{base}/v1/models/iris").json == {"name": "iris", "ready": True}
    assert call(gateway, key, f"{base}/").json == {"status": "alive"}


@pytest.mark.parametrize("base", ["", "/models/digits"])
@pytest.mark.parametrize("said", ["digits", "digits-v7"])
def test_v2_by_name(gateway: Machine, key: str, server: KServeServer, base: str, said: str) -> None:
    """The server hears its own name, and whatever query came."""
    inferred = call(gateway, key, f"{base}/v2/models/{said}/versions/3/infer?x=1", NUMBERS)
    assert (inferred.status, inferred.json["outputs"][0]["data"]) == (200, [1.5, 2.5])
    assert server.last.path == "/v2/models/digits-v7/versions/3/infer?x=1"
    assert call(gateway, key, f"{base}/v2/models/{said}/ready").json["ready"] is True
    assert call(gateway, key, f"{base}/v2/health/live").json == {"live": True}
    assert call(gateway, key, f"{base}/v2").json["name"] == "tollkeeper"


def test_what_the_name_is_decides(gateway: Machine, key: str) -> None:
    """One path, OpenAI's card or KServe's status; the list is OpenAI's, and bodies of either are read or left alone."""
    assert call(gateway, key, "/v1/models/chat").json["object"] == "model"
    assert call(gateway, key, "/v1/models/iris").json["ready"] is True
    assert [one["id"] for one in call(gateway, key, "/v1/models").json["data"]] == ["chat"]
    chat = {"model": "chat", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}
    assert call(gateway, key, "/v1/chat/completions", chat).status == 200


def test_nobody_else_gets_there(gateway: Machine, key: str, server: KServeServer) -> None:
    """Not without a key, nor by what Check alone may write, nor by another's name."""
    heard = len(server.heard)
    assert call(gateway, "", "/v2/models/digits/infer", NUMBERS).status == 401
    assert call(gateway, key, "/v2/models/nobody/infer", NUMBERS).status == 404
    assert call(gateway, key, "/v2/models/chat/infer", NUMBERS).status == 403
    uid = server.last.headers["x-tollkeeper-publication"]
    for path in ("/:kserve/v2/models/digits-v7/infer", "/:kserve"):
        forged = gateway.post(path, b"{}", f"x-api-key: {key}", f"x-tollkeeper-publication: {uid}", host=HOST)
        assert forged.status == 404, forged
    assert len(server.heard) == heard
