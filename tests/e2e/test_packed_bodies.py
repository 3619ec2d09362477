"""Bodies that clients compress: read by the product's gate, unpacked by a real Envoy, within bounds."""

from __future__ import annotations

import gzip
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from backports import zstd
from gatebench import PATIENT, Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, ModelType, Protocol
from extauth import edge
from extauth.request.packed import MOST_BYTES, MOST_RATIO, SMALL_BYTES, weights_of
from tests.e2e import http2
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, Reply, Upstream, head, options_for, short_folder

BY_PATH, BY_BODY, OPENED = "/models/llm/chat/completions", "/v1/chat/completions", "/models/llm/files"
PACKS = {"gzip": gzip.compress, "zstd": zstd.compress}
CHAT = json.dumps({"model": "llm", "messages": [{"role": "user", "content": "Hello! " * 300}]}).encode()
BIG = json.dumps({"model": "big"}).encode()


@dataclass
class Machine:
    """One server with two models, of which the key may call one; another's key may call neither."""

    envoy: Envoy
    upstream: Upstream
    key: str

    def post(self, path: str, body: bytes, encoding: str, *headers: str) -> Reply:
        """A call with the key."""
        return self.envoy.post(path, body, f"x-api-key: {self.key}", f"content-encoding: {encoding}", *headers)


@pytest.fixture(scope="module")
def machine(valkey_socket: object) -> Iterator[Machine]:
    """All parts, ready."""
    with short_folder() as folder, ExitStack() as stack:
        upstream = stack.enter_context(Upstream("model"))
        secrets = create_secrets(folder / "secrets.json")
        url = f"unix://{valkey_socket}?db=3701"
        catalog = Catalog(url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        llm, big = (
            catalog.publication(
                model=name, type=ModelType.OPENAI, protocol=Protocol.OPENAI, allowed_endpoints=("files", "custom")
            )
            for name in ("llm", "big")
        )
        catalog.add(HostRecord(HOST, {}, {f"tenant-a/{one.model}": one.uid for one in (llm, big)}))
        _, key = catalog.key(llm)
        target = f"unix:{folder}/gate.sock"
        gate = make_gate(target, url, secrets, CollectorRegistry(), PATIENT)
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, target))
        envoy.publish([llm, big])
        stack.enter_context(envoy)
        yield Machine(envoy, upstream, key)


def of_size(size: int, *, random: bool) -> bytes:
    """A good body of so many bytes, which packs to half of it, or to nearly nothing."""
    body = b'{"model":"llm","x":"'
    rest = size - len(body) - 2
    return body + ((os.urandom(rest // 2 + 1).hex().encode()[:rest]) if random else b"a" * rest) + b'"}'


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP", "Zstd"])
@pytest.mark.parametrize("path", [BY_PATH, BY_BODY])
def test_a_packed_body_is_read_and_its_server_gets_it_unpacked(machine: Machine, path: str, encoding: str) -> None:
    """Twice: as it is decided first, and by what was kept. The server hears of no encoding."""
    body = PACKS[encoding.lower()](CHAT)
    for more in ((), ("cache-control: no-transform",)):
        reply = machine.post(path, body, encoding, *more)
        assert (reply.upstream, reply.json["body_bytes"]) == ("model", len(CHAT))
        assert reply.upstream_headers("content-encoding") == []
        assert reply.upstream_headers("accept-encoding") == []


@pytest.mark.parametrize("encoding", PACKS)
@pytest.mark.parametrize(
    ("size", "random"), [(MOST_BYTES, True), (1_000_000, True), (SMALL_BYTES, False), (SMALL_BYTES - 1, False)]
)
def test_up_to_the_bounds_it_arrives_whole(machine: Machine, encoding: str, size: int, random: bool) -> None:  # noqa: FBT001
    """Envoy cuts off nothing that the gate has let pass."""
    reply = machine.post(BY_BODY, PACKS[encoding](of_size(size, random=random)), encoding)
    assert (reply.upstream, reply.json["body_bytes"]) == ("model", size)


@pytest.mark.parametrize("encoding", PACKS)
def test_the_tightest_that_passes_arrives_whole(machine: Machine, encoding: str) -> None:
    """At the ratio that is bounded."""
    size, pack = MOST_BYTES, PACKS[encoding]
    filling = os.urandom(size // 2).hex().encode()
    low, high = 0, size
    while high - low > size // 1_000:
        middle = (low + high) // 2
        body = of_size(size - middle, random=False)[:-2] + filling[:middle] + b'"}'
        low, high = (low, middle) if len(pack(body)) * MOST_RATIO >= len(body) else (middle, high)
    body = of_size(size - high, random=False)[:-2] + filling[:high] + b'"}'
    reply = machine.post(BY_BODY, pack(body), encoding)
    assert (reply.upstream, reply.json["body_bytes"]) == ("model", len(body))


def frame(window_log: int, *blocks: tuple[int, bytes, int]) -> bytes:
    """A frame of zstd by hand: its window, and blocks of type (0 raw, 1 repeated), content and size (RFC 8878)."""
    made = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])
    for number, (kind, content, size) in enumerate(blocks):
        made += struct.pack("<I", (number == len(blocks) - 1) | kind << 1 | size << 3)[:3] + content
    return made


BAD = {
    "gzip": [
        b"no gzip at all",
        gzip.compress(CHAT)[:-9],
        gzip.compress(CHAT) + b"x",
        gzip.compress(CHAT) + gzip.compress(BIG),
        gzip.compress(b"") + gzip.compress(CHAT),
        gzip.compress(of_size(3_000_000, random=False)),
        gzip.compress(of_size(SMALL_BYTES + 1, random=False)),
        gzip.compress(of_size(MOST_BYTES + 1, random=True), 1),
        zlib.compress(CHAT),
        zstd.compress(CHAT),
    ],
    "zstd": [
        b"no zstd at all",
        zstd.compress(CHAT)[:-9],
        zstd.compress(CHAT) + b"x",
        zstd.compress(CHAT) + zstd.compress(BIG),
        b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + zstd.compress(CHAT),  # a frame to be skipped
        zstd.compress(of_size(3_000_000, random=False)),
        frame(17, (0, b'{"model":"llm","x":"', 20), *[(1, b"a", 128 * 1024)] * 8_000, (0, b'"}', 2)),  # a gigabyte
        frame(24, (0, CHAT, len(CHAT))),  # a window of 16 MiB
        frame(27, (0, CHAT, len(CHAT))),
        gzip.compress(CHAT),
    ],
}


@pytest.mark.parametrize(
    ("encoding", "number"), [(name, at) for name, bodies in BAD.items() for at in range(len(bodies))]
)
def test_what_does_not_come_out_whole_goes_nowhere(machine: Machine, encoding: str, number: int) -> None:
    """Bombs, cut bodies, several in one, windows of hundreds of megabytes: 400, and the answer says what is wrong."""
    body = BAD[encoding][number]
    before = machine.upstream.seen
    reply = machine.post(BY_BODY, body, encoding)
    assert machine.upstream.seen == before
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_encoding")
    assert encoding in reply.json["error"]["message"] or "too tightly" in reply.json["error"]["message"]


def test_envoy_tells_the_route_where_it_is_looked_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a call on a route for packed bodies weighs what may come out of it, and no other one does."""
    heavier: list[bool] = []

    def noted(payloads: Sequence[bytes]) -> list[int]:
        weights = weights_of(payloads)
        heavier.extend(weight > len(one) for one, weight in zip(payloads, weights, strict=True))
        return weights

    monkeypatch.setattr(edge, "weights_of", noted)
    for path in (BY_PATH, BY_BODY):
        assert machine.post(path, zstd.compress(CHAT), "zstd").status == 200
        assert machine.envoy.post(path, CHAT, f"x-api-key: {machine.key}").status == 200
    assert heavier == [True, False] * 2


def test_a_packed_body_decides_like_any_other(machine: Machine) -> None:
    """It names no model that the key may not call, nor anything twice."""
    for body, status in ((BIG, 403), (b'{"model":"llm","Model":"big"}', 400), (b"[1]", 400), (b"", 400)):
        for encoding, pack in PACKS.items():
            assert machine.post(BY_BODY, pack(body), encoding).status == status


ELSE = ["br", "deflate", "gzip, zstd", "zstd,gzip", "x-gzip", "identity, gzip", "gzip\\", "x" * 100]


@pytest.mark.parametrize("encoding", ELSE)
@pytest.mark.parametrize("path", [BY_PATH, BY_BODY])
def test_any_other_encoding_is_told_which_would_do(machine: Machine, path: str, encoding: str) -> None:
    """415 quotes what came, names the good ones (RFC 9110, 15.5.16) and tells clients not to try again."""
    reply = machine.post(path, gzip.compress(CHAT), encoding)
    assert (reply.status, reply.json["error"]["code"]) == (415, "unsupported_content_encoding")
    assert reply.headers["accept-encoding"] == "gzip, zstd"
    assert reply.headers["x-should-retry"] == "false"
    assert repr(encoding[:40]) in reply.json["error"]["message"]


@pytest.mark.parametrize("encoding", PACKS)
def test_what_need_not_be_json_is_not_unpacked(machine: Machine, encoding: str) -> None:
    """An opened endpoint takes packed bodies only as JSON: nobody else would see what is inside."""
    body, custom = PACKS[encoding](CHAT), OPENED.replace("files", "custom")
    assert machine.post(custom, body, encoding, "content-type: application/octet-stream").status == 415
    reply = machine.post(custom, body, encoding)
    assert (reply.upstream, reply.json["body_bytes"]) == ("model", len(CHAT))


def test_over_http2_too(machine: Machine) -> None:
    """As clients of Rust send it."""
    more = [("x-api-key", machine.key), ("content-encoding", "zstd")]
    answer = http2.post(machine.envoy.ports["http"], HOST, BY_BODY, zstd.compress(CHAT), PATIENCE_S, *more)
    assert json.loads(answer.body)["body_bytes"] == len(CHAT)


def test_without_a_length_too(machine: Machine) -> None:
    """Chunk by chunk."""
    body, key = zstd.compress(CHAT), f"x-api-key: {machine.key}"
    sent = ("transfer-encoding: chunked", "content-type: application/json", "content-encoding: zstd")
    request = head("POST", BY_BODY, f"host: {HOST}", key, *sent)
    reply = machine.envoy.send(request + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert (reply.upstream, reply.json["body_bytes"]) == ("model", len(CHAT))


def test_callers_without_a_key_make_envoy_unpack_nothing(machine: Machine) -> None:
    """Thirty frames that ask for 128 MiB each, held open and sent whole: its heap does not move."""
    read = "http.ingress.decompressor.zstd.zstd.request.decompressed"
    before = machine.envoy.stat(read)
    window = frame(27, (0, CHAT, len(CHAT)))
    lines = (f"host: {HOST}", "content-type: application/json", "content-encoding: zstd")
    held = [machine.envoy.connect() for _ in range(30)]
    with ExitStack() as stack:
        for one in held:
            connection = stack.enter_context(one)
            connection.sendall(head("POST", BY_BODY, *lines, f"content-length: {len(window) + 9}") + window)
        whole = head("POST", BY_BODY, *lines, f"content-length: {len(window)}") + window
        assert {machine.envoy.send(whole).status for _ in range(30)} == {401}
        time.sleep(0.3)  # three times as long as Envoy looks at its heap
        assert int(json.loads(machine.envoy.admin("/memory"))["allocated"]) < 2**26
        assert machine.envoy.stat(read) == before
        assert machine.post(BY_BODY, zstd.compress(CHAT), "zstd").status == 200
