"""Attacks through Envoy Gateway: the odd paths, hosts and headers that plain Envoy is tried with."""

from __future__ import annotations

import pytest
from gatewayground import Ground

from tests.e2e.proxy import Reply, head
from tests.e2e.test_envoy_hardening import (
    AMBIGUOUS,
    FORGED,
    MALFORMED,
    ONE_PATH,
    RESEMBLING,
    UNDERSCORED,
    assert_dropped,
    assert_malformed,
)
from tests.e2e.test_old_callers import HANDSHAKE

pytestmark = pytest.mark.gateway


@pytest.mark.parametrize("path", ONE_PATH)
def test_one_path_however_it_is_written(ground: Ground, path: str) -> None:
    """The server sees the clean path of the publication that Check decided on, or nothing."""
    reply = ground.machine.get(path, ground.with_key)
    assert reply.status == 200 or path.startswith("\\")
    if reply.status == 200:
        assert (reply.upstream, reply.upstream_path) == ("iris", "/v1/models/iris")


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_ambiguous_paths_are_refused(ground: Ground, path: str) -> None:
    """Escaped slashes and backslashes, nulls and fragments mean different things to different servers."""
    before = ground.reached()
    assert_malformed(ground.machine.get(path, ground.with_key))
    assert ground.reached() == before


@pytest.mark.parametrize("path", RESEMBLING)
def test_paths_that_only_resemble_a_publication_are_unknown(ground: Ground, path: str) -> None:
    """Exactly the published path, or nothing."""
    before = ground.reached()
    assert ground.machine.get(path, ground.with_key).status == 404
    assert ground.reached() == before


@pytest.mark.parametrize("header", FORGED)
@pytest.mark.parametrize("times", [1, 2])
def test_forged_headers_never_arrive(ground: Ground, header: str, times: int) -> None:
    """What only Check, the route or Envoy may say is taken off a caller's request."""
    name, _, value = header.lower().partition(": ")
    reply = ground.machine.get("/models/iris", ground.with_key, *[header] * times)
    assert reply.upstream == "iris"
    assert value not in " ".join(reply.upstream_headers(name))


@pytest.mark.parametrize("path", ["/models/iris", "/v1/chat/completions", "/v1/models/echo/chat/completions"])
def test_the_server_is_told_who_calls(ground: Ground, path: str) -> None:
    """By Check alone: the tenant, the key's id and the publication; the key itself never."""
    publication = ground.publications["iris" if "iris" in path else "echo"]
    forged = ("x-tenant-id: evil", "x-key-id: evil", "x-tollkeeper-publication: evil", "authorization: Bearer other")
    body = b'{"model": "echo"}'
    if "iris" in path:
        reply = ground.machine.get(path, ground.with_key, *forged)
    else:
        reply = ground.machine.post(path, body, ground.with_key, *forged)
    assert reply.upstream_headers("x-tenant-id") == ["tenant-a"]
    assert reply.upstream_headers("x-tollkeeper-publication") == [publication.uid]
    assert [len(value) for value in reply.upstream_headers("x-key-id")] == [len(publication.uid)]
    assert reply.upstream_headers("x-api-key") == reply.upstream_headers("authorization") == []
    assert ground.key not in reply.body


def test_a_bearer_key_is_no_more_forwarded(ground: Ground) -> None:
    """As OpenAI's clients send it."""
    reply = ground.machine.get("/models/iris", f"authorization: Bearer {ground.key}")
    assert reply.upstream == "iris"
    assert ground.key not in reply.body


@pytest.mark.parametrize(
    "carrier", ["x-api-key: KEY", "authorization: Bearer KEY", "api-key: KEY", "x-goog-api-key: KEY"]
)
@pytest.mark.parametrize("path", ["/models/iris", "/v1/chat/completions"])
def test_no_copy_of_a_key_reaches_the_server(ground: Ground, carrier: str, path: str) -> None:
    """Check is told all headers here too, and takes a copy off; one in the URL is refused."""
    headers = [header.replace("KEY", ground.key) for header in (carrier, "x-any: KEY", "cookie: a=1; b=KEY")]
    ask = ground.machine.get if "iris" in path else lambda *asked: ground.machine.post(asked[0], CHAT, *asked[1:])
    reply = ask(path, *headers)
    assert reply.status == 200
    assert ground.key not in reply.body
    assert (reply.upstream_headers("x-any"), reply.upstream_headers("cookie")) == ([], ["a=1"])
    refused = ask(f"{path}?key={ground.key}", *headers)
    assert (refused.status, refused.json["error"]["code"]) == (400, "key_in_url")


CHAT = b'{"model": "echo"}'


def test_two_keys_are_no_key(ground: Ground) -> None:
    """Even if one of them is good."""
    assert ground.machine.get("/models/iris", ground.with_key, "x-api-key: tk_b").status == 401


@pytest.mark.parametrize("header", UNDERSCORED)
def test_headers_with_underscores_never_arrive(ground: Ground, header: str) -> None:
    """Some servers read an underscore as a dash. The call passes without the header."""
    reply = ground.machine.get("/models/iris", ground.with_key, header, "x-other: kept")
    assert_dropped(reply.json["headers"], header)


def test_callers_of_http_1_0_are_served(ground: Ground) -> None:
    """As nginx is one without `proxy_http_version`."""
    call = head("GET", "/models/iris", "host: api.example.test", ground.with_key)
    assert ground.machine.send(call.replace(b"HTTP/1.1", b"HTTP/1.0")).upstream == "iris"


def test_a_handshake_is_told_to_post(ground: Ground) -> None:
    """WebSocket is 426 in our shape, whoever asks."""
    reply = ground.machine.get("/models/iris", ground.with_key, *HANDSHAKE)
    assert (reply.status, reply.json["error"]["code"]) == (426, "upgrade_not_supported")


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=str)
def test_malformed_requests_reach_nobody(ground: Ground, request_bytes: bytes) -> None:
    """Upgrades, tunnels, two hosts, two lengths, folded lines and the like: refused, though the key is good."""
    before = ground.reached()
    begin, _, rest = request_bytes.partition(b"\r\n\r\n")
    with ground.machine.connect() as connection:
        connection.sendall(b"%s\r\n%s\r\n\r\n%s" % (begin, ground.with_key.encode(), rest))
        status = Reply.read(connection).status
    assert status in {0, 400, 403, 404, 426, 431, 501}
    assert ground.reached() == before


def test_an_absolute_target_is_its_hosts(ground: Ground) -> None:
    """The request target's host counts, for the route and for Check (RFC 9112, 3.2.2)."""
    ours = head("GET", "http://api.example.test/models/iris", "host: other.test", ground.with_key)
    assert ground.machine.send(ours).upstream == "iris"


@pytest.mark.parametrize("host", ["nobody.test", "x.api.example.test", "127.0.0.1", "api.example.testx"])
def test_unknown_hosts_are_404(ground: Ground, host: str) -> None:
    """In OpenAI's shape, whatever key comes."""
    reply = ground.machine.get("/models/iris", ground.with_key, host=host)
    assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
