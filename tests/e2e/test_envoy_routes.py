"""Routes through a real Envoy: which server a call reaches, under which path, and what Check was told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from extauth import edge
from extauth.request import routed
from publisher.envoy import files as envoy_files
from tests.e2e.proxy import (
    HOST,
    Envoy,
    Gate,
    Upstream,
    admitted,
    kserve_v2,
    openai,
    options_for,
    publication,
    request_fields,
    route_fields,
    short_folder,
    stripped,
)

OTHER_HOST = "other.example.test"


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Envoy, Gate]]:
    """One Envoy for all tests here: traditional, openai and plain publications on two hosts."""
    with (
        short_folder() as folder,
        Gate(folder) as gate,
        Upstream("iris") as iris,
        Upstream("llm") as llm,
        Upstream("plain") as plain,
        Upstream("inner") as inner,
    ):
        gate.models = {(HOST, "llm"): "llm", (HOST, "chat"): "chat"}
        envoy = Envoy(options_for(folder, gate.target))
        envoy.publish(
            [
                publication("iris", "/models/iris", iris.url),
                stripped("plain", "/models/plain", plain.url),
                stripped("inner", "/models/plain/inner", inner.url),
                kserve_v2("tensor", "/models/tensor", iris.url),
                openai("llm", "/v1/models/llm", llm.url),
                openai("chat", "/v1/models/chat", plain.url),
                publication("iris-other", "/models/iris", plain.url, host=OTHER_HOST),
            ]
        )
        with envoy:
            yield envoy, gate


@pytest.fixture
def envoy(parts: tuple[Envoy, Gate]) -> Envoy:
    """The Envoy."""
    return parts[0]


@pytest.fixture
def gate(parts: tuple[Envoy, Gate]) -> Gate:
    """The gate, with nothing remembered."""
    parts[1].payloads.clear()
    parts[1].answer = None
    return parts[1]


@pytest.mark.parametrize(
    ("path", "upstream", "upstream_path"),
    [
        ("/models/iris", "iris", "/v1/models/iris"),
        ("/models/iris/predict", "iris", "/v1/models/iris:predict"),
        ("/models/iris/explain?deep=1", "iris", "/v1/models/iris:explain?deep=1"),
        ("/models/plain", "plain", "/"),
        ("/models/plain/", "plain", "/"),
        ("/models/plain/score?x=%2F", "plain", "/score?x=%2F"),
        ("/models/plain/inner", "inner", "/"),
        ("/models/plain/inner/score", "inner", "/score"),
        ("/models/plain/innermost", "plain", "/innermost"),
        ("/v1/models/llm/chat/completions", "llm", "/v1/chat/completions"),
        ("/v1/models/llm/models", "llm", "/v1/models"),
    ],
)
def test_a_path_leads_to_its_publication(
    envoy: Envoy, gate: Gate, path: str, upstream: str, upstream_path: str
) -> None:
    """Check is told the publication whose server is reached, and the server sees the path it serves."""
    reply = envoy.get(path)
    assert (reply.upstream, reply.upstream_path) == (upstream, upstream_path)
    assert [route_fields(request) for request in gate.requests] == [{"publication": upstream}]
    assert reply.upstream_headers("x-tollkeeper-publication") == [upstream]


@pytest.mark.parametrize(
    ("path", "upstream_path"),
    [
        ("/models/tensor", "/v2/models/tensor"),
        ("/models/tensor/infer?a=b", "/v2/models/tensor/infer?a=b"),
        ("/models/tensor/ready", "/v2/models/tensor/ready"),
        ("/models/tensor/generate_stream", "/v2/models/tensor/generate_stream"),
    ],
)
def test_an_open_inference_server_sees_its_own_paths(envoy: Envoy, gate: Gate, path: str, upstream_path: str) -> None:
    """The model's paths of KServe v2, decided as its publication."""
    reply = envoy.get(path)
    assert (reply.upstream, reply.upstream_path) == ("iris", upstream_path)
    assert [route_fields(request) for request in gate.requests] == [{"publication": "tensor"}]


@pytest.mark.parametrize(
    "path",
    [
        "/models",
        "/models/",
        "/models/iris:predict",
        "/models/irises",
        "/models/IRIS",
        "/models/plainer",
        "/v1",
    ],
)
def test_an_unknown_path_is_404_for_everyone(envoy: Envoy, gate: Gate, path: str) -> None:
    """No server is reached and Check is not asked: there is no route that could lead anywhere."""
    reply = envoy.get(path, "x-api-key: whatever")
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["error"]["code"] == "not_found"
    assert gate.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/models/iris/",
        "/models/iris/predict/",
        "/models/iris/predict/x",
        "/models/iris/metadata",
        "/models/tensor/predict",
        "/models/tensor/trace/setting",
        "/models/tensor/infer/",
    ],
)
def test_what_else_lies_below_a_kserve_model_is_checks_to_read(envoy: Envoy, gate: Gate, path: str) -> None:
    """It may be in KServe's own words; where Check writes no other path, no server is reached, whatever it answers."""
    gate.answer = lambda _request: admitted({})
    reply = envoy.post(path, b"{}", "x-api-key: whatever")
    assert (reply.status, reply.upstream) == (404, "")
    (asked,) = gate.requests
    assert route_fields(asked) == {"publication": path.split("/")[2], "kserve": "yes"}
    assert not asked.attributes.request.http.raw_body


@pytest.mark.parametrize("host", ["unknown.test", "", "localhost", "127.0.0.1", f"x.{HOST}", f"{HOST}.evil.test"])
def test_an_unknown_host_is_404_for_everyone(envoy: Envoy, gate: Gate, host: str) -> None:
    """A path is nothing without its host."""
    assert envoy.get("/models/iris", host=host).status in {400, 404}
    assert gate.requests == []


@pytest.mark.parametrize(
    "host", [HOST, HOST.upper(), f"{HOST}:80", f"{HOST}:12345", f"{HOST}.", f"{HOST.title()}.:8080"]
)
def test_a_host_is_known_however_it_is_written(envoy: Envoy, host: str) -> None:
    """Case, a port and the trailing dot make no difference."""
    assert envoy.get("/models/iris", host=host).upstream == "iris"


def test_the_same_path_on_another_host_is_another_publication(envoy: Envoy, gate: Gate) -> None:
    """Hosts are apart."""
    assert envoy.get("/models/iris", host=OTHER_HOST).upstream == "plain"
    assert route_fields(gate.requests[0]) == {"publication": "iris-other"}


@pytest.mark.parametrize("model", ["llm", "chat"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/responses/42/cancel"])
def test_the_body_chooses_among_a_hosts_openai_models(envoy: Envoy, gate: Gate, model: str, path: str) -> None:
    """Check names the publication, and the call goes to its server with the path as it is."""
    reply = envoy.post(path, json.dumps({"model": model}).encode())
    assert reply.upstream == {"llm": "llm", "chat": "plain"}[model]
    assert reply.upstream_path == path
    assert reply.upstream_headers("x-tollkeeper-publication") == [model]
    assert route_fields(gate.requests[0]) == {"openai_host": HOST}


def test_a_model_that_check_does_not_name_ends_in_404(envoy: Envoy, gate: Gate) -> None:
    """Also when Check lets the call pass without naming a publication."""
    assert envoy.post("/v1/chat/completions", b'{"model":"nothing"}').json["error"]["message"] == "by the gate"
    gate.answer = lambda _: edge.CheckResponse(ok_response={})
    try:
        reply = envoy.post("/v1/chat/completions", b'{"model":"llm"}')
    finally:
        gate.answer = None
    assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
    assert reply.json["error"]["code"] == "model_not_found"


def test_a_host_without_openai_models_has_no_openai_entry(envoy: Envoy, gate: Gate) -> None:
    """Nothing below /v1 exists there."""
    assert envoy.post("/v1/chat/completions", b'{"model":"llm"}', host=OTHER_HOST).status == 404
    assert gate.requests == []


def test_bodies_of_traditional_models_are_not_read(envoy: Envoy, gate: Gate) -> None:
    """The gate is told of bodies where openai publications need it, and nowhere else."""
    reply = envoy.post("/models/iris/predict", b'{"model":"llm"}')
    assert (reply.upstream, reply.json["body_bytes"]) == ("iris", 15)
    assert request_fields(gate.requests[0]) == {}


def test_bodies_on_openai_paths_are_read(envoy: Envoy, gate: Gate) -> None:
    """The path decides the publication; the body's fields reach Check all the same."""
    reply = envoy.post("/v1/models/llm/chat/completions", b'{"model":"chat"}')
    assert reply.upstream == "llm"
    assert request_fields(gate.requests[0]) == {"model": "chat"}


def test_a_header_of_checks_cannot_move_a_call_that_its_path_decided(envoy: Envoy, gate: Gate) -> None:
    """Even if Check named another publication, the path's own route is chosen again."""
    gate.answer = lambda _: edge.CheckResponse(
        ok_response={"headers": [{"header": {"key": "x-tollkeeper-publication", "value": "chat"}}]}
    )
    try:
        reply = envoy.get("/v1/models/llm/chat/completions")
    finally:
        gate.answer = None
    assert reply.upstream == "llm"
    assert reply.upstream_headers("x-tollkeeper-publication") == ["llm"]


def test_the_gate_and_the_files_use_the_same_names() -> None:
    """Metadata namespaces and the method are one contract."""
    assert routed.ROUTE_NAMESPACE == envoy_files.ROUTE_NAMESPACE
