"""Whatever is sent, the answer names every fault and is never a fault of the server's."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.http.edge import BODY_S, MAX_BODY_BYTES, MAX_OPEN_BODY_BYTES

LIMITS = "config.rateLimiting"
TOKENS = "config.tokens"

FAULTS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("zero", {"rateLimiting": {"requestsPerMinute": 0}}, {f"{LIMITS}.requestsPerMinute": "range"}),
    ("negative", {"rateLimiting": {"burstLimit": -1}}, {f"{LIMITS}.burstLimit": "range"}),
    ("too large", {"rateLimiting": {"requestsPerHour": 10**9 + 1}}, {f"{LIMITS}.requestsPerHour": "range"}),
    ("huge", {"rateLimiting": {"requestsPerHour": 10**40}}, {f"{LIMITS}.requestsPerHour": "range"}),
    ("a string", {"rateLimiting": {"tokensPerHour": "100"}}, {f"{LIMITS}.tokensPerHour": "type"}),
    ("a float", {"rateLimiting": {"tokensPerHour": 1.0}}, {f"{LIMITS}.tokensPerHour": "type"}),
    ("true", {"rateLimiting": {"burstLimit": True}}, {f"{LIMITS}.burstLimit": "type"}),
    ("no context", {"tokens": {"contextTokens": 0}}, {f"{TOKENS}.contextTokens": "range"}),
    ("a huge context", {"tokens": {"contextTokens": 10**7 + 1}}, {f"{TOKENS}.contextTokens": "range"}),
    ("a context in words", {"tokens": {"contextTokens": "8192"}}, {f"{TOKENS}.contextTokens": "type"}),
    ("no default", {"tokens": {"defaultCompletionTokens": 0}}, {f"{TOKENS}.defaultCompletionTokens": "range"}),
    ("a huge one", {"tokens": {"defaultCompletionTokens": 10**7 + 1}}, {f"{TOKENS}.defaultCompletionTokens": "range"}),
    ("half a token", {"tokens": {"defaultCompletionTokens": 1.5}}, {f"{TOKENS}.defaultCompletionTokens": "type"}),
    ("free images", {"tokens": {"mediaPartTokens": 0}}, {f"{TOKENS}.mediaPartTokens": "range"}),
    ("dear images", {"tokens": {"mediaPartTokens": 10**6 + 1}}, {f"{TOKENS}.mediaPartTokens": "range"}),
    ("less than a byte", {"tokens": {"bytesPerToken": 0.99}}, {f"{TOKENS}.bytesPerToken": "range"}),
    ("too many bytes", {"tokens": {"bytesPerToken": 1000.01}}, {f"{TOKENS}.bytesPerToken": "range"}),
    (
        "less than a byte of a stream",
        {"tokens": {"streamBytesPerToken": 0}},
        {f"{TOKENS}.streamBytesPerToken": "range"},
    ),
    ("bytes in words", {"tokens": {"bytesPerToken": "4"}}, {f"{TOKENS}.bytesPerToken": "type"}),
    ("bytes by truth", {"tokens": {"bytesPerToken": True}}, {f"{TOKENS}.bytesPerToken": "type"}),
    ("a clamp in words", {"tokens": {"clampUsage": "yes"}}, {f"{TOKENS}.clampUsage": "type"}),
    ("a clamp in numbers", {"tokens": {"clampUsage": 1}}, {f"{TOKENS}.clampUsage": "type"}),
    ("an unknown reservation", {"tokens": {"reservation": "lax"}}, {f"{TOKENS}.reservation": "choice"}),
    ("an unknown policy", {"tokens": {"missingUsage": "guess"}}, {f"{TOKENS}.missingUsage": "choice"}),
    ("no time", {"tokens": {"reservationTimeoutSeconds": 0}}, {f"{TOKENS}.reservationTimeoutSeconds": "range"}),
    (
        "an hour and more",
        {"tokens": {"reservationTimeoutSeconds": 3601}},
        {f"{TOKENS}.reservationTimeoutSeconds": "range"},
    ),
    ("null tokens", {"tokens": None}, {TOKENS: "type"}),
    ("a list of tokens", {"tokens": []}, {TOKENS: "type"}),
    ("an unknown token field", {"tokens": {"context": 1}}, {f"{TOKENS}.context": "unknown_field"}),
    ("an endpoint with a slash before it", {"allowedEndpoints": ["/files"]}, {"config.allowedEndpoints[0]": "format"}),
    ("an endpoint with one behind", {"allowedEndpoints": ["files/"]}, {"config.allowedEndpoints[0]": "format"}),
    ("an endpoint in capitals", {"allowedEndpoints": ["files", "Files"]}, {"config.allowedEndpoints[1]": "format"}),
    ("an endpoint with dots", {"allowedEndpoints": ["files/../x"]}, {"config.allowedEndpoints[0]": "format"}),
    ("an endpoint with an escape", {"allowedEndpoints": ["%66iles"]}, {"config.allowedEndpoints[0]": "format"}),
    ("all endpoints", {"allowedEndpoints": ["*"]}, {"config.allowedEndpoints[0]": "format"}),
    ("no endpoint", {"allowedEndpoints": [""]}, {"config.allowedEndpoints[0]": "format"}),
    ("a long endpoint", {"allowedEndpoints": ["x" * 101]}, {"config.allowedEndpoints[0]": "format"}),
    ("the models", {"allowedEndpoints": ["models"]}, {"config.allowedEndpoints[0]": "format"}),
    ("one of the models", {"allowedEndpoints": ["models/llm"]}, {"config.allowedEndpoints[0]": "format"}),
    ("many endpoints", {"allowedEndpoints": [f"e{n}" for n in range(33)]}, {"config.allowedEndpoints": "length"}),
    ("an endpoint alone", {"allowedEndpoints": "files"}, {"config.allowedEndpoints": "type"}),
    ("null endpoints", {"allowedEndpoints": None}, {"config.allowedEndpoints": "type"}),
    ("a background of 1", {"allowBackground": 1}, {"config.allowBackground": "type"}),
    ("null limits", {"rateLimiting": None}, {LIMITS: "type"}),
    ("a list of limits", {"rateLimiting": []}, {LIMITS: "type"}),
    ("an unknown field", {"ratelimiting": {}}, {"config.ratelimiting": "unknown_field"}),
    ("an unknown limit", {"rateLimiting": {"requestPerMinute": 1}}, {f"{LIMITS}.requestPerMinute": "unknown_field"}),
    ("an unknown type", {"modelType": "llm"}, {"config.modelType": "choice"}),
    ("an address", {"publicHostname": "10.0.0.1"}, {"config.publicHostname": "format"}),
    ("a port", {"publicHostname": "a.example:80"}, {"config.publicHostname": "format"}),
    ("a wildcard", {"publicHostname": "*.example"}, {"config.publicHostname": "format"}),
    ("a dot at the end", {"publicHostname": "a.example."}, {"config.publicHostname": "format"}),
    ("an underscore", {"publicHostname": "a_b.example"}, {"config.publicHostname": "format"}),
    ("a newline", {"publicHostname": "a.example\n"}, {"config.publicHostname": "format"}),
    ("a long label", {"publicHostname": "a" * 64}, {"config.publicHostname": "format"}),
    ("a long host", {"publicHostname": "a." * 126 + "aa"}, {"config.publicHostname": "format"}),
    ("an empty host", {"publicHostname": ""}, {"config.publicHostname": "format"}),
    ("another alphabet", {"publicHostname": "\uff41.example"}, {"config.publicHostname": "format"}),
    ("no slash", {"externalPath": "models/x"}, {"config.externalPath": "format"}),
    ("the root", {"externalPath": "/"}, {"config.externalPath": "format"}),
    ("a slash at the end", {"externalPath": "/models/x/"}, {"config.externalPath": "format"}),
    ("an empty segment", {"externalPath": "/models//x"}, {"config.externalPath": "format"}),
    ("a dot segment", {"externalPath": "/models/../x"}, {"config.externalPath": "format"}),
    ("one dot", {"externalPath": "/models/."}, {"config.externalPath": "format"}),
    ("a percent", {"externalPath": "/models/%78"}, {"config.externalPath": "format"}),
    ("a query", {"externalPath": "/models/x?y"}, {"config.externalPath": "format"}),
    ("a newline in the path", {"externalPath": "/models/x\n"}, {"config.externalPath": "format"}),
    ("a regex", {"externalPath": "/models/(x)*"}, {"config.externalPath": "format"}),
    ("a long path", {"externalPath": "/models/" + "x" * 200}, {"config.externalPath": "format"}),
    ("the API's own path", {"externalPath": "/v1/chat/completions"}, {"config.externalPath": "format"}),
    ("what swallows the API", {"externalPath": "/v1"}, {"config.externalPath": "format"}),
    ("all of its models", {"externalPath": "/v1/models"}, {"config.externalPath": "format"}),
    ("beside the shared places", {"externalPath": "/mine/x"}, {"config.externalPath": "reserved"}),
    ("the shared place itself", {"externalPath": "/models"}, {"config.externalPath": "reserved"}),
    ("a bad tenant name", {"tenantId": "Tenant A"}, {"config.tenantId": "format"}),
    ("a long tenant name", {"tenantId": "a" * 64}, {"config.tenantId": "format"}),
    ("an unknown tenant", {"tenantId": "nobody"}, {"config.tenantId": "exists"}),
    (
        "a number in the list",
        {"authentication": {"allowedTenants": [1]}},
        {"config.authentication.allowedTenants[0]": "type"},
    ),
    (
        "too many tenants",
        {"authentication": {"allowedTenants": ["t"] * 501}},
        {"config.authentication.allowedTenants": "length"},
    ),
    (
        "a string for a flag",
        {"authentication": {"requireApiKey": "false"}},
        {"config.authentication.requireApiKey": "type"},
    ),
    (
        "no key needed",
        {"authentication": {"requireApiKey": False}},
        {"config.authentication.requireApiKey": "not_enabled"},
    ),
    ("much metadata", {"metadata": {"a": "x" * 4096}}, {"config.metadata": "length"}),
    ("deep metadata", {"metadata": {"a": {"b": "c"}}}, {"config.metadata.a": "type"}),
]


@pytest.mark.parametrize(("config", "faults"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
async def test_each_fault_of_a_config_is_named(api: Any, kserve: str, config: Any, faults: Any, store: Any) -> None:
    """POST and PUT name the field and the rule that is broken, and change nothing."""
    await api.model("my-model", kserve)
    refused = await api.publish("my-model", **config)
    assert (refused.status, refused.faults) == (400, faults), refused.text
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert store.zcard("tk:index:pub") == 0


async def test_every_fault_is_named_at_once(api: Any, kserve: str) -> None:
    """Faults of form and faults that need the catalog come in one answer, unknown names get the nearest."""
    await api.model("my-model", kserve)
    refused = await api.publish(
        "my-model",
        rateLimits={},
        publicHostname="no host",
        externalPath="/elsewhere",
        rateLimiting={"requestsPerMinute": 0, "burst": 1},
        authentication={"requireApiKey": False, "allowedTenants": ["nobody"]},
    )
    assert refused.code == "INVALID_CONFIG"
    assert refused.faults == {
        "config.rateLimits": "unknown_field",
        "config.publicHostname": "format",
        "config.rateLimiting.requestsPerMinute": "range",
        "config.rateLimiting.burst": "unknown_field",
        "config.authentication.requireApiKey": "not_enabled",
        "config.authentication.allowedTenants[0]": "exists",
        "config.externalPath": "reserved",
    }
    told = {fault["field"]: fault["message"] for fault in refused.body["errors"]}
    assert "rateLimiting" in told["config.rateLimits"]
    assert "burstLimit" in told["config.rateLimiting.burst"]


async def test_an_update_is_checked_as_publishing_is(api: Any, kserve: str) -> None:
    """PUT refuses the same faults, and a place that is wrong only together with what is kept."""
    await api.model("my-model", kserve)
    await api.publish("my-model", publicHostname="own.example", externalPath="/mine/x")
    refused = await api.update("my-model", rateLimiting={"burstLimit": 0}, externalPath="x")
    assert refused.faults == {"config.rateLimiting.burstLimit": "range", "config.externalPath": "format"}
    moved = await api.update("my-model", publicHostname="api.router.inference-in-a-box")
    assert moved.faults == {"config.publicHostname": "reserved"}
    assert (await api.show("my-model")).body["externalPath"] == "/mine/x"


RAW: list[tuple[str, bytes, int, str]] = [
    ("nothing", b" ", 400, "MALFORMED_JSON"),
    ("no JSON", b"{", 400, "MALFORMED_JSON"),
    ("two values", b"{} {}", 400, "MALFORMED_JSON"),
    ("the same name twice", b'{"config": {}, "config": {}}', 400, "MALFORMED_JSON"),
    ("twice deep down", b'{"config": {"metadata": {"a": "1", "a": "2"}}}', 400, "MALFORMED_JSON"),
    ("not a number", b'{"config": {"rateLimiting": {"burstLimit": NaN}}}', 400, "MALFORMED_JSON"),
    ("thousands of digits", b'{"config": ' + b"9" * 5000 + b"}", 400, "MALFORMED_JSON"),
    ("very deep", b"[" * 100_000, 400, "MALFORMED_JSON"),
    ("deep and whole", b'{"config":' * 20_000 + b"1" + b"}" * 20_000, 400, "MALFORMED_JSON"),
    ("latin-1", b'{"config": {"metadata": {"a": "\xe9"}}}', 400, "MALFORMED_JSON"),
    ("half a character", b'{"config": {"metadata": {"a": "\\ud800"}}}', 400, "INVALID_CONFIG"),
    ("half a name", b'{"config": {"\\ud800": 1}}', 400, "INVALID_CONFIG"),
    ("a list", b"[]", 400, "INVALID_CONFIG"),
    ("null", b"null", 400, "INVALID_CONFIG"),
    ("config is null", b'{"config": null}', 400, "INVALID_CONFIG"),
    ("more than a megabyte", b'{"config": {"metadata": {"a": "' + b"x" * 2**20 + b'"}}}', 413, "BODY_TOO_LARGE"),
]


@pytest.mark.parametrize(("raw", "status", "code"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
async def test_bodies_that_are_no_config(api: Any, kserve: str, raw: bytes, status: int, code: str) -> None:
    """What is not strict JSON of the right form is refused with its own code."""
    await api.model("my-model", kserve)
    refused = await api.ask(
        "POST", "/api/models/my-model/publish", data=io.BytesIO(raw), headers={"Content-Type": "application/json"}
    )
    assert (refused.status, refused.code) == (status, code), refused.text


async def test_faults_are_bounded_and_show_no_value(api: Any, kserve: str) -> None:
    """More than a thousand faults make a small answer; no message quotes what was sent."""
    await api.model("my-model", kserve)
    many = await api.publish("my-model", **{f"secret-name-{n}": "hunter2" for n in range(1_500)})
    assert many.status == 400
    assert len(many.body["errors"]) == 50
    assert "hunter2" not in many.text
    wrong = await api.ask("POST", "/api/admin/login", {"username": "admin", "password": ["hunter2"]})
    assert (wrong.faults, "hunter2" in wrong.text) == ({"password": "type"}, False)


async def test_content_types_methods_and_paths(api: Any) -> None:
    """Wrong content type 415, unknown path 404, wrong method 405 with Allow: each a problem document."""
    form = await api.ask("POST", "/api/models/x/publish", data=b"{}", headers={"Content-Type": "text/plain"})
    assert (form.status, form.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    lost = await api.ask("GET", "/api/nothing")
    assert (lost.status, lost.code) == (404, "NOT_FOUND")
    wrong = await api.ask("PATCH", "/api/models/x/publish")
    assert (wrong.status, wrong.code) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["Allow"] == "DELETE, GET, POST, PUT"
    for answer in (form, lost, wrong):
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert {"type", "title", "status", "detail", "code", "requestId"} <= answer.body.keys()
        assert answer.headers["X-Request-Id"] == answer.body["requestId"]


async def test_unknown_parameters_are_named(api: Any) -> None:
    """A mistyped parameter is not silently ignored."""
    refused = await api.ask("GET", "/api/published-models?tenant=tenant-a&limit=1&limit=2")
    assert refused.faults == {"tenant": "unknown_field", "limit": "format"}
    assert "tenantId" in refused.body["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer é"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a.b.c"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "deflate"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=nonsense"},
        {"Content-Type": "é"},
        {"X-Request-Id": "a b\tc"},
        {"Expect": "a miracle"},
    ],
    ids=str,
)
async def test_odd_headers_make_no_fault_of_ours(api: Any, headers: dict[str, str]) -> None:
    """No header makes a 5xx."""
    answer = await api.ask("POST", "/api/models/x/publish", data=b'{"config": {}}', headers=headers)
    assert 400 <= answer.status < 500, answer.text


async def test_headers_that_are_no_text_make_no_fault_of_ours(api: Any) -> None:
    """Bytes that are no UTF-8 in any header that is read: 401 or 4xx, never a 5xx."""
    for header in (b"Authorization: Bearer \xff\xfe", b"X-Request-Id: \xff", b"Content-Encoding: \xff"):
        host, _, port = api.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /api/tenants HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
        writer.write(head + header + b"\r\nContent-Type: application/json\r\n\r\n{}")
        status = int((await reader.read()).split(b" ", 2)[1])
        writer.close()
        assert 400 <= status < 500, header


async def test_a_compressed_flood_is_refused(api: Any) -> None:
    """A body that would grow when unpacked is refused unread."""
    packed = gzip.compress(b'{"config": "' + b" " * 50_000_000 + b'"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = await api.ask("POST", "/api/models/x/publish", data=packed, headers=headers)
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("name", ["..", "a%2Fb", "%00", "a b", "%ff", "a" * 64, "-a", "ü", "a:b", "a*"])
async def test_odd_names_of_models_are_not_found(api: Any, name: str) -> None:
    """A name that no model can have is answered like one that no model has."""
    answer = await api.ask("GET", f"/api/models/{name}/publish")
    assert (answer.status, answer.code in {"MODEL_NOT_FOUND", "NOT_FOUND"}) == (404, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["config", "tenantId", "rateLimiting", "burstLimit", "metadata", "authentication", "allowedTenants"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ROUTES = [
    ("POST", "/api/admin/login"),
    ("POST", "/api/tenants"),
    ("PATCH", "/api/tenants/tenant-a"),
    ("POST", "/api/models"),
    ("POST", "/api/models/my-model/publish"),
    ("PUT", "/api/models/my-model/publish"),
    ("POST", "/api/models/my-model/publish/rotate-key"),
    ("POST", "/api/validate-api-key"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(ROUTES), body=JSON | st.fixed_dictionaries({"config": JSON}))
async def test_no_json_makes_a_fault_of_ours(api: Any, route: tuple[str, str], body: Any) -> None:
    """Whatever JSON is sent to whatever call that takes a body: never a 5xx, every refusal a problem document."""
    method, path = route
    headers = {"Content-Type": "application/json"}
    answer = await api.ask(method, path, data=json.dumps(body).encode(), headers=headers)
    assert answer.status < 500, answer.text
    if answer.status >= 400:
        assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("depth", [60, 200, 470, 900, 100_000])
async def test_deep_bodies_are_told_that_they_are(api: Any, depth: int) -> None:
    """At no depth does a nested body, sent without a login, become a fault of ours."""
    raw = b'{"username": ' + b"[" * depth + b"]" * depth + b"}"
    headers = {"Content-Type": "application/json"}
    answer = await api.ask("POST", "/api/admin/login", data=raw[:8192], headers=headers)
    assert (answer.status, answer.code) == (400, "MALFORMED_JSON")
    answer = await api.ask("PUT", "/api/models/my-model/publish", data=raw, headers=headers)
    assert (answer.status, answer.code) == (400, "MALFORMED_JSON")
    assert "nested too deeply" in answer.body["detail"]


@pytest.mark.parametrize("path", ["/api/admin/login", "/api/validate-api-key"])
async def test_large_bodies_need_a_login(api: Any, path: str) -> None:
    """What anybody may send is small."""
    api.token = ""
    answer = await api.ask("POST", path, {"filler": "x" * 8192})
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"publications": []}, "publications: must have at least 1 item"),
        (
            {"publications": ["llama3.1:8b"]},
            "publications[0]: must be a model's name, not its modelId, or TENANT/NAME",
        ),
        ({"publications": [*map(str, range(10_000))]}, None),
        ({"publications": ["m"], "name": ""}, "name: must have at least 1 character"),
        ({"publications": ["m"], "name": "x" * 64}, "name: must have at most 63 characters"),
        ({"publications": ["m"], "owner": "x" * 257}, "owner: must have at most 256 characters"),
        ({"apiKey": ""}, "apiKey: must have at least 1 character"),
        ({"apiKey": "x" * 1_025}, "apiKey: must have at most 1024 characters"),
    ],
)
async def test_a_wrong_length_is_told_in_words_of_the_api(api: Any, body: Any, detail: str | None) -> None:
    """Once, with the bound and its unit: what one wrong value makes of its list is no fault of its own."""
    path = "/api/keys/find" if "apiKey" in body else "/api/keys"
    refused = await api.ask("POST", path, body if "apiKey" in body else {"tenantId": "tenant-a", "name": "k", **body})
    assert refused.status == 400
    assert detail is None or refused.body["detail"] == detail
    assert not {"validation", "Tuple", "String", "Value"} & set(refused.text.split())


async def test_a_body_of_very_many_fields_is_refused_whole(api: Any) -> None:
    """Naming the faults of one body never holds the others up."""
    many = {f"field{number}": 1 for number in range(56_000)}
    answer = await api.ask("PUT", "/api/models/my-model/publish", {"config": many})
    assert (answer.status, answer.code) == (400, "MALFORMED_JSON")
    assert "holds too much" in answer.body["detail"]


_JSON = b"Content-Type: application/json\r\n"
LENGTH, CHUNKED = b"Content-Length: 50\r\n", b"Transfer-Encoding: chunked\r\n"


async def _slow(api: Any, path: str, head: bytes, sent: bytes) -> tuple[int, Any, float]:
    """Send a part of a body and wait; status and answer, and after how many seconds."""
    host, _, port = api.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = f"Authorization: Bearer {api.token}\r\n".encode()
    begun_s = time.monotonic()
    writer.write(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + token + _JSON + head + b"\r\n" + sent)
    try:
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"}")
            return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2]), time.monotonic() - begun_s
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("head", "sent"), [(LENGTH, b'{"name'), (LENGTH, b""), (CHUNKED, b"1\r\n{\r\n"), (CHUNKED, b"")]
)
async def test_a_body_has_its_time(start_api: Any, head: bytes, sent: bytes) -> None:
    """One that never ends is 408, with and without a login; whoever sends it holds nothing any longer."""
    api = await start_api(body_s=0.5)
    for path in ("/api/users", "/api/admin/login"):
        status, problem, _ = await _slow(api, path, head, sent)
        assert (status, problem["code"]) == (408, "BODY_TOO_SLOW")


async def test_what_is_too_large_is_said_before_it_came(api: Any) -> None:
    """Neither a megabyte nor, without a login, eight kilobytes are waited for."""
    for path, most in (("/api/users", MAX_BODY_BYTES), ("/api/admin/login", MAX_OPEN_BODY_BYTES)):
        chunk = b"%x\r\n" % (most + 1) + b" " * (most + 1) + b"\r\n"
        for head, sent in ((b"Content-Length: %d\r\n" % (most + 1), b""), (CHUNKED, chunk)):
            status, problem, took_s = await _slow(api, path, head, sent)
            assert (status, problem["code"], took_s < BODY_S) == (413, "BODY_TOO_LARGE", True)
