"""Who may reach a model server: written with every publication that leads there, so that gates need not search."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from catalog.records import Kind, PublicationRecord, ServerRecord, server_of

NAMES = ("one", "two", "theirs", *(f"m{number}" for number in range(6)))


@pytest.fixture
async def openai(start_server: Any) -> str:
    """A server of OpenAI's API with all models of these tests."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in NAMES]}
    url: str = await start_server({"/v1/models": (200, listed)})
    return url


async def server_at(api: Any, url: str) -> ServerRecord | None:
    """What is written of the server at a URL."""
    found = await api.services.store.get(Kind.SERVER, server_of(url))
    assert found is None or isinstance(found, ServerRecord)
    return found


async def is_alone(api: Any, made: Any) -> bool:
    """Whether the server of a publication is one tenant's alone, as a gate would say."""
    found = await api.services.store.get(Kind.PUBLICATION, made.body["uid"])
    assert isinstance(found, PublicationRecord)
    server = await server_at(api, found.url)
    return server is not None and server.is_alone(found)


async def test_a_server_is_alone_until_another_tenant_publishes_it(api: Any, openai: str) -> None:
    """And again when that is taken back; the last publication takes the record along."""
    await api.model("one", openai)
    await api.model("two", openai)
    await api.model("theirs", openai, "tenant-b")
    one, two = await api.publish("one"), await api.publish("two", externalPath="/v1/models/second")
    assert await is_alone(api, one)
    assert await is_alone(api, two)
    theirs = await api.publish("theirs")
    assert theirs.status == 201
    assert not any([await is_alone(api, made) for made in (one, two, theirs)])
    assert (await api.ask("DELETE", "/api/models/theirs/publish")).status == 204
    assert await is_alone(api, one)
    await api.ask("DELETE", "/api/models/one/publish")
    assert await is_alone(api, two)
    await api.ask("DELETE", "/api/models/two/publish")
    assert await server_at(api, openai) is None


@pytest.mark.parametrize("change", [{"allowedTenants": ["tenant-b"]}, {"requireApiKey": False}])
async def test_others_who_may_call_make_it_shared_and_back(start_api: Any, openai: str, change: dict[str, Any]) -> None:
    """Another publication of the same server is concerned too."""
    api = await start_api(allow_anonymous=True)
    for tenant in ("tenant-a", "tenant-b"):
        await api.tenant(tenant)
    await api.model("one", openai)
    await api.model("two", openai)
    one, two = await api.publish("one"), await api.publish("two", externalPath="/v1/models/second")
    assert (await api.update("two", authentication=change)).status == 200
    assert not await is_alone(api, one)
    assert not await is_alone(api, two)
    back = {"allowedTenants": [], "requireApiKey": True}
    assert (await api.update("two", authentication=back)).status == 200
    assert await is_alone(api, one)
    assert await is_alone(api, two)


async def test_a_traditional_publication_counts_too(api: Any, openai: str) -> None:
    """Its callers may reach the same paths."""
    await api.model("one", openai)
    one = await api.publish("one")
    await api.model("theirs", openai, "tenant-b")
    assert (await api.publish("theirs", modelType="traditional")).status == 201
    assert not await is_alone(api, one)


async def test_published_at_once_none_is_missed(api: Any, openai: str) -> None:
    """Two tenants that publish one server at the same moment both see it shared."""
    tenants = ("tenant-a", "tenant-b") * 3
    for number, tenant in enumerate(tenants):
        await api.model(f"m{number}", openai, tenant)
    made = await asyncio.gather(*(api.publish(f"m{number}") for number in range(len(tenants))))
    assert {one.status for one in made} == {201}
    server = await server_at(api, openai)
    assert server is not None
    assert server.callers == {one.body["uid"]: one.body["tenantId"] for one in made}


@pytest.mark.parametrize("left", [None, b"{garbage"], ids=["missing", "damaged"])
async def test_what_is_not_written_is_found_out(api: Any, openai: str, store: Any, left: bytes | None) -> None:
    """Publications of the release before stand in no record: the next change of one finds them all."""
    await api.model("one", openai)
    await api.model("theirs", openai, "tenant-b")
    one, theirs = await api.publish("one"), await api.publish("theirs")
    name = f"tk:rec:server:{server_of(openai)}"
    store.delete(name)
    if left is not None:
        store.set(name, left)
    assert (await api.update("one")).status == 200  # with nothing changed
    server = await server_at(api, openai)
    assert server is not None
    assert server.callers == {one.body["uid"]: "tenant-a", theirs.body["uid"]: "tenant-b"}


async def test_a_damaged_publication_leaves_its_server(api: Any, openai: str, store: Any) -> None:
    """Removing what cannot be read frees the server of it."""
    await api.model("one", openai)
    await api.model("theirs", openai, "tenant-b")
    one, theirs = await api.publish("one"), await api.publish("theirs")
    store.set(f"tk:rec:pub:{theirs.body['uid']}", b"{garbage")
    assert (await api.ask("DELETE", f"/api/published-models/{theirs.body['uid']}")).status == 204
    assert await is_alone(api, one)


async def test_an_update_that_changes_no_caller_writes_no_server(api: Any, openai: str, store: Any) -> None:
    """Its record is contended by all who publish the same server."""
    await api.model("one", openai)
    await api.publish("one")
    before = json.loads(store.get(f"tk:rec:server:{server_of(openai)}"))
    await api.update("one", metadata={"team": "red"})
    assert json.loads(store.get(f"tk:rec:server:{server_of(openai)}")) == before
