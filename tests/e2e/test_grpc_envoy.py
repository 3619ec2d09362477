"""What Envoy alone does for gRPC: TLS on both sides, ends of calls, answers without a gate, keys for servers."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from authority import Authority
from msgspec import structs

from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets, create_secrets
from catalog.keys.upstream import sealed
from catalog.records import Protocol, PublicationRecord, Server
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.listener.tls import certificate_file
from publisher.envoy.sink import FilesSink
from publisher.plan import Plan, plan
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, Gate, Upstream, denied, options_for, publication, short_folder
from tests.support.inference.ground import infer, reason, refused
from tests.support.inference.protocol import messages, services
from tests.support.inference.server import InferenceServer, inference_server

Code = grpc.StatusCode
VALUE = "Bearer of-the-servers-own"
MD = (("x-model", "iris"),)
ENDED = {Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED}
"""How a client may hear that a stream was cut off whose answer had begun: Envoy resets it, or the server was faster."""


def by_grpc(uid: str, path: str, url: str, **fields: Any) -> PublicationRecord:
    """A publication of a model of gRPC."""
    return publication(uid, path, url, protocol=Protocol.GRPC, **fields)


def cut_off_after(made: Plan, seconds: int) -> Plan:
    """The plan with other bounds of a call's time than ten minutes."""
    hosts = [
        dataclasses.replace(host, routes=tuple(dataclasses.replace(route, longest_s=seconds) for route in host.routes))
        for host in made.hosts
    ]
    return dataclasses.replace(made, hosts=tuple(hosts))


@dataclass
class Bench:
    """An Envoy with an https listener, its sink, and a server over TLS that wants a key of its own."""

    authority: Authority
    envoy: Envoy
    gate: Gate
    sink: FilesSink
    server: InferenceServer
    plain: InferenceServer
    secrets: Secrets

    @contextmanager
    def dial(self, listener: str = "http") -> Iterator[Any]:
        """A stub."""
        where = f"127.0.0.1:{self.envoy.ports[listener]}"
        options = (("grpc.default_authority", HOST),)
        if listener == "http":
            with grpc.insecure_channel(where, options=options) as channel:
                yield services.GRPCInferenceServiceStub(channel)
            return
        trust = grpc.ssl_channel_credentials(self.authority.ca.read_bytes())
        options = (*options, ("grpc.ssl_target_name_override", HOST))
        with grpc.secure_channel(where, trust, options=options) as channel:
            yield services.GRPCInferenceServiceStub(channel)

    @property
    def wanting(self) -> PublicationRecord:
        """The publication of the server that wants a key."""
        made = by_grpc("iris", "/models/iris", self.server.url)
        return structs.replace(made, upstream_auth=sealed(KeyText(VALUE), "authorization", made, self.secrets))

    async def serve(self, *records: PublicationRecord, longest_s: int = 0) -> None:
        """Bring them into force."""
        made = plan(records)
        assert made.refused == {}
        assert await self.sink.apply(cut_off_after(made, longest_s) if longest_s else made) == {}


def _https(folder: Path, authority: Authority) -> str:
    chain, key = authority.give(HOST)
    made = folder / f"{HOST}.json"
    made.write_text(certificate_file(HOST, chain=chain.read_text(), key=key.read_text()).text())
    return str(made)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An Envoy of the test's own."""
    with short_folder() as folder, Gate(folder) as gate:
        authority = Authority(folder, "ours")
        options = options_for(folder, gate.target, https_port=0, certificates=[_https(folder, authority)])
        envoy = Envoy(dataclasses.replace(options, access_log=str(folder / "access.log")), threads=1)
        secrets = create_secrets(folder / "secrets.json")
        wants = ("authorization", VALUE)
        with (
            inference_server(certificate=authority.give("127.0.0.1"), wants=wants) as server,
            inference_server() as plain,
        ):
            async with EnvoyAdmin(envoy.options.admin_socket) as admin:
                ca = str(authority.ca)
                sink = FilesSink(folder, admin, upstream_ca=ca, timeout_s=PATIENCE_S, secrets=lambda: secrets)
                sink.prepare()
                with envoy:
                    yield Bench(authority, envoy, gate, sink, server, plain, secrets)


async def test_both_sides_may_be_tls_and_servers_get_what_they_want(bench: Bench) -> None:
    """By ALPN h2, with a header of the server's own in place of the caller's; the log tells gRPC's status."""
    await bench.serve(bench.wanting)
    for listener in ("http", "https"):
        with bench.dial(listener) as stub:
            assert stub.ModelInfer(infer(), metadata=(*MD, ("authorization", "Bearer mine")), timeout=PATIENCE_S)
            assert bench.server.last.metadata["authorization"] == VALUE
            assert list(stub.ModelStreamInfer(iter([infer()]), metadata=MD, timeout=PATIENCE_S))
            refused(lambda stub=stub: stub.ModelInfer(infer("bad"), metadata=MD, timeout=PATIENCE_S))  # type: ignore[misc]
    bench.envoy.stop()
    logged = [json.loads(line) for line in (bench.envoy.folder / "access.log").read_text().splitlines()]
    assert [one["grpc_status"] for one in logged] == ["OK", "OK", "InvalidArgument"] * 2
    assert VALUE not in str(logged)


async def test_calls_go_round_several_servers(bench: Bench) -> None:
    """All by gRPC; one that is gone is left out."""
    urls = (bench.plain.url, bench.server.url)
    made = by_grpc("iris", "/models/iris", urls[0], servers=tuple(map(Server, urls)))
    auth = sealed(KeyText(VALUE), "authorization", made, bench.secrets)
    await bench.serve(structs.replace(made, upstream_auth=auth))
    with bench.dial() as stub:
        for _ in range(10):
            stub.ModelInfer(infer(), metadata=MD, timeout=PATIENCE_S)
    assert {len(bench.plain.asked), len(bench.server.asked)} == {5}


async def test_the_gates_body_is_not_waited_for(bench: Bench) -> None:
    """Check is asked at the end of the headers, whatever comes behind them."""
    await bench.serve(by_grpc("iris", "/models/iris", bench.plain.url))
    with bench.dial() as stub:
        asked = infer(raw_input_contents=[bytes(100_000)])
        assert stub.ModelInfer(asked, metadata=MD, timeout=PATIENCE_S)
    (question,) = bench.gate.requests
    http = question.attributes.request.http
    assert (http.raw_body, http.body, http.protocol) == (b"", "", "HTTP/2")


async def test_a_stream_that_never_ends_is_ended(bench: Bench) -> None:
    """At the bound of a call's time, which a caller's longer deadline does not move."""
    await bench.serve(by_grpc("iris", "/models/iris", bench.plain.url), longest_s=1)
    with bench.dial() as stub:

        def endless() -> Iterator[Any]:
            while True:
                yield infer()
                time.sleep(0.05)  # a client that sends now and then

        for timeout_s in (None, 3_600):
            begun_s = time.monotonic()
            bench.plain.cancelled.clear()
            answers = stub.ModelStreamInfer(endless(), metadata=MD, timeout=timeout_s)
            assert refused(lambda answers=answers: list(answers)).code() in ENDED  # type: ignore[misc]
            assert 0.9 < time.monotonic() - begun_s < 5
            assert bench.plain.cancelled.wait(PATIENCE_S)
        late = refused(lambda: stub.ModelInfer(infer("slow"), metadata=MD, timeout=None))
    assert late.code() is Code.DEADLINE_EXCEEDED
    assert all(0 < one.left_s <= 1.2 for one in bench.plain.asked if one.left_s)  # the server is told what is left


async def test_without_a_gate_calls_are_refused_and_told_so(bench: Bench) -> None:
    """Trailers only, with a message; the server hears nothing."""
    await bench.serve(by_grpc("iris", "/models/iris", bench.plain.url))
    bench.gate.stop()
    with bench.dial() as stub:
        error = refused(lambda: stub.ModelInfer(infer(), metadata=MD, timeout=PATIENCE_S))
    assert (error.code(), reason(error)) == (Code.UNAVAILABLE, "gate_unavailable")
    assert "cannot check" in error.details()
    assert bench.plain.asked == []


async def test_a_refusal_in_json_is_put_into_words(bench: Bench) -> None:
    """Of a gate that had no time to look at the call; the others' bodies are messages already."""
    await bench.serve(by_grpc("iris", "/models/iris", bench.plain.url))
    bench.gate.answer = lambda _asked: denied(503)
    with bench.dial() as stub:
        error = refused(lambda: stub.ModelInfer(infer(), metadata=MD, timeout=PATIENCE_S))
    assert error.code() is Code.UNAVAILABLE
    assert "{" not in error.details()


async def test_a_server_of_http_1_is_unavailable(bench: Bench) -> None:
    """HTTP/2 is said to it without asking."""
    with Upstream("http") as http:
        await bench.serve(by_grpc("iris", "/models/iris", http.url))
        with bench.dial() as stub:
            error = refused(lambda: stub.ServerLive(messages.ServerLiveRequest(), metadata=MD, timeout=PATIENCE_S))
    assert (error.code(), reason(error)) == (Code.UNAVAILABLE, "upstream_unavailable")


def test_hosts_keep_calls_that_name_no_model_apart() -> None:
    """Only where one thing is published, and not on the host that is there for all."""

    def names(*records: PublicationRecord) -> list[list[str]]:
        return [[route.called_as for route in host.routes if route.grpc] for host in plan(records).hosts]

    one = by_grpc("a", "/models/a", "http://127.0.0.1:9")
    assert names(one) == [["a", ""]]
    assert names(structs.replace(one, host_unnamed=True)) == [["a"]]
    assert names(one, publication("b", "/models/b")) == [["a"]]
    assert sorted(*names(one, by_grpc("b", "/x/y", "http://127.0.0.1:9"))) == ["/x/y", "a"]
