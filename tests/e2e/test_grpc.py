"""Inference by gRPC on the whole machine: grpcio through a real Envoy to a server of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
import requests
from upclient import Operator
from upmachine import UpMachine, until

from tests.e2e import http2
from tests.support.inference.ground import (
    HIDDEN,
    IRIS,
    PATIENCE_S,
    TEAM,
    Ground,
    Metadata,
    details,
    infer,
    reason,
    refused,
    trailers,
)
from tests.support.inference.protocol import messages, services
from tests.support.inference.server import InferenceServer, inference_server

pytestmark = pytest.mark.timeout(120)

Code = grpc.StatusCode
SERVICE = "/inference.GRPCInferenceService"
TEN_MB = 10 * 1024 * 1024
UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture(scope="module")
def server() -> Iterator[InferenceServer]:
    """Of both tenants."""
    with inference_server() as made:
        yield made


@pytest.fixture(scope="module")
def ground(up: UpMachine, server: InferenceServer) -> Iterator[Ground]:
    """Published models."""
    made = Ground(up, Operator(up), server)
    try:
        made.build()
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="module")
def key(ground: Ground) -> str:
    """Of grpc-iris, with plenty."""
    return ground.key()


@pytest.fixture(scope="module")
def stub(ground: Ground) -> Iterator[Any]:
    """A client by h2c."""
    with ground.dial("", *UNBOUNDED) as made:
        yield made


def named(key: str, *more: tuple[str, str | bytes], model: str = IRIS) -> Metadata:
    """The metadata of a good call."""
    return (("x-api-key", key), ("x-model", model), *more)


# What passes


@pytest.mark.parametrize("carrier", ["x-api-key", "authorization", "api-key"])
@pytest.mark.parametrize("header", ["x-model", "seldon-model", "mm-vmodel-id", "mm-model-id"])
def test_a_model_is_called_by_any_carrier_and_any_name(
    stub: Any, server: InferenceServer, key: str, carrier: str, header: str
) -> None:
    """The server hears whose call it is, and nothing of the key; budgets stand in the answer's metadata."""
    value = f"Bearer {key}" if carrier == "authorization" else key
    asked = infer(raw_input_contents=[b"\0\1"])
    answer, call = stub.ModelInfer.with_call(asked, metadata=((carrier, value), (header, IRIS)), timeout=PATIENCE_S)
    assert (answer.model_name, list(answer.raw_output_contents)) == ("iris", [b"\0\1"])
    assert "x-ratelimit-remaining" in dict(call.initial_metadata())
    assert server.last.metadata["x-tenant-id"] == TEAM
    assert key not in str(server.last.metadata)
    assert carrier not in server.last.metadata


def test_every_method_of_the_protocol_is_served(stub: Any, server: InferenceServer, key: str) -> None:
    """Health and metadata too, each as one call."""
    md = named(key)
    assert stub.ServerLive(messages.ServerLiveRequest(), metadata=md, timeout=PATIENCE_S).live
    assert stub.ServerReady(messages.ServerReadyRequest(), metadata=md, timeout=PATIENCE_S).ready
    assert stub.ModelReady(messages.ModelReadyRequest(name="iris"), metadata=md, timeout=PATIENCE_S).ready
    assert stub.ServerMetadata(messages.ServerMetadataRequest(), metadata=md, timeout=PATIENCE_S).name == "stub"
    found = stub.ModelMetadata(messages.ModelMetadataRequest(name="iris"), metadata=md, timeout=PATIENCE_S)
    assert found.inputs[0].shape == [-1, 4]
    answers = list(stub.ModelStreamInfer(iter([infer(id="1"), infer(id="2")]), metadata=md, timeout=PATIENCE_S))
    assert [one.infer_response.id for one in answers] == ["1", "2"]
    assert [one.method for one in server.asked[-6:]] == [
        *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelStreamInfer")
    ]


async def test_asyncios_client_is_served(ground: Ground, key: str) -> None:
    """Many calls of one connection at once, and a stream in which neither side waits for the other's end."""
    async with grpc.aio.insecure_channel(ground.where, options=ground.options()) as channel:
        client = services.GRPCInferenceServiceStub(channel)
        calls = (client.ModelInfer(infer(id=str(one)), metadata=named(key), timeout=PATIENCE_S) for one in range(8))
        assert [one.id for one in await asyncio.gather(*calls)] == [str(one) for one in range(8)]
        stream = client.ModelStreamInfer(metadata=named(key), timeout=PATIENCE_S)
        for number in range(3):
            await stream.write(infer(id=str(number)))
            assert (await stream.read()).infer_response.id == str(number)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_of_ten_megabytes_passes_packed_or_not(stub: Any, key: str, compression: grpc.Compression) -> None:
    """The gateway keeps none of it; how large a message may be is between client and server."""
    asked = infer(raw_input_contents=[bytes(TEN_MB)])
    plain = stub.ModelInfer(asked, metadata=named(key), timeout=PATIENCE_S)
    packed = stub.ModelInfer(asked, metadata=named(key), timeout=PATIENCE_S, compression=compression)
    assert len(plain.raw_output_contents[0]) == len(packed.raw_output_contents[0]) == TEN_MB


def test_what_the_server_says_comes_back_as_it_is(stub: Any, key: str) -> None:
    """Status and message, in letters of any language."""
    error = refused(lambda: stub.ModelInfer(infer("bad"), metadata=named(key), timeout=PATIENCE_S))
    assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "the model says no: ä")


def test_a_host_of_its_own_names_its_model(ground: Ground, server: InferenceServer) -> None:
    """No metadata is needed there until something else is published; a wrong name is none all the same."""
    host = "iris.grpc.example"
    ground.publish("own-host", publicHostname=host, externalPath="/any/path")
    key = ground.key("own-host")
    with ground.dial(host) as stub:
        assert stub.ModelInfer(infer(), metadata=(("x-api-key", key),), timeout=PATIENCE_S).model_name == "iris"
        path = named(key, model="/any/path")
        assert stub.ModelInfer(infer(), metadata=path, timeout=PATIENCE_S).model_name == "iris"
        wrong = named(key, model="other")
        assert refused(lambda: stub.ModelInfer(infer(), metadata=wrong, timeout=PATIENCE_S)).code() is Code.NOT_FOUND
        ground.publish("own-host-too", publicHostname=host)
        keys = named(ground.key("own-host-too"), model="own-host-too")
        assert stub.ModelInfer(infer(), metadata=keys, timeout=PATIENCE_S)
        nobody = (("x-api-key", key),)
        assert refused(lambda: stub.ModelInfer(infer(), metadata=nobody, timeout=PATIENCE_S)).code() is Code.NOT_FOUND
    with ground.dial() as stub:
        assert refused(lambda: stub.ModelInfer(infer(), metadata=path, timeout=PATIENCE_S)).code() is Code.NOT_FOUND
    assert server.last.method == "ModelInfer"


# What is refused


def test_a_call_without_a_good_key_is_unauthenticated(stub: Any, server: InferenceServer) -> None:
    """With the same words as by HTTP, and details that programs read."""
    before = len(server.asked)
    for md in (
        (("x-model", IRIS),),
        named("tk_0000000000000000000_wrong"),
        named("", ("x-api-key-bin", b"any"), ("anthropic-version", "2023-06-01")),
    ):
        error = refused(lambda md=md: stub.ModelInfer(infer(), metadata=md, timeout=PATIENCE_S))  # type: ignore[misc]
        assert (error.code(), reason(error)) == (Code.UNAUTHENTICATED, "unauthenticated")
        assert "X-API-Key" in error.details()
        info, wait_s = details(error)
        assert (info.reason, info.domain, wait_s) == ("UNAUTHENTICATED", "tollkeeper", 0)
        assert info.metadata["code"] == "invalid_api_key"
    assert len(server.asked) == before


def test_another_tenants_model_is_not_found_as_none_at_all(stub: Any, key: str) -> None:
    """Alike to the last word."""
    errors = [refused(lambda: stub.ModelInfer(infer(), metadata=named(key, model=HIDDEN), timeout=PATIENCE_S))]
    errors += [refused(lambda: stub.ModelInfer(infer(), metadata=named(key, model="none"), timeout=PATIENCE_S))]
    assert {one.code() for one in errors} == {Code.NOT_FOUND}
    assert len({(one.details(), reason(one)) for one in errors}) == 1
    assert _said(errors[0]) == _said(errors[1])


@pytest.mark.parametrize("part", ["", "/predict", "/v2/models/x/infer"])
def test_who_says_grpc_finds_no_other_tenants_model_by_http(ground: Ground, key: str, part: str) -> None:
    """At its own path, where calls are not gRPC's, as at one where there is none."""
    with grpc.insecure_channel(ground.where, options=ground.options()) as channel:
        errors = [_path(channel, f"/models/{name}{part}", named(key)) for name in ("iris-sample", "none")]
    assert {one.code() for one in errors} == {Code.UNIMPLEMENTED}
    assert _said(errors[0]) == _said(errors[1])


def _said(error: Any) -> tuple[str, dict[str, str | bytes]]:
    """All that a caller hears, but for what names the call, and what is added for pages where there is a route."""
    heard = {**dict(error.initial_metadata() or ()), **trailers(error)}
    return error.details(), {name: heard[name] for name in heard.keys() - {"date", "x-request-id", "vary"}}


def test_a_model_that_the_key_may_not_call_is_denied(ground: Ground, stub: Any) -> None:
    """It is its tenant's, so it is told of."""
    ground.publish("grpc-second")
    only = ground.key("grpc-second")
    error = refused(lambda: stub.ModelInfer(infer(), metadata=named(only), timeout=PATIENCE_S))
    assert (error.code(), reason(error)) == (Code.PERMISSION_DENIED, "not_allowed")
    assert details(error)[0].metadata["code"] == "model_not_allowed"


def test_a_full_budget_says_when_to_come_again(ground: Ground, stub: Any, server: InferenceServer) -> None:
    """Each call counts once, a stream of many messages too, and health as all others."""
    few = named(ground.key(requestsPerMinute=3))
    assert list(stub.ModelStreamInfer(iter([infer()] * 10), metadata=few, timeout=PATIENCE_S))
    assert stub.ServerReady(messages.ServerReadyRequest(), metadata=few, timeout=PATIENCE_S).ready
    assert stub.ModelInfer(infer(), metadata=few, timeout=PATIENCE_S)
    before = len(server.asked)
    for call in (
        lambda: stub.ModelInfer(infer(), metadata=few, timeout=PATIENCE_S),
        lambda: list(stub.ModelStreamInfer(iter([infer()]), metadata=few, timeout=PATIENCE_S)),
    ):
        error = refused(call)
        assert (error.code(), reason(error)) == (Code.RESOURCE_EXHAUSTED, "limited")
        info, wait_s = details(error)
        assert 0 < wait_s < 62
        assert info.metadata["budget"] == "key-minute"
        told = trailers(error)
        assert int(told["retry-after-ms"]) == round(1000 * wait_s)
        assert told["grpc-retry-pushback-ms"] == (told["retry-after-ms"] if wait_s <= 60 else "-1")
        assert told["x-ratelimit-remaining"] == "0"
    assert len(server.asked) == before


def _path(channel: grpc.Channel, path: str, md: Metadata) -> Any:
    return refused(lambda: channel.unary_unary(path)(b"", metadata=md, timeout=PATIENCE_S))


@pytest.mark.parametrize(
    "path",
    [
        f"{SERVICE}/RepositoryIndex",
        f"{SERVICE}/SystemSharedMemoryRegister",
        f"{SERVICE}/ModelInferX",
        f"{SERVICE}/modelinfer",
        f"{SERVICE}/",
        "/inference.Other/ModelInfer",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_other_methods_and_services_are_unimplemented(
    ground: Ground, server: InferenceServer, key: str, path: str
) -> None:
    """Whatever the server has: what changes it, tells of its models or of itself is no caller's."""
    before = len(server.asked)
    with grpc.insecure_channel(ground.where, options=ground.options()) as channel:
        error = _path(channel, path, named(key))
    assert (error.code(), reason(error)) == (Code.UNIMPLEMENTED, "not_served")
    assert "ModelInfer" in error.details()
    assert len(server.asked) == before


@pytest.mark.parametrize(
    "path", ["//inference.GRPCInferenceService/ModelInfer", f"{SERVICE}/../x/{SERVICE}/ModelInfer"]
)
def test_a_path_is_looked_at_as_it_is_written_plainly(ground: Ground, path: str) -> None:
    """Odd spellings lead to where plain ones do, with a key."""
    with grpc.insecure_channel(ground.where, options=ground.options()) as channel:
        assert _path(channel, path, (("x-model", IRIS),)).code() in {Code.UNAUTHENTICATED, Code.UNIMPLEMENTED}


# What is not gRPC


def _http(ground: Ground, content_type: str, key: str, method: str = "POST") -> requests.Response:
    headers = {"Host": ground.host, "X-API-Key": key, "x-model": IRIS, "Content-Type": content_type, "TE": "trailers"}
    url = f"http://{ground.where}{SERVICE}/ModelInfer"
    return requests.request(method, url, data=b"\0\0\0\0\0", headers=headers, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/json", ""],
)
def test_grpc_web_and_what_else_is_not_grpc_is_told_so(
    ground: Ground, server: InferenceServer, key: str, content_type: str
) -> None:
    """In HTTP's words, since such callers read those."""
    before = len(server.asked)
    answer = _http(ground, content_type, key)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["reason"]) == (415, "grpc_required", "not_grpc")
    assert "gRPC-Web" in error["message"]
    assert len(server.asked) == before


def test_grpc_over_http_1_is_told_so(ground: Ground, server: InferenceServer, key: str) -> None:
    """As gRPC's status, in the headers: trailers are not read there. No budget pays for it."""
    before = len(server.asked)
    answer = _http(ground, "application/grpc", key)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "12")
    assert (answer.headers["x-tollkeeper-reason"], answer.content) == ("not_grpc", b"")
    assert "HTTP/2" in requests.utils.unquote(answer.headers["grpc-message"])
    assert _http(ground, "application/grpc", key, method="GET").headers["x-tollkeeper-reason"] == "not_grpc"
    assert len(server.asked) == before


# Keys and metadata


def test_no_copy_of_a_key_reaches_the_server_not_in_bytes_either(stub: Any, server: InferenceServer, key: str) -> None:
    """In metadata of text or bytes, whole, within others or twice; what holds none passes as it was."""
    copies: Metadata = (
        ("x-copy", f"it is {key}"),
        ("x-copy-bin", key.encode()),
        ("authorization-bin", b"Bearer " + key.encode() + b"\xff"),
        ("x-twice-bin", b"no"),
        ("x-twice-bin", b"\0\0" + key.encode()),
        ("x-fine-bin", b"\0\1tk_\xff"),
        ("x-fine", "fine"),
    )
    assert stub.ModelInfer(infer(), metadata=named(key, *copies), timeout=PATIENCE_S)
    got = server.last.metadata
    assert (got["x-fine-bin"], got["x-fine"]) == (b"\0\1tk_\xff", "fine")
    assert key not in str(got)
    assert not {"x-copy", "x-copy-bin", "authorization-bin", "x-twice-bin"} & got.keys()


def test_a_key_in_a_path_is_refused_and_not_told_back(ground: Ground, key: str) -> None:
    """Also where it stands in the place of a method, or of a model's name."""
    with grpc.insecure_channel(ground.where, options=ground.options()) as channel:
        query = _path(channel, f"{SERVICE}/ModelInfer?key={key}", named(key))
        assert (query.code(), reason(query)) == (Code.INVALID_ARGUMENT, "key_in_url")
        for path, model in ((f"{SERVICE}/{key}", IRIS), (f"{SERVICE}/ModelInfer", key)):
            error = _path(channel, path, named(key, model=model))
            assert error.code() in {Code.UNIMPLEMENTED, Code.NOT_FOUND}
            assert key not in f"{error.details()}{error.trailing_metadata()}"


def test_too_many_metadata_are_refused(stub: Any, server: InferenceServer, key: str) -> None:
    """A thousand entries, or forty thousand characters; eighty pass."""
    assert stub.ModelInfer(infer(), metadata=named(key, *((f"x-{n}", "1") for n in range(80))), timeout=PATIENCE_S)
    before = len(server.asked)
    for many in (((f"x-{n}", "1") for n in range(1000)), [("x-long", "x" * 40_000)]):
        error = refused(lambda many=many: stub.ModelInfer(infer(), metadata=named(key, *many), timeout=PATIENCE_S))  # type: ignore[misc]
        assert error.code() is Code.INTERNAL  # Envoy resets such a stream (RST_STREAM), and says no more
    assert len(server.asked) == before
    assert stub.ModelInfer(infer(), metadata=named(key), timeout=PATIENCE_S)


# Time


def test_the_callers_deadline_reaches_the_server_and_is_never_longer_than_ours(
    stub: Any, server: InferenceServer, key: str
) -> None:
    """Of an hour ten minutes are left at the gateway, which the server is not told."""
    assert stub.ModelInfer(infer(), metadata=named(key), timeout=7)
    assert server.last.left_s is not None
    assert 5 < server.last.left_s < 8


def test_a_deadline_ends_the_call_at_the_server_too(stub: Any, server: InferenceServer, key: str) -> None:
    """Within a second of it."""
    server.cancelled.clear()
    error = refused(lambda: stub.ModelInfer(infer("slow"), metadata=named(key), timeout=0.3))
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert server.cancelled.wait(PATIENCE_S)


def test_a_deadline_is_held_where_the_client_forgets_it(ground: Ground, server: InferenceServer, key: str) -> None:
    """Envoy ends a call at the time that ``grpc-timeout`` says, with its own status."""
    server.cancelled.clear()
    headers = (("x-api-key", key), ("x-model", IRIS), ("te", "trailers"), ("grpc-timeout", "300m"))
    message = infer("slow").SerializeToString()
    body = bytes(1) + len(message).to_bytes(4, "big") + message
    port = int(ground.where.rpartition(":")[2])
    begun_s = time.monotonic()
    answer = http2.post(
        port, ground.host, f"{SERVICE}/ModelInfer", body, PATIENCE_S, *headers, content_type="application/grpc"
    )
    assert time.monotonic() - begun_s < 5
    assert (answer.status, answer.headers["grpc-status"]) == (200, "4")
    assert answer.headers["x-tollkeeper-reason"] == "deadline_exceeded"


def test_a_cancelled_call_ends_at_the_server(stub: Any, server: InferenceServer, key: str) -> None:
    """And what it cost stays paid: it was begun."""
    server.cancelled.clear()
    server.running.clear()
    call = stub.ModelInfer.future(infer("slow"), metadata=named(key), timeout=PATIENCE_S)
    assert server.running.wait(PATIENCE_S)
    call.cancel()
    assert server.cancelled.wait(PATIENCE_S)


def test_a_stream_goes_on_when_its_key_is_revoked_and_the_next_does_not_begin(ground: Ground, stub: Any) -> None:
    """A key is asked for when a call begins; ten minutes later it ends at the latest."""
    text = ground.key()
    which = next(one for one in ground.operator.must("GET", f"/api/keys?tenantId={TEAM}")["items"] if one["id"] in text)
    asked: list[Any] = []

    def requests_of() -> Iterator[Any]:
        while True:
            assert until(lambda: bool(asked), PATIENCE_S)
            if (one := asked.pop()) is None:
                return
            yield one

    answers = stub.ModelStreamInfer(requests_of(), metadata=named(text), timeout=PATIENCE_S)
    asked.append(infer(id="before"))
    assert next(answers).infer_response.id == "before"
    ground.operator.must("DELETE", f"/api/keys/{which['id']}")
    asked.append(infer(id="after"))
    assert next(answers).infer_response.id == "after"
    asked.append(None)
    assert list(answers) == []
    error = refused(lambda: stub.ModelInfer(infer(), metadata=named(text), timeout=PATIENCE_S))
    assert error.code() is Code.UNAUTHENTICATED


# A server that is gone


def test_a_server_that_is_gone_is_unavailable(ground: Ground, stub: Any) -> None:
    """Envoy's own answer, in gRPC's form."""
    with inference_server() as dying:
        ground.publish("grpc-dying", url=dying.url)
    error = refused(lambda: stub.ModelInfer(infer(), metadata=named(ground.key("grpc-dying"), model="grpc-dying")))
    assert (error.code(), reason(error)) == (Code.UNAVAILABLE, "upstream_unavailable")
    assert error.details() == "The model's server did not answer."


def test_a_call_is_never_made_twice(ground: Ground, server: InferenceServer, key: str) -> None:
    """Whatever its caller asks Envoy for."""
    wishes = (
        ("x-envoy-retry-on", "5xx,cancelled"),
        ("x-envoy-retry-grpc-on", "invalid-argument"),
        ("x-envoy-max-retries", "3"),
    )
    before = len(server.asked)
    with ground.dial() as stub:
        refused(lambda: stub.ModelInfer(infer("bad"), metadata=named(key, *wishes), timeout=PATIENCE_S))
    assert len(server.asked) == before + 1


def test_usage_counts_calls(ground: Ground, stub: Any) -> None:
    """Each of a key's calls, and none that was refused."""
    text = ground.key(requestsPerMinute=2)
    for _ in range(2):
        stub.ModelInfer(infer(), metadata=named(text), timeout=PATIENCE_S)
    refused(lambda: stub.ModelInfer(infer(), metadata=named(text), timeout=PATIENCE_S))
    listed = ground.operator.must("GET", f"/api/keys?tenantId={TEAM}")["items"]
    which = next(one["id"] for one in listed if one["id"] in text)
    path = f"/api/keys/{which}/usage"
    assert until(lambda: ground.operator.must("GET", path)["totalRequests"] == 2)


def test_what_is_shown_to_copy_works(ground: Ground, key: str) -> None:
    """By curl as it stands; the same names as in Python."""
    shown = ground.operator.must("GET", f"/api/models/{IRIS}/publish?tenantId={TEAM}")
    assert shown["externalUrl"].endswith(SERVICE)
    done = ground.machine.shell(shown["examples"]["curl"], API_KEY=key)
    assert "grpc-status: 0" in done.stdout, done
    assert f"'x-model': '{IRIS}'" in shown["examples"]["python"]
    assert ground.where.rpartition(":")[2] in shown["examples"]["python"]
