"""What callers may say for a model: modelId and aliases, each meaning one model of a tenant on a host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from admin.models.naming import names_for
from admin.schemas.fields import is_model_name
from catalog.actors import Recordless
from catalog.changes import Audit, Delete
from catalog.records import HostRecord, Kind, PublicationRecord, RouteRecord
from catalog.routes import route_id
from catalog.store.store import CatalogStore

HOST = "api.router.inference-in-a-box"
SERVED = "meta-llama/Llama-3.1-8B"
AUDIT = Audit(Recordless.START, "publication.delete", "any", "tenant-a", "r")


@pytest.fixture
async def served(start_server: Any) -> str:
    """A server that knows two models by names of its own."""
    listed = [
        {"id": SERVED, "object": "model"},
        {"id": "llama3.1:8b", "object": "model"},
        {"id": "模型", "object": "model"},
    ]
    return str(await start_server({"/v1/models": (200, {"object": "list", "data": listed})}))


async def meant(store: CatalogStore, tenant: str, name: str) -> str:
    """The uid of what a tenant's callers mean by a name on the default host; "" for nothing."""
    host = await store.get(Kind.HOST, HOST)
    if not isinstance(host, HostRecord):
        return ""
    if host.models is not None:
        return host.models.get(f"{tenant}/{name}", "")
    route = await store.get(Kind.ROUTE, route_id(HOST, tenant, name))
    return route.publication if isinstance(route, RouteRecord) else ""


async def names_on(store: CatalogStore) -> set[str]:
    """All that callers may say on the default host, by tenant."""
    host = await store.get(Kind.HOST, HOST)
    assert isinstance(host, HostRecord)
    return set(host.models or {})


async def test_a_model_goes_by_its_name_its_model_id_and_its_aliases(api: Any, served: str, hosts: str) -> None:
    """From publishing until it is taken back; a PUT that names aliases replaces them all, another keeps them."""
    del hosts
    made = await api.model("llama", served, modelId=SERVED)
    assert (made.body["modelId"], made.body["ready"]) == (SERVED, True)
    first = await api.publish("llama", aliases=["gpt-4o", "模型 1"])
    assert (first.status, first.body["modelId"], first.body["aliases"]) == (201, SERVED, ["gpt-4o", "模型 1"])
    uid, store = first.body["uid"], api.services.store
    said = ["llama", SERVED, "gpt-4o", "模型 1", "new"]
    assert [await meant(store, "tenant-a", name) for name in said] == [uid, uid, uid, uid, ""]
    kept = await api.update("llama", rateLimiting={"burstLimit": 3})
    assert kept.body["aliases"] == ["gpt-4o", "模型 1"]
    changed = await api.update("llama", aliases=["new"])
    assert (changed.status, changed.body["aliases"]) == (200, ["new"])
    assert [await meant(store, "tenant-a", name) for name in said] == [uid, uid, "", "", uid]
    moved = await api.update("llama", publicHostname="own.example")
    assert moved.status == 200
    assert (await api.ask("DELETE", "/api/models/llama/publish")).status == 204
    assert [await meant(store, "tenant-a", name) for name in said] == [""] * 5
    assert await store.ids(Kind.ROUTE) == []


@pytest.mark.parametrize(
    ("aliases", "model_id", "field"),
    [
        (["llama"], "llama3.1:8b", "config.aliases[0]"),
        (["fine", SERVED], "llama3.1:8b", "config.aliases[1]"),
        (["gpt-4o"], "llama3.1:8b", "config.aliases[0]"),
        ([], SERVED, "modelId"),
        ([], "llama3.1:8b", "name"),
    ],
)
async def test_a_name_means_one_model(
    api: Any, served: str, hosts: str, aliases: list[str], model_id: str, field: str
) -> None:
    """Whatever of the one it is and of the other: 409 that names the field; nothing of it is done."""
    del hosts
    await api.model("llama", served, modelId=SERVED)
    assert (await api.publish("llama", aliases=["gpt-4o", "taken"])).status == 201
    name = "taken" if field == "name" else "other"
    await api.model(name, served, modelId=model_id)
    refused = await api.publish(name, aliases=aliases)
    assert (refused.status, refused.code, refused.faults) == (409, "NAME_TAKEN", {field: "reserved"})
    assert (await api.show(name)).status == 404
    await api.model(name, served, "tenant-b", modelId=model_id)
    theirs = await api.publish(name, tenantId="tenant-b", externalPath="/models/b", aliases=aliases)
    assert theirs.status == 201  # another tenant's callers mean another's
    assert (await api.ask("DELETE", "/api/models/llama/publish?tenantId=tenant-a")).status == 204
    assert (await api.publish(name, tenantId="tenant-a", aliases=aliases)).status == 201


async def test_an_alias_may_be_another_tenants_model(api: Any, served: str, hosts: str) -> None:
    """One's own go first, as they do for callers."""
    del hosts
    for tenant in ("tenant-a", "tenant-b"):
        await api.model("llama", served, tenant, modelId=SERVED)
        made = await api.publish("llama", tenantId=tenant, externalPath=f"/models/{tenant}", aliases=["tenant-b/llama"])
        assert made.status == 201
    assert await meant(api.services.store, "tenant-a", "tenant-b/llama") != made.body["uid"]


async def test_of_two_at_once_one_has_the_name(api: Any, served: str, hosts: str) -> None:
    """The commit itself holds it."""
    del hosts
    for name, model_id in (("one", SERVED), ("two", "llama3.1:8b")):
        await api.model(name, served, modelId=model_id)
    answers = await asyncio.gather(*(api.publish(name, aliases=["best"]) for name in ("one", "two")))
    assert sorted(one.status for one in answers) == [201, 409]
    assert next(one.code for one in answers if one.status == 409) == "NAME_TAKEN"


async def test_a_name_that_a_release_before_left_behind_is_free(api: Any, served: str) -> None:
    """Such an admin takes a publication back and leaves what it does not know: a route to nobody."""
    store: CatalogStore = api.services.store
    await api.model("llama", served, modelId=SERVED)
    uid = (await api.publish("llama", aliases=["gpt-4o"])).body["uid"]
    record = await store.get(Kind.PUBLICATION, uid)
    assert isinstance(record, PublicationRecord)
    host = await store.get(Kind.HOST, HOST)
    assert isinstance(host, HostRecord)
    await store.commit([Delete(Kind.PUBLICATION, uid, record.version)], audit=AUDIT)
    model = await store.get(Kind.MODEL, "tenant-a/llama")
    assert model is not None
    await store.commit([Delete(Kind.MODEL, "tenant-a/llama", structs.asdict(model)["version"])], audit=AUDIT)
    await api.model("other", served, modelId="llama3.1:8b")
    assert (await api.publish("other", externalPath="/models/other", aliases=["gpt-4o"])).status == 201


@pytest.mark.parametrize(
    "text", ["", " a", "a ", "a\n", "\u200b", "x" * 257, "a\x7f", 1, None, ["a"]], ids=lambda text: repr(text)[:12]
)
async def test_what_no_model_can_be_called(api: Any, served: str, text: Any) -> None:
    """Of modelId and of an alias alike: 400 that names the field."""
    asked = {"name": "llama", "tenantId": "tenant-a", "url": served, "modelId": text}
    refused = await api.ask("POST", "/api/models", asked)
    assert (refused.status, [*refused.faults]) == (400, ["modelId"])
    await api.model("llama", served, modelId=SERVED)
    refused = await api.publish("llama", aliases=["fine", text])
    assert (refused.status, [*refused.faults]) == (400, ["config.aliases[1]"])


async def test_aliases_are_few_and_each_is_there_once(api: Any, served: str) -> None:
    """16; what says the name or the modelId again is no matter."""
    await api.model("llama", served, modelId=SERVED)
    for bad in (["a", "b", "a"], [f"a{n}" for n in range(17)]):
        assert [*(await api.publish("llama", aliases=bad)).faults] == ["config.aliases"]
    assert (
        await api.publish("llama", aliases=["llama", SERVED, "x" * 256, *(f"a{n}" for n in range(13))])
    ).status == 201


async def test_a_model_that_paths_name_has_aliases_and_a_plain_model_id(api: Any, kserve: str, served: str) -> None:
    """KServe's words name it on its host; its own server hears of it by a path. Of others nobody says a name."""
    await api.model("iris", kserve, modelId="iris-v2")
    assert (await api.publish("iris", aliases=["flowers", "a/b c"])).status == 201
    await api.model("other", kserve)
    assert (await api.publish("other", aliases=["flowers"])).code == "NAME_TAKEN"
    assert (await api.publish("other", aliases=["iris-v2"])).code == "NAME_TAKEN"
    assert (await api.publish("other", aliases=["others"])).status == 201
    assert (await api.update("iris", aliases=["others"])).code == "NAME_TAKEN"
    assert (await api.update("iris", aliases=["free"])).status == 200
    assert (await api.update("other", aliases=["flowers"])).status == 200
    await api.model("plain", served, type="traditional")
    asked = await api.publish("plain", modelType="traditional", aliases=["x"])
    assert asked.faults == {"config.aliases": "reserved"}
    await api.model("odd", kserve, modelId="a b")
    assert (await api.publish("odd")).faults == {"modelId": "format"}


async def test_where_no_script_runs_no_other_name_is_taken(api: Any, served: str) -> None:
    """A gateway that cannot tell the server its own name would have the call refused, or another model answer it."""
    api.publisher.rewrites = False
    await api.model("llama", served, modelId=SERVED)
    assert (await api.publish("llama")).faults == {"modelId": "not_enabled"}
    await api.model("llama3.1-8b", served, modelId="llama3.1:8b")
    assert (await api.publish("llama3.1-8b", aliases=["x"])).faults == {"config.aliases": "not_enabled"}
    api.publisher.rewrites = True
    assert (await api.publish("llama")).status == 201
    api.publisher.rewrites = False
    assert (await api.update("llama", aliases=["x"])).faults == {"config.aliases": "not_enabled"}


async def test_a_url_alone_registers_the_one_model_of_its_server(start_api: Any, start_server: Any) -> None:
    """Its path /v1 is taken off; name and modelId come from the server's list; the same once more is told."""
    api = await start_api()
    await api.tenant("team")
    listed = {"object": "list", "data": [{"id": "llama3.1:8b", "object": "model"}]}
    url = await start_server({"/v1/models": (200, listed)})
    made = await api.ask("POST", "/api/models", {"url": f"{url}/v1"})
    assert made.status == 201
    told = [made.body[name] for name in ("name", "modelId", "tenantId", "url", "ready", "type")]
    assert told == ["llama3.1-8b", "llama3.1:8b", "team", url, True, "openai"]
    again = await api.ask("POST", "/api/models", {"url": f"{url}/v1/"})
    assert (again.status, again.code) == (409, "MODEL_EXISTS")
    other = await start_server({"/v1/models": (200, listed)})
    assert (await api.ask("POST", "/api/models", {"url": other})).body["name"] == "llama3.1-8b-2"
    assert (await api.publish("llama3.1-8b")).status == 201


async def test_a_name_of_ones_own_is_for_the_one_model_of_a_server(
    api: Any, kserve: str, served: str, start_server: Any
) -> None:
    """The name stays, modelId is what the server lists; a model of that very name is meant by it.

    Of several one must be chosen. A server that is away, one of KServe's and a type that was given change nothing.
    """
    only = await start_server({"/v1/models": (200, {"object": "list", "data": [{"id": "llama3.1:8b"}]})})
    made = await api.model("short", f"{only}/v1")
    assert [made.body[name] for name in ("name", "modelId", "ready", "type")] == [
        "short",
        "llama3.1:8b",
        True,
        "openai",
    ]
    assert (await api.publish("short")).status == 201
    refused = await api.ask("POST", "/api/models", {"url": served, "tenantId": "tenant-a", "name": "brief"})
    assert (refused.status, refused.faults) == (400, {"modelId": "required"})
    assert '"meta-llama/Llama-3.1-8B", "llama3.1:8b"' in refused.body["detail"]
    two = await start_server({"/v1/models": (200, {"data": [{"id": "brief"}, {"id": "other"}]})})
    assert (await api.model("brief", two)).body["modelId"] == "brief"
    said = await api.model("wrong", only, modelId="wrong")
    assert (said.body["modelId"], said.body["ready"]) == ("wrong", False)
    away = await api.model("away", "http://127.0.0.1:9", type="openai")
    assert (away.body["modelId"], away.body["ready"]) == ("away", False)
    assert (await api.model("plain", only, type="traditional")).body["modelId"] == "plain"
    assert (await api.model("iris", kserve)).body["modelId"] == "iris"


async def test_a_server_of_several_models_says_which(api: Any, served: str, start_server: Any) -> None:
    """Escaped and bounded; of none, and of a server that is away, why."""
    refused = await api.ask("POST", "/api/models", {"url": served, "tenantId": "tenant-a"})
    assert (refused.status, refused.faults) == (400, {"modelId": "required"})
    assert '"meta-llama/Llama-3.1-8B", "llama3.1:8b", "\\u6a21\\u578b"' in refused.body["detail"]
    chosen = await api.ask("POST", "/api/models", {"url": served, "tenantId": "tenant-a", "modelId": SERVED})
    assert (chosen.status, chosen.body["name"]) == (201, "meta-llama-Llama-3.1-8B")
    many = await start_server({"/v1/models": (200, {"data": [{"id": f"m{n}"} for n in range(25)]})})
    detail = (await api.ask("POST", "/api/models", {"url": many, "tenantId": "tenant-a"})).body["detail"]
    assert detail.endswith('"m19" and 5 more')
    empty = await start_server({"/v1/models": (200, {"data": [{"id": "\x1b"}, {"id": 1}, "x"]})})
    assert (await api.ask("POST", "/api/models", {"url": empty, "tenantId": "tenant-a"})).faults == {
        "modelId": "required"
    }
    away = await api.ask("POST", "/api/models", {"url": "http://127.0.0.1:9", "tenantId": "tenant-a"})
    assert away.faults == {"name": "required"}
    several = await api.ask("POST", "/api/models", {"url": served})
    assert [*several.faults] == ["tenantId"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            401,
            {"data": [{"id": "llm"}]},
            "(upstreamAuth gives it the key that it wants: the header's whole value, as in Bearer …)",
        ),
        (302, None, "the server answered 302 (redirects are not followed)"),
        (404, {"detail": "Not Found"}, "the server answered 404"),
        (500, "oops", "the server answered 500"),
        (200, "<html>", "the server does not speak OpenAI's API"),
        (200, {"data": {}}, "the server does not speak OpenAI's API"),
    ],
)
async def test_a_server_that_tells_no_list_is_told_of_as_it_is(
    api: Any, start_server: Any, status: int, body: Any, told: str
) -> None:
    """No modelId would help."""
    url = await start_server({"/v1/models": (status, body)})
    refused = await api.ask("POST", "/api/models", {"url": url, "tenantId": "tenant-a"})
    assert (refused.status, refused.faults) == (400, {"name": "required"})
    assert refused.body["detail"].endswith(told)


@pytest.mark.parametrize(
    ("model_id", "names"),
    [
        ("llama3.1:8b", ["llama3.1-8b", "llama3.1-8b-2"]),
        ("meta-llama/Llama", ["meta-llama-Llama", "meta-llama-Llama-2"]),
        ("模型", ["model", "model-2"]),
        ("x" * 256, ["x" * 63, "x" * 61 + "-2"]),
        ("./_", ["model", "model-2"]),
        ("a" * 62 + "/b", ["a" * 62, "a" * 61 + "-2"]),
    ],
)
def test_a_name_is_made_of_what_the_server_calls_the_model(model_id: str, names: list[str]) -> None:
    """Each is a name that a model may have."""
    made = [*names_for(model_id)]
    assert made[:2] == names
    assert all(map(is_model_name, made))
    assert len(set(made)) == 99


async def test_a_published_models_id_changes_live(api: Any, served: str) -> None:
    """Its names on the host with it, keys and uid untouched; another's name, or one no server has, is refused."""
    await api.model("llama", served, modelId=SERVED)
    made = await api.publish("llama", aliases=["gpt-4o"])
    assert made.status == 201
    store = api.services.store
    keys = await store.ids(Kind.KEY)
    assert (await api.ask("PATCH", "/api/models/llama", {"modelId": "nobody-has-it"})).code == "MODEL_NOT_READY"
    changed = await api.ask("PATCH", "/api/models/llama", {"modelId": "llama3.1:8b"})
    assert (changed.status, changed.body["modelId"]) == (200, "llama3.1:8b")
    shown = (await api.ask("GET", "/api/models/llama/publish")).body
    assert (shown["modelId"], shown["aliases"], shown["uid"]) == ("llama3.1:8b", ["gpt-4o"], made.body["uid"])
    assert await store.ids(Kind.KEY) == keys
    assert await names_on(store) == {"tenant-a/llama", "tenant-a/llama3.1:8b", "tenant-a/gpt-4o"}
    assert (await api.update("llama", aliases=["gpt-5"])).status == 200
    assert await names_on(store) == {"tenant-a/llama", "tenant-a/llama3.1:8b", "tenant-a/gpt-5"}
    await api.model("second", served, modelId=SERVED)
    assert (await api.publish("second")).status == 201
    taken = await api.ask("PATCH", "/api/models/second", {"modelId": "llama3.1:8b"})
    assert (taken.code, taken.faults) == ("NAME_TAKEN", {"modelId": "reserved"})
    assert (await api.ask("GET", "/api/models/second")).body["modelId"] == SERVED


async def test_a_model_that_paths_name_keeps_a_plain_id(api: Any, kserve: str) -> None:
    """What no path can name is refused, published or not asked about."""
    await api.model("iris", kserve)
    assert (await api.publish("iris")).status == 201
    assert (await api.ask("PATCH", "/api/models/iris", {"modelId": "a b"})).status in {400, 409}
    assert (await api.ask("PATCH", "/api/models/iris", {"modelId": "iris-v2"})).status == 200
    assert (await api.ask("PATCH", "/api/models/iris", {"modelId": "iris"})).body["modelId"] == "iris"
    assert await names_on(api.services.store) == {"tenant-a/iris"}
