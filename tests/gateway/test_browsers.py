"""Pages in browsers through Envoy Gateway: a named origin is answered what it asks for, and can read refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from gatewaystack import PAGE, Machine

from publisher.browsers import EXPOSED_HEADERS
from tests.e2e.proxy import Reply, head
from tests.e2e.test_browsers import ASKED, words

pytestmark = pytest.mark.gateway

TENANT, MODEL, HOST = "page-team", "chat", "pages.example.test"
PATHS = ("/v1/chat/completions", f"/v1/models/{MODEL}/chat/completions", "/v1/models")


@pytest.fixture(scope="module")
def key(gateway: Machine) -> Iterator[str]:
    """A model, and a key for it."""
    gateway.publish(TENANT, MODEL, gateway.servers["openai"], publicHostname=HOST)
    asked = {"tenantId": TENANT, "name": "page", "publications": [MODEL]}
    yield gateway.operator.must("POST", "/api/keys", asked)["apiKey"]
    gateway.unpublish(TENANT, MODEL)


def preflight(gateway: Machine, path: str, origin: str, headers: str, method: str = "POST") -> Reply:
    """Ask as a browser does."""
    asked = (f"access-control-request-method: {method}", f"access-control-request-headers: {headers}")
    return gateway.send(head("OPTIONS", path, f"host: {HOST}", f"origin: {origin}", *asked))


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("asked", ["openai", "anthropic", "next year's"])
def test_whatever_a_client_sends_is_answered_by_name(gateway: Machine, path: str, asked: str) -> None:
    """As on plain Envoy: no ``*``, no cookies, no key."""
    for method in ("POST", "DELETE"):
        reply = preflight(gateway, path, PAGE, ASKED[asked], method)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, PAGE)
        assert words(reply, "access-control-allow-headers") == set(ASKED[asked].split(","))
        assert words(reply, "access-control-allow-methods") == {method.lower()}
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.usefixtures("key")
def test_another_page_is_not_let(gateway: Machine) -> None:
    """Whatever it is answered, no origin is named in it, so no browser goes on."""
    reply = preflight(gateway, PATHS[0], f"{PAGE}.evil", ASKED["openai"])
    assert "access-control-allow-origin" not in reply.headers


def test_a_page_reads_answers_lists_and_refusals(gateway: Machine, key: str) -> None:
    """With the headers that its client reads; a list that it has already is 304 to it."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}).encode()
    origin = f"origin: {PAGE}"
    good = gateway.post(PATHS[0], body, f"x-api-key: {key}", origin, host=HOST)
    refused = gateway.post(PATHS[0], body, origin, host=HOST)
    listed = gateway.get("/v1/models", f"x-api-key: {key}", origin, host=HOST)
    tag = listed.headers["etag"]
    same = gateway.get("/v1/models", f"x-api-key: {key}", origin, f"if-none-match: {tag}", host=HOST)
    assert [one.status for one in (good, refused, listed, same)] == [200, 401, 200, 304]
    assert (same.body, same.headers["etag"]) == ("", tag)
    for reply in (good, refused, listed, same):
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert words(reply, "access-control-expose-headers") == set(EXPOSED_HEADERS)
