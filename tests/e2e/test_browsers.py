"""Pages in browsers through a real Envoy: preflights, who may read answers, and nothing at all unless it is set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.browsers import EXPOSED_HEADERS, MAX_AGE_S
from tests.e2e.proxy import HOST as OPEN
from tests.e2e.proxy import Envoy, Gate, Reply, Upstream, denied, head, openai, options_for, publication, short_folder

PAGE = "https://app.example"
OTHERS = ("https://app.example.evil", "http://app.example", "https://app.example:8443", "https://x.app.example", "null")
ANOTHER_PAGE = "http://localhost:3000"
PATHS = ("/v1/chat/completions", "/v1/models", "/v1/models/llm/chat/completions", "/models/iris/predict")
OWN_WORD = ("access-control-allow-origin: *", "access-control-allow-credentials: true", "vary: Accept")


class Place:
    """An Envoy with its gate, which refuses whoever has no key, and a model server that would let any page read."""

    def __init__(self, envoy: Envoy, gate: Gate, server: Upstream) -> None:
        self.envoy = envoy
        self.gate = gate
        self.server = server

    def preflight(
        self, path: str, origin: str, headers: str = "authorization,content-type", method: str = "POST"
    ) -> Reply:
        """Ask as a browser does before it sends what a script wants sent: names in lower case, sorted, no spaces."""
        asked = [f"access-control-request-method: {method}"]
        asked += [f"access-control-request-headers: {headers}"] if headers else []
        return self.envoy.send(head("OPTIONS", path, f"host: {OPEN}", f"origin: {origin}", *asked))

    @property
    def asked(self) -> int:
        """How often Check was asked."""
        return len(self.gate.payloads)


def place(*origins: str) -> Iterator[Place]:
    """Start one whose hosts may be called by pages of these origins."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("server", *OWN_WORD) as server:
        gate.models = {(OPEN, "llm"): "llm"}
        decide = gate._decide

        def keyed(request: CheckRequest) -> CheckResponse:
            return decide(request) if request.attributes.request.http.headers["x-api-key"] else denied(401)

        gate.answer = keyed
        envoy = Envoy(options_for(folder, gate.target))
        published = [openai("llm", "/v1/models/llm", server.url), publication("iris", "/models/iris", server.url)]
        envoy.publish(published, origins=origins)
        with envoy:
            yield Place(envoy, gate, server)


@pytest.fixture(scope="module")
def opened() -> Iterator[Place]:
    """One that two pages may call."""
    yield from place(PAGE, ANOTHER_PAGE)


@pytest.fixture(scope="module")
def closed() -> Iterator[Place]:
    """One as it is unless told otherwise."""
    yield from place()


def words(reply: Reply, name: str) -> set[str]:
    """The values of a header that is a list."""
    return {word.strip().lower() for word in reply.headers.get(name, "").split(",") if word.strip()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("page", [PAGE, ANOTHER_PAGE])
def test_a_preflight_is_answered_without_a_key(opened: Place, path: str, page: str) -> None:
    """A browser learns what the page may send; neither the gate nor a server is asked, so it costs nobody anything."""
    asked, seen = opened.asked, opened.server.seen
    reply = opened.preflight(path, page)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == page
    assert words(reply, "access-control-allow-headers") == {"authorization", "content-type"}
    assert words(reply, "access-control-allow-methods") == {"post"}
    assert reply.headers["access-control-max-age"] == str(MAX_AGE_S)
    assert "access-control-allow-credentials" not in reply.headers
    assert "origin" in words(reply, "vary")
    assert (opened.asked, opened.server.seen) == (asked, seen)


STAINLESS = (
    "x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,"
    "x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
ASKED = {
    "openai": f"authorization,content-type,{STAINLESS}",
    "openai, a helper": f"authorization,content-type,{STAINLESS},x-stainless-helper-method",
    "anthropic": f"anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,content-type,"
    f"{STAINLESS},x-api-key",
    "azure": "api-key,content-type,x-ms-client-request-id",
    "google": "content-type,x-goog-api-client,x-goog-api-key",
    "traced": "authorization,content-type,traceparent,tracestate,x-client-request-id",
    "next year's": "authorization,x-nobody-knows-it-yet",
    "very many": ",".join(f"x-header-{number}" for number in range(300)),
}


@pytest.mark.parametrize("headers", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_whatever_a_client_sends_is_answered_by_name(opened: Place, headers: str, method: str) -> None:
    """To a named origin: what it asked for, so that the browser sends it; no ``*``, which means no key; no cookies."""
    reply = opened.preflight(PATHS[0], PAGE, headers, method)
    assert reply.status == 200
    assert words(reply, "access-control-allow-headers") == set(headers.split(","))
    assert words(reply, "access-control-allow-methods") == {method.lower()}
    assert "*" not in {value for name, value in reply.headers.items() if name.startswith("access-control-")}
    assert "access-control-allow-credentials" not in reply.headers


def test_a_page_that_sends_no_header_is_answered_too(opened: Place) -> None:
    """A browser leaves the list out then; and what was asked before is in no later answer."""
    opened.preflight(PATHS[0], PAGE, "x-before")
    reply = opened.preflight(PATHS[0], PAGE, "", "DELETE")
    assert (reply.status, words(reply, "access-control-allow-headers")) == (200, set())
    assert words(reply, "access-control-allow-methods") == {"delete"}


def test_a_page_learns_what_its_client_reads() -> None:
    """Limits in OpenAI's words and Anthropic's, when to come again, and by which id to ask about a call."""
    read = {"retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "request-id", "etag", "ratelimit"}
    sorts, kinds = ("limit", "remaining", "reset"), ("requests", "tokens")
    limits = {f"x-ratelimit-{what}-{of}" for what in sorts for of in kinds}
    theirs = {f"anthropic-ratelimit-{of}-{what}" for what in sorts for of in kinds}
    assert read | limits | theirs <= set(EXPOSED_HEADERS)
    assert "*" not in EXPOSED_HEADERS


@pytest.mark.parametrize("page", OTHERS)
def test_other_pages_are_refused_as_anybody_without_a_key(opened: Place, page: str) -> None:
    """An origin that is not named, or only resembles one, gets a refusal that its page cannot even read."""
    reply = opened.preflight(PATHS[0], page)
    assert reply.status == 401
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert "origin" in words(reply, "vary")


@pytest.mark.parametrize("page", [PAGE, *OTHERS])
def test_without_the_setting_no_page_may_call(closed: Place, page: str) -> None:
    """OPTIONS is a call without a key, and no answer says a word to browsers, whatever the model server would."""
    refused = closed.preflight(PATHS[0], page)
    assert refused.status == 401
    good = closed.envoy.get("/models/iris", f"origin: {page}", "x-api-key: k")
    assert good.status == 200
    for reply in (refused, good):
        assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert words(good, "vary") == {"accept"}


def test_a_page_can_read_answers_and_refusals(opened: Place) -> None:
    """With our headers: a page that is limited must learn for how long. What the server says to browsers is dropped."""
    good = opened.envoy.get("/models/iris", f"origin: {PAGE}", "x-api-key: k")
    refused = opened.envoy.get("/models/iris", f"origin: {PAGE}")
    unknown = opened.envoy.post("/v1/chat/completions", b'{"model":"x"}', f"origin: {PAGE}", "x-api-key: k")
    assert [reply.status for reply in (good, refused, unknown)] == [200, 401, 404]
    for reply in (good, refused, unknown):
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert words(reply, "access-control-expose-headers") == set(EXPOSED_HEADERS)
        assert "access-control-allow-credentials" not in reply.headers
        assert "origin" in words(reply, "vary")
    assert words(good, "vary") == {"accept", "origin"}


def test_a_call_that_is_no_pages_is_told_nothing(opened: Place) -> None:
    """Without an Origin there are no words for browsers; OPTIONS that is no preflight needs a key like any call."""
    assert "access-control-allow-origin" not in opened.envoy.get("/models/iris", "x-api-key: k").headers
    asked = opened.asked
    plain = opened.envoy.send(head("OPTIONS", "/models/iris", f"host: {OPEN}", f"origin: {PAGE}"))
    assert (plain.status, opened.asked) == (401, asked + 1)
