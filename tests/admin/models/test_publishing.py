"""The guide's admin commands: their shapes and what they promise."""

from __future__ import annotations

from typing import Any

from admin.services import Gateway

TOKENS = {
    "contextTokens": 8_192,
    "contextTokensFrom": "default",
    "serverContextTokens": None,
    "contextTokensHint": "",
    "defaultCompletionTokens": 4_096,
    "mediaPartTokens": 2_048,
    "bytesPerToken": 2.5,
    "streamBytesPerToken": None,
    "clampUsage": False,
    "reservation": "strict",
    "missingUsage": "estimate",
    "reservationTimeoutSeconds": 600,
}
"""As the API shows what nobody gave."""
GIVEN = {"contextTokens": 8_192, "reservation": "strict", "missingUsage": "estimate", "reservationTimeoutSeconds": 600}
CONFIG = {
    "tenantId": "tenant-a",
    "publicHostname": "api.router.inference-in-a-box",
    "externalPath": "/models/my-model",
    "rateLimiting": {
        "requestsPerMinute": 100,
        "requestsPerHour": 5000,
        "tokensPerHour": 100000,
        "burstLimit": 10,
    },
    "authentication": {"requireApiKey": True, "allowedTenants": ["tenant-a"]},
}


async def test_publish_gives_the_whole_key_and_every_field_of_the_guide(api: Any, kserve: str) -> None:
    """Publishing answers 201, flat, with the key's whole text; afterwards the text is never shown again."""
    await api.model("my-model", kserve)
    made = await api.publish("my-model", **CONFIG)
    assert made.status == 201, made.text
    assert made.body["apiKey"].startswith("tk_")
    assert len(made.body["apiKey"]) == 75
    assert made.body["externalUrl"] == "https://api.router.inference-in-a-box/models/my-model"
    assert made.body["rateLimiting"] == CONFIG["rateLimiting"]
    assert CONFIG["authentication"].items() <= made.body["authentication"].items()
    assert (made.body["modelName"], made.body["tenantId"], made.body["modelType"]) == (
        "my-model",
        "tenant-a",
        "traditional",
    )
    shown = await api.show("my-model")
    assert shown.status == 200
    assert shown.body["apiKey"] != made.body["apiKey"]
    assert made.body["apiKey"] not in shown.text
    assert shown.body["apiKey"] == made.body["apiKey"][:9] + "…"
    assert shown.body["status"] == "live"
    assert shown.body["usage"] == {"totalRequests": 0, "requestsToday": 0, "tokensUsed": 0, "lastAccessTime": None}
    assert {**made.body, "apiKey": ""} == {**shown.body, "apiKey": ""}


async def test_publishing_needs_no_body(api: Any, kserve: str) -> None:
    """Nothing sent is an empty config, with or without a Content-Type, and so is {}; blanks are no JSON."""
    json = {"Content-Type": "application/json"}
    for name, headers in (("one", {}), ("two", json)):
        await api.model(name, kserve)
        made = await api.ask("POST", f"/api/models/{name}/publish", headers=headers)
        assert (made.status, made.body["externalPath"]) == (201, f"/models/{name}"), made.text
        changed = await api.ask("PUT", f"/api/models/{name}/publish", headers=json)
        assert (changed.status, changed.code) == (400, "MALFORMED_JSON")
    await api.model("three", kserve)
    blank = await api.ask("POST", "/api/models/three/publish", data=" ", headers=json)
    assert (blank.status, blank.code) == (400, "MALFORMED_JSON")
    empty = await api.ask("POST", "/api/models/three/publish", {})
    assert (empty.status, empty.body["externalPath"]) == (201, "/models/three"), empty.text
    unchanged = await api.ask("PUT", "/api/models/three/publish", {})
    assert (unchanged.status, unchanged.body["rateLimiting"]) == (200, empty.body["rateLimiting"])


async def test_an_empty_config_is_published_with_the_defaults(api: Any, kserve: str, openai: str) -> None:
    """What is not said is found out or defaulted: type, host, path, budgets, the owner as allowed tenant."""
    await api.model("my-model", kserve)
    await api.model("my-llm", openai)
    made = (await api.publish("my-model")).body
    assert (made["modelType"], made["externalPath"]) == ("traditional", "/models/my-model")
    assert made["rateLimiting"] == {
        "requestsPerMinute": 100,
        "requestsPerHour": 5000,
        "tokensPerHour": None,
        "burstLimit": 10,
    }
    assert made["authentication"] == {
        "requireApiKey": True,
        "allowedTenants": ["tenant-a"],
        "anonymousRequestsPerMinute": 60,
    }
    llm = (await api.publish("my-llm")).body
    assert (llm["modelType"], llm["externalPath"]) == ("openai", "/v1/models/my-llm")
    assert llm["rateLimiting"]["tokensPerHour"] == 100_000
    assert llm["tokens"] == made["tokens"] == TOKENS


async def test_a_token_policy_is_merged_field_by_field(api: Any, openai: str) -> None:
    """Publishing fills what is not said with defaults; PUT changes what is named and keeps the rest."""
    await api.model("my-llm", openai)
    made = await api.publish("my-llm", tokens={"contextTokens": 128_000, "reservation": "adaptive"})
    given = {**TOKENS, "contextTokens": 128_000, "contextTokensFrom": "setting"}
    assert made.body["tokens"] == {**given, "reservation": "adaptive"}
    changed = await api.update("my-llm", tokens={"missingUsage": "free", "reservationTimeoutSeconds": 5})
    wanted = {
        **given,
        "reservation": "adaptive",
        "missingUsage": "free",
        "reservationTimeoutSeconds": 5,
    }
    assert changed.body["tokens"] == wanted
    assert (await api.update("my-llm", rateLimiting={"tokensPerHour": None})).body["tokens"] == wanted
    new = {
        "defaultCompletionTokens": 10**7,
        "mediaPartTokens": 10**6,
        "bytesPerToken": 1,
        "clampUsage": True,
        "streamBytesPerToken": 220.5,
    }
    assert (await api.update("my-llm", tokens=new)).body["tokens"] == {**wanted, **new}
    back = await api.update("my-llm", tokens=GIVEN | {name: TOKENS[name] for name in new})
    assert back.body["tokens"] == {**TOKENS, "contextTokensFrom": "setting"}
    assert (await api.show("my-llm")).body["tokens"] == back.body["tokens"]


async def test_endpoints_are_opened_by_name(api: Any, openai: str) -> None:
    """None at first; a list replaces the one before, sorted and each once; what is not said is kept."""
    await api.model("my-llm", openai)
    made = (await api.publish("my-llm")).body
    assert (made["allowedEndpoints"], made["allowBackground"]) == ([], False)
    asked = ["vector_stores", "files", "files"]
    changed = (await api.update("my-llm", allowedEndpoints=asked, allowBackground=True)).body
    assert (changed["allowedEndpoints"], changed["allowBackground"]) == (["files", "vector_stores"], True)
    kept = (await api.update("my-llm", metadata={})).body
    assert (kept["allowedEndpoints"], kept["allowBackground"]) == (["files", "vector_stores"], True)
    longest = [f"{number:02}/{'x' * 97}" for number in range(32)]
    closed = (await api.update("my-llm", allowedEndpoints=longest, allowBackground=False)).body
    assert (closed["allowedEndpoints"], closed["allowBackground"]) == (longest, False)
    assert (await api.show("my-llm")).body == closed


async def test_a_traditional_model_keeps_a_token_policy_for_later(api: Any, kserve: str) -> None:
    """Token settings of a traditional model are accepted and kept, as its tokensPerHour is, until it is openai."""
    await api.model("my-model", kserve)
    made = await api.publish("my-model", **CONFIG, tokens={"contextTokens": 4_096})
    assert (made.status, made.body["tokens"]["contextTokens"]) == (201, 4_096)
    changed = await api.update("my-model", modelType="openai")
    assert (changed.body["modelType"], changed.body["tokens"]["contextTokens"]) == ("openai", 4_096)


async def test_update_merges(api: Any, kserve: str) -> None:
    """PUT changes what is named, keeps what is absent and takes null as unlimited."""
    await api.model("my-model", kserve)
    await api.publish("my-model", **CONFIG, metadata={"team": "red"})
    changed = await api.update(
        "my-model",
        tenantId="tenant-a",
        publicHostname="api.router.inference-in-a-box",
        rateLimiting={"requestsPerMinute": 200, "requestsPerHour": 10000, "burstLimit": None},
    )
    assert changed.status == 200, changed.text
    assert changed.body["rateLimiting"] == {
        "requestsPerMinute": 200,
        "requestsPerHour": 10000,
        "tokensPerHour": 100000,
        "burstLimit": None,
    }
    assert changed.body["externalPath"] == "/models/my-model"
    assert changed.body["metadata"] == {"team": "red"}
    shown = await api.show("my-model")
    assert shown.body == changed.body
    assert api.publisher.pokes >= 2


async def test_null_limits_at_publishing_are_unlimited(api: Any, kserve: str) -> None:
    """A null limit is stored as unlimited, not as the default."""
    await api.model("my-model", kserve)
    made = await api.publish("my-model", rateLimiting={"requestsPerMinute": None})
    assert made.body["rateLimiting"]["requestsPerMinute"] is None
    assert made.body["rateLimiting"]["requestsPerHour"] == 5000


async def test_unpublish_forgets_key_and_claims_and_usage_has_an_end(api: Any, kserve: str, store: Any) -> None:
    """DELETE leaves no publication, key or host entry; usage stays for its time; published again, all is new."""
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body
    uid = store.zrange("tk:index:pub", 0, -1)[0].decode()
    for subject in (f"p:{uid}", f"k:{made['keyId']}"):
        store.hset(f"tk:usage:{{0}}:{subject}", mapping={"total": 7, "last_ms": 1})
    assert (await api.show("my-model")).body["usage"]["totalRequests"] == 7
    gone = await api.ask("DELETE", "/api/models/my-model/publish")
    assert (gone.status, gone.text) == (204, "")
    left = {name.decode() for name in store.keys("*")}
    assert not {name for name in left if name.startswith(("tk:rec:pub", "tk:rec:key", "tk:rec:host"))}
    for subject in (f"p:{uid}", f"k:{made['keyId']}"):
        assert 396 * 86_400 < store.ttl(f"tk:usage:{{0}}:{subject}") <= 397 * 86_400
    assert (await api.show("my-model")).code == "NOT_PUBLISHED"
    assert (await api.ask("DELETE", "/api/models/my-model/publish")).status == 404
    again = (await api.publish("my-model")).body
    assert again["keyId"] != made["keyId"]
    assert (await api.validate(made["apiKey"]))["valid"] is False
    assert (await api.validate(again["apiKey"]))["valid"] is True


async def test_the_tenant_in_the_config_selects_the_model(api: Any, kserve: str) -> None:
    """Naming a tenant picks its model; a name that two tenants have needs saying whose."""
    await api.model("tenant-b-model", kserve, "tenant-b")
    made = await api.publish("tenant-b-model", tenantId="tenant-b", externalPath="/models/tenant-b-model")
    assert (made.status, made.body["tenantId"]) == (201, "tenant-b")
    for tenant in ("tenant-a", "tenant-b"):
        await api.model("shared", kserve, tenant)
    assert (await api.publish("shared")).code == "AMBIGUOUS_MODEL"
    made = await api.publish("shared", tenantId="tenant-b", externalPath="/models/shared-b")
    assert made.body["tenantId"] == "tenant-b"
    made = await api.ask("POST", "/api/models/shared/publish?tenantId=tenant-a", {"config": {}})
    assert made.body["tenantId"] == "tenant-a"
    assert (await api.show("shared")).code == "AMBIGUOUS_MODEL"
    shown = await api.ask("GET", "/api/models/shared/publish?tenantId=tenant-b")
    assert shown.body["externalPath"] == "/models/shared-b"
    changed = await api.update("shared", tenantId="tenant-b", rateLimiting={"burstLimit": 3})
    assert (changed.body["tenantId"], changed.body["rateLimiting"]["burstLimit"]) == ("tenant-b", 3)


async def test_what_cannot_be_published_says_why(api: Any, kserve: str, start_server: Any) -> None:
    """Each reason has its own code, and "Model is not ready" tells what was found."""
    await api.model("my-model", kserve)
    loading = await start_server({"/v1/models/{name}": (503, {"name": "slow", "ready": False})})
    registered = await api.model("slow", loading)
    assert registered.body["ready"] is False
    assert (await api.publish("nobody")).code == "MODEL_NOT_FOUND"
    refused = await api.publish("slow")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
    assert refused.body["detail"].startswith("Model is not ready: ")
    assert (await api.publish("my-model", tenantId="tenant-b")).code == "MODEL_NOT_FOUND"
    unknown = await api.publish("my-model", tenantId="nobody")
    assert (unknown.status, unknown.code) == (400, "INVALID_TENANT")
    foreign = await api.publish("my-model", authentication={"allowedTenants": ["tenant-b", "nobody"]})
    assert (foreign.code, foreign.faults) == ("INVALID_TENANT", {"config.authentication.allowedTenants[1]": "exists"})
    anonymous = await api.publish("my-model", authentication={"requireApiKey": False})
    assert (anonymous.status, anonymous.code) == (400, "INVALID_CONFIG")
    assert anonymous.faults == {"config.authentication.requireApiKey": "not_enabled"}
    assert "calls without a key are not allowed here" in anonymous.body["detail"]
    assert (await api.publish("my-model")).status == 201
    assert (await api.publish("my-model")).code == "ALREADY_PUBLISHED"
    assert (await api.update("slow", rateLimiting={})).code == "NOT_PUBLISHED"
    moved = await api.update("my-model", tenantId="tenant-b")
    assert (moved.code, moved.faults) == ("INVALID_CONFIG", {"config.tenantId": "fixed"})
    assert (await api.ask("DELETE", "/api/models/my-model")).code == "MODEL_PUBLISHED"


async def test_the_owner_may_always_call(api: Any, kserve: str) -> None:
    """The owner's tenant is among the allowed ones whatever is sent; the list is sorted and without doubles."""
    await api.model("my-model", kserve)
    made = await api.publish("my-model", authentication={"allowedTenants": ["tenant-b", "tenant-b"]})
    assert made.body["authentication"]["allowedTenants"] == ["tenant-a", "tenant-b"]
    changed = await api.update("my-model", authentication={"allowedTenants": []})
    assert changed.body["authentication"]["allowedTenants"] == ["tenant-a"]


async def test_a_publication_moves_to_another_host(api: Any, kserve: str, store: Any) -> None:
    """Changing host and path gives the old place back in the same write: someone else can have it."""
    await api.model("my-model", kserve)
    await api.model("other", kserve, "tenant-b")
    await api.publish("my-model")
    moved = await api.update("my-model", publicHostname="API.MyCompany.com", externalPath="/anything/here")
    assert moved.body["externalUrl"] == "https://api.mycompany.com/anything/here"
    assert store.zrange("tk:index:host", 0, -1) == [b"api.mycompany.com"]
    assert (await api.publish("other", externalPath="/models/my-model")).status == 201


async def test_published_models_are_listed_in_pages(api: Any, kserve: str) -> None:
    """Following next gives every publication once, whatever the page's size; keys stay masked."""
    names = [f"model-{number}" for number in range(5)]
    for name in names:
        await api.model(name, kserve)
        assert (await api.publish(name)).status == 201
    seen, cursor = [], ""
    while cursor is not None:
        page = (await api.ask("GET", f"/api/published-models?limit=2&cursor={cursor}")).body
        assert len(page["items"]) <= 2
        seen += [item["modelName"] for item in page["items"]]
        assert all(item["apiKey"].endswith("…") for item in page["items"])
        cursor = page["next"]
    assert sorted(seen) == names
    assert (await api.ask("GET", "/api/published-models?tenantId=tenant-b")).body["items"] == []
    for bad in ("0", "501", "x", "-1", "٣"):
        assert (await api.ask("GET", f"/api/published-models?limit={bad}")).faults == {"limit": "range"}


async def test_a_type_said_by_hand_goes_before_what_is_found(api: Any, kserve: str, start_server: Any) -> None:
    """A given type overrides; a server of neither protocol is published only when it is said to be traditional."""
    await api.model("my-model", kserve)
    made = await api.publish("my-model", modelType="openai")
    assert (made.body["modelType"], made.body["externalPath"]) == ("openai", "/v1/models/my-model")
    back = await api.update("my-model", modelType="traditional")
    assert back.body["modelType"] == "traditional"
    plain = await start_server({})
    await api.model("plain", plain)
    assert (await api.publish("plain")).code == "MODEL_NOT_READY"
    assert (await api.publish("plain", modelType="traditional")).status == 201
    registered = await api.model("said", plain, type="traditional")
    assert (registered.body["ready"], registered.body["protocol"]) == (True, "http")
    assert (await api.publish("said")).status == 201


async def test_examples_name_the_key_by_variable_only(api: Any, kserve: str, openai: str) -> None:
    """The client examples hold the URL to call and never a key's text."""
    await api.model("my-model", kserve)
    await api.model("my-llm", openai)
    made = (await api.publish("my-model")).body
    assert "https://api.router.inference-in-a-box/models/my-model/predict" in made["examples"]["curl"]
    assert made["apiKey"] not in str(made["examples"])
    llm = (await api.publish("my-llm")).body
    assert "https://api.router.inference-in-a-box/v1/chat/completions" in llm["examples"]["curl"]
    compile(llm["examples"]["python"], "example", "exec")


async def test_each_protocol_has_the_example_that_fits_it(
    start_api: Any, kserve: str, openai: str, start_server: Any
) -> None:
    """KServe's predict, OpenAI's chat, and for any other server its root; URLs carry the gateway's own port."""
    api = await start_api(gateway=Gateway("gateway.example", "http", 8080))
    await api.tenant("tenant-a")
    for name, url in (("my-model", kserve), ("my-llm", openai), ("plain", await start_server({}))):
        await api.model(name, url)
    origin = "http://gateway.example:8080"
    rows = (
        ("my-model", {}, "/models/my-model", "/models/my-model/predict", "instances"),
        ("my-llm", {}, "/v1/models/my-llm", "/v1/chat/completions", "messages"),
        ("plain", {"modelType": "traditional"}, "/models/plain", "/models/plain/", "hello"),
    )
    for name, config, path, called, field in rows:
        made = (await api.publish(name, **config)).body
        assert made["externalUrl"] == origin + path
        curl, python = made["examples"]["curl"], made["examples"]["python"]
        assert (curl.endswith(f" {origin}{called}"), f'"{field}"' in curl) == (True, True), curl
        assert (f"'{origin}{called}'" in python, f"'{field}'" in python) == (True, True), python
        assert ("instances" in curl) is (name == "my-model")
        compile(python, "example", "exec")


async def test_a_model_of_the_open_inference_protocol_is_found_and_published(api: Any, start_server: Any) -> None:
    """A server of KServe v2 alone: found out by asking, its example calls ``infer``; not ready is said."""
    metadata = {"name": "tensor", "versions": ["1"], "platform": "any", "inputs": [], "outputs": []}
    routes = {"/v2/models/tensor": (200, metadata), "/v2/models/tensor/ready": (200, {})}
    routes |= {"/v2/models/slow": (200, metadata), "/v2/models/slow/ready": (400, {"error": "loading"})}
    server = await start_server(routes)
    found = (await api.model("tensor", server)).body
    assert (found["type"], found["protocol"], found["ready"]) == ("traditional", "kserve-v2", True)
    made = await api.publish("tensor")
    assert made.status == 201, made.text
    assert "/models/tensor/infer" in made.body["examples"]["curl"]
    slow = (await api.model("slow", server)).body
    assert (slow["protocol"], slow["ready"]) == ("kserve-v2", False)
    assert (await api.publish("slow")).code == "MODEL_NOT_READY"
