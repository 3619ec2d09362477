"""Attacks through a real Envoy: odd paths, hosts, headers and bodies, and a gate that does not answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from extauth.credentials.carriers import CREDENTIAL_HEADERS
from protos.external_auth_pb2 import CheckRequest
from publisher.envoy.bootstrap import CALLER_HEADER
from publisher.envoy.listener.log import REQUEST_ID_HEADER
from tests.e2e import http2
from tests.e2e.proxy import (
    HOST,
    PATIENCE_S,
    Envoy,
    Gate,
    Reply,
    Upstream,
    admitted,
    denied,
    head,
    openai,
    options_for,
    publication,
    route_fields,
    short_folder,
    stripped,
)

MAX_BODY = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Envoy, Gate, Upstream]]:
    """One Envoy with a traditional, a plain and two openai publications, all of one server."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        gate.models = {(HOST, "llm"): "llm"}
        envoy = Envoy(options_for(folder, gate.target))
        envoy.publish(
            [
                publication("iris", "/models/iris", upstream.url),
                stripped("plain", "/models/plain", upstream.url),
                openai("llm", "/v1/models/llm", upstream.url),
                openai("secret", "/v1/models/secret", upstream.url),
            ]
        )
        with envoy:
            yield envoy, gate, upstream


@pytest.fixture
def envoy(parts: tuple[Envoy, Gate, Upstream]) -> Envoy:
    """The Envoy."""
    return parts[0]


@pytest.fixture
def gate(parts: tuple[Envoy, Gate, Upstream]) -> Iterator[Gate]:
    """The gate, with nothing remembered."""
    parts[1].payloads.clear()
    yield parts[1]
    parts[1].answer = None


@pytest.fixture
def untouched(parts: tuple[Envoy, Gate, Upstream], gate: Gate) -> Iterator[None]:
    """Neither the gate nor the server hears of what the test sends."""
    before = parts[2].seen
    yield
    assert (gate.payloads, parts[2].seen) == ([], before)


ONE_PATH = [
    "//models/iris",
    "/models//iris",
    "/./models/iris",
    "/x/../models/iris",
    "/models/plain/../iris",
    "/models/plain/%2e%2e/iris",
    "/models/plain/%2E./iris",
    "/models/%69ris",
    "/../../models/iris",
    "\\models\\iris",
]


@pytest.mark.parametrize("path", ONE_PATH)
def test_one_path_however_it_is_written(envoy: Envoy, gate: Gate, path: str) -> None:
    """Check and the server see the same clean path, and the route that was matched is its publication's."""
    reply = envoy.get(path)
    if reply.status == 200:
        assert reply.upstream_path == "/v1/models/iris"
    assert [route_fields(request) for request in gate.requests] == [{"publication": "iris"}] * len(gate.payloads)
    assert [request.attributes.request.http.path for request in gate.requests] in ([], ["/models/iris"])
    assert reply.status == 200 or path.startswith("\\")


AMBIGUOUS = [
    "/models%2firis",
    "/models%2Firis",
    "/models/plain/..%2firis",
    "/models/plain/%2e%2e%2firis",
    "/models%5ciris",
    "/models/iris%00",
    "/models/iris#/predict",
]


@pytest.mark.parametrize("path", AMBIGUOUS)
@pytest.mark.usefixtures("untouched")
def test_ambiguous_paths_are_refused(envoy: Envoy, path: str) -> None:
    """Escaped slashes and backslashes, nulls and fragments mean different things to different servers."""
    assert_malformed(envoy.get(path))


def assert_malformed(reply: Reply) -> None:
    """Envoy's own 400: an error that OpenAI's clients can read."""
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json["error"].keys() == {"message", "type", "code", "param"}
    assert reply.json["error"]["code"] == "malformed_request"
    assert reply.json["error"]["param"] is None
    assert reply.json["error"]["message"].endswith("two ways (path_normalization_failed).")  # which rule it broke


def test_a_400_of_check_keeps_its_own_words(envoy: Envoy, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what Envoy says by itself is given a body."""
    monkeypatch.setattr(gate, "answer", lambda _request: denied(400))
    reply = envoy.get("/models/iris")
    assert (reply.status, reply.body) == (400, '{"error":{"message":"by the gate"}}')


RESEMBLING = ["/models/iris;x", "/models/iris%20", "/models/iris%0a"]


@pytest.mark.parametrize("path", RESEMBLING)
@pytest.mark.usefixtures("untouched")
def test_paths_that_only_resemble_a_publication_are_unknown(envoy: Envoy, path: str) -> None:
    """Exactly the published path, or nothing."""
    assert envoy.get(path).status == 404


def test_what_lies_below_a_model_of_kserve_reaches_no_server_by_itself(parts: tuple[Envoy, Gate, Upstream]) -> None:
    """Check is asked of it, and where it names no path of the model's, the call leads nowhere."""
    envoy, _, upstream = parts
    before = upstream.seen
    assert envoy.get("/models/iris/%252e").status == 404
    assert upstream.seen == before


FORGED = [
    "x-tenant-id: evil",
    "x-key-id: evil",
    "X-Tollkeeper-Publication: secret",
    "x-tollkeeper-anything: evil",
    "x-envoy-original-path: /evil",
    "x-envoy-upstream-alt-stat-name: evil",
    "X-Envoy-External-Address: 9.9.9.9",
    "x-envoy-internal: true",
    "x-forwarded-host: evil.test",
    "accept-encoding: gzip, br",
    "X-HTTP-Method-Override: DELETE",
    "x-http-method: DELETE",
    "X-Method-Override: DELETE",
    "X-Original-URL: /evil",
    "X-Rewrite-URL: /evil",
]


@pytest.mark.parametrize("header", FORGED)
@pytest.mark.parametrize("times", [1, 2])
def test_forged_headers_never_arrive(envoy: Envoy, header: str, times: int) -> None:
    """What only Check, the route or Envoy may say is taken off a caller's request; so is another method or path."""
    name, _, value = header.lower().partition(": ")
    reply = envoy.get("/models/iris", *[header] * times)
    assert reply.upstream == "up"
    assert value not in " ".join(reply.upstream_headers(name)).lower()


def test_a_forged_publication_does_not_choose_the_route(envoy: Envoy, gate: Gate) -> None:
    """On calls that the body decides, the caller's own header is gone before the first route is chosen."""
    reply = envoy.post("/v1/chat/completions", b'{"model":"llm"}', "x-tollkeeper-publication: secret")
    assert route_fields(gate.requests[0]) == {"openai_host": HOST}
    assert reply.upstream_headers("x-tollkeeper-publication") == ["llm"]


UNDERSCORED = [
    "x_tollkeeper_publication: secret",
    "x_api_key: x",
    "x-tenant_id: evil",
    "x_http_method_override: DELETE",
]


@pytest.mark.parametrize("header", UNDERSCORED)
def test_headers_with_underscores_never_arrive(envoy: Envoy, gate: Gate, header: str) -> None:
    """Some servers read an underscore as a dash. The call passes without the header, over HTTP/2 too."""
    assert_dropped(envoy.get("/models/iris", header, "x-other: kept").json["headers"], header)
    name, _, value = header.partition(": ")
    answer = http2.post(
        envoy.ports["http"], HOST, "/models/iris", b"{}", PATIENCE_S, (name, value), ("x-other", "kept")
    )
    assert_dropped(json.loads(answer.body)["headers"], header)
    assert not [
        header for request in gate.requests for header in request.attributes.request.http.headers if "_" in header
    ]


def assert_dropped(arrived: list[str], header: str) -> None:
    """The server saw the other header, and nothing of this one."""
    name, _, value = header.partition(": ")
    assert "x-other: kept" in arrived
    assert not [line for line in arrived if line.startswith(name) or line.endswith(f": {value}")]


def test_keys_are_not_forwarded(envoy: Envoy, gate: Gate) -> None:
    """Check sees them; the server does not, even if Check forgets to remove them."""
    reply = envoy.get("/models/iris", *[f"{name}: of-{name}" for name in CREDENTIAL_HEADERS])
    told = gate.requests[0].attributes.request.http.headers
    assert [told[name] for name in CREDENTIAL_HEADERS] == [f"of-{name}" for name in CREDENTIAL_HEADERS]
    assert "of-" not in reply.body


def test_two_keys_are_told_as_two(envoy: Envoy, gate: Gate) -> None:
    """Two X-API-Key headers reach Check joined by a comma, which no key's text contains."""
    envoy.get("/models/iris", "X-API-Key: tk_a", "x-api-key: tk_b")
    assert gate.requests[0].attributes.request.http.headers["x-api-key"] == "tk_a,tk_b"


def test_check_is_told_all_headers(envoy: Envoy, gate: Gate) -> None:
    """A key may be copied into any of them. A question is as large as Envoy lets headers be, and tells each once."""
    envoy.post("/models/iris/predict", b"{}", "cookie: " + "x" * 28_000, "content-encoding: identity", "any: thing")
    told = gate.requests[0].attributes.request.http.headers
    sent = {"cookie", "content-encoding", "content-type", "any", CALLER_HEADER, REQUEST_ID_HEADER}
    assert {*told} == sent | {"x-forwarded-for", "x-forwarded-proto"}
    assert len(gate.payloads[0]) < 32 * 1024


@pytest.mark.parametrize("header", ["x-api-key: \xff\xfe", "authorization: Bearer \x80"])
def test_headers_that_are_no_text_are_still_a_question(envoy: Envoy, gate: Gate, header: str) -> None:
    """Bytes that are not UTF-8 never make the question unreadable."""
    envoy.get("/models/iris", header)
    assert all(request.attributes.request.http.method == "GET" for request in gate.requests)


def caller(request: CheckRequest) -> str:
    """The caller's address as Check is told it."""
    return request.attributes.request.http.headers["x-envoy-external-address"]


def test_the_callers_address_cannot_be_forged(envoy: Envoy, gate: Gate) -> None:
    """Nobody in front is trusted: the connection's own address counts."""
    envoy.get("/models/iris")
    envoy.get("/models/iris", "x-forwarded-for: 9.9.9.9", "x-real-ip: 9.9.9.9", "forwarded: for=9.9.9.9")
    assert [caller(request) for request in gate.requests] == ["127.0.0.1"] * 2
    assert gate.requests[0].attributes.source.address.socket_address.address == "127.0.0.1"


def test_a_trusted_proxys_word_on_the_address_counts() -> None:
    """With one trusted hop the address is the one it saw, not what its caller wrote before it."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        envoy = Envoy(options_for(folder, gate.target, trusted_hops=1))
        envoy.publish([publication("iris", "/models/iris", upstream.url)])
        with envoy:
            envoy.get("/models/iris", "x-forwarded-for: 9.9.9.9, 192.0.2.7")
        assert caller(gate.requests[0]) == "192.0.2.7"


MALFORMED = [
    head("GET", "/models/iris", f"host: {HOST}", "connection: upgrade", "upgrade: websocket"),
    head("CONNECT", f"{HOST}:80", f"host: {HOST}"),
    head("CONNECT", "/models/iris", f"host: {HOST}"),
    head("GET", "/models/iris"),
    head("GET", "/models/iris", f"host: {HOST}", f"host: {HOST}"),
    head("GET", "/models/iris", f"host: {HOST}", "host: other.test"),
    head("GET", "/models/iris", f"host: {HOST},{HOST}"),
    head("GET", "/models/iris", f"host: user@{HOST}"),
    head("GET", "http://other.test/models/iris", f"host: {HOST}"),
    head("GET", "/models/iris").replace(b"HTTP/1.1", b"HTTP/1.0"),
    head("GET", "/models/iris", f"host: {HOST}", "content-length: 4", "content-length: 5") + b"xxxxx",
    head("POST", "/models/iris", f"host: {HOST}", "content-length: 4", "transfer-encoding: chunked") + b"0\r\n\r\n",
    head("POST", "/models/iris", f"host: {HOST}", "transfer-encoding: chunked, identity") + b"0\r\n\r\n",
    head("GET", "/models/iris", f"host: {HOST}", "x-api-key : tk"),
    head("GET", "/models/iris", f"host: {HOST}", "x-a: 1\x00"),
    head("GET", "/models/iris", f"host: {HOST}", "x-long: " + "x" * 40_000),
    head("GET", "/models/iris", f"host: {HOST}", *[f"x-{n}: 1" for n in range(120)]),
    b"GET /models/iris\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=str)
def test_malformed_requests_reach_nobody(
    envoy: Envoy, gate: Gate, parts: tuple[Envoy, Gate, Upstream], request_bytes: bytes
) -> None:
    """Upgrades, tunnels, two hosts, two lengths, folded lines and the like: refused, and no server hears of it."""
    before = parts[2].seen
    with envoy.connect() as connection:
        connection.sendall(request_bytes)
        status = Reply.read(connection).status
    assert status in {0, 400, 403, 404, 426, 431, 501}
    assert (gate.payloads, parts[2].seen) == ([], before)


def test_a_folded_line_is_no_header_of_its_own(envoy: Envoy) -> None:
    """Nor can it hide one: it is joined to the value before it (RFC 9112, 5.2)."""
    reply = envoy.get("/models/iris", "x-a: 1\r\n x-tenant-id: evil")
    assert reply.upstream_headers("x-tenant-id") == []
    assert reply.upstream_headers("x-a") == ["1 x-tenant-id: evil"]


def test_an_absolute_target_is_its_hosts(envoy: Envoy, gate: Gate) -> None:
    """The request target's host counts, for the route, for Check and for the path (RFC 9112, 3.2.2)."""
    reply = envoy.send(head("GET", f"http://{HOST}/models/iris", "host: other.test"))
    assert reply.upstream == "up"
    assert gate.requests[0].attributes.request.http.host == HOST


def test_an_offered_upgrade_to_http2_is_ignored(envoy: Envoy) -> None:
    """The call is answered on the connection as it is."""
    upgrade = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
    assert envoy.get("/models/iris", *upgrade).status in {200, 403}


@pytest.mark.parametrize("http", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/v1/chat/completions", MAX_BODY - 64 * 1024, 200),
        ("/v1/chat/completions", MAX_BODY + 64 * 1024, 413),
        ("/models/plain/upload", MAX_BODY * 3, 200),
    ],
)
def test_bodies_that_check_must_know_are_bounded(envoy: Envoy, http: str, path: str, size: int, status: int) -> None:
    """Up to the bound they pass, above it 413; what Check need not know streams through, however large."""
    body = json.dumps({"model": "llm", "pad": "x" * size}).encode()[:size]
    body = body[:-2] + b'"}'
    send = _over_http2 if http == "HTTP/2" else _over_http1
    answered, text = send(envoy, path, body)
    assert answered == status
    assert status != 413 or json.loads(text)["error"]["code"] == "request_too_large"
    assert status != 200 or json.loads(text)["body_bytes"] == len(body)


def _over_http1(envoy: Envoy, path: str, body: bytes) -> tuple[int, str]:
    url = f"http://127.0.0.1:{envoy.ports['http']}{path}"
    answer = subprocess.run(
        [_curl(), "-s", "--http1.1", "--max-time", str(PATIENCE_S), "-w", "\n%{http_code}", "-H", f"host: {HOST}",
         "-H", "content-type: application/json", "-H", "expect:", "--data-binary", "@-", url],
        input=body, capture_output=True, check=False, timeout=PATIENCE_S + 5,
    )  # fmt: skip
    text, _, code = answer.stdout.decode().rpartition("\n")
    return int(code), text


def _over_http2(envoy: Envoy, path: str, body: bytes) -> tuple[int, str]:
    answer = http2.post(envoy.ports["http"], HOST, path, body, PATIENCE_S)
    return answer.status, answer.body.decode()


def _curl() -> str:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    return curl


def test_http2_reaches_the_same_routes(envoy: Envoy, gate: Gate) -> None:
    """With prior knowledge, on the same port."""
    url = f"http://127.0.0.1:{envoy.ports['http']}/models/iris"
    command = [_curl(), "-s", "--http2-prior-knowledge", "-H", f"host: {HOST}", "-H", "x-tenant-id: evil", url]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["upstream"] == "up"
    assert not [line for line in answer["headers"] if "evil" in line]
    assert gate.requests[0].attributes.request.http.protocol == "HTTP/2"


def test_a_slow_gate_is_503_and_no_server_is_reached() -> None:
    """Check's silence is a refusal, after 200 ms, and it is not asked again."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        envoy = Envoy(options_for(folder, gate.target, check_timeout_ms=200))
        envoy.publish([publication("iris", "/models/iris", upstream.url)])
        released = threading.Event()
        gate.answer = lambda _: admitted({"waited": str(released.wait(PATIENCE_S))})
        with envoy:
            began = time.monotonic()
            reply = envoy.get("/models/iris")
            waited_s = time.monotonic() - began
            released.set()
        assert (reply.status, len(gate.payloads), upstream.seen) == (503, 1, 0)
        assert 0.15 <= waited_s < PATIENCE_S / 2


def test_without_a_gate_every_published_path_is_503() -> None:
    """Nothing fails open, not even an Envoy that never saw its gate."""
    with short_folder() as folder, Upstream("up") as upstream:
        envoy = Envoy(options_for(folder, f"unix:{folder}/nobody.sock"))
        envoy.publish(
            [publication("iris", "/models/iris", upstream.url), openai("llm", "/v1/models/llm", upstream.url)]
        )
        with envoy:
            replies = [
                envoy.get("/models/iris", "x-api-key: tk"),
                envoy.post("/models/iris/predict", b"{}"),
                envoy.post("/v1/models/llm/chat/completions", b'{"model":"llm"}'),
                envoy.post("/v1/chat/completions", b'{"model":"llm"}'),
            ]
        assert [reply.status for reply in replies] == [503] * 4
        assert upstream.seen == 0


def test_a_slow_upload_ends() -> None:
    """A caller without a key cannot hold a connection by sending a byte now and then."""
    with short_folder() as folder, Gate(folder) as gate:
        envoy = Envoy(options_for(folder, gate.target, request_timeout_s=1))
        envoy.publish([openai("llm", "/v1/models/llm")])
        with envoy, envoy.connect() as connection:
            connection.sendall(
                head(
                    "POST",
                    "/v1/chat/completions",
                    f"host: {HOST}",
                    "content-length: 9",
                    "content-type: application/json",
                )
            )
            connection.sendall(b"{")
            assert Reply.read(connection).status == 408
        assert gate.payloads == []


def test_connections_are_bounded() -> None:
    """One caller more than allowed is turned away at once, and the others go on."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        envoy = Envoy(options_for(folder, gate.target, max_connections=2))
        envoy.publish([publication("iris", "/models/iris", upstream.url)])
        with envoy, envoy.connect() as first, envoy.connect(), envoy.connect() as third:
            assert Reply.read(third).status == 0
            first.sendall(head("GET", "/models/iris", f"host: {HOST}"))
            assert Reply.read(first).upstream == "up"


def test_a_server_that_is_down_is_told_in_openais_shape(gate: Gate) -> None:
    """The caller reads a JSON error, not Envoy's words."""
    with short_folder() as folder:
        down = Envoy(options_for(folder, gate.target))
        down.publish([publication("iris", "/models/iris")])
        with down:
            reply = down.get("/models/iris")
    assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_unavailable")
    assert "x-envoy" not in " ".join(reply.headers)
