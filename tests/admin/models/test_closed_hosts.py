"""Hosts whose tables are closed: how they come to be, what a publishing costs there, what is repaired."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from admin.acts import hosts as hosts_module
from admin.acts.hosts import Site, claim
from admin.host_tables import HostTables
from admin.models import tables
from catalog.actors import Recordless
from catalog.changes import Audit, Change, Delete, Put
from catalog.ids import new_id, shard_of
from catalog.records import (
    HostRecord,
    Kind,
    Limits,
    ModelType,
    PlaceRecord,
    PublicationRecord,
    RouteRecord,
    ServerRecord,
    server_of,
)
from catalog.routes import place_id, route_id
from catalog.store.store import CatalogStore, Conflict

HOST = "api.router.inference-in-a-box"
MANY = 5_000
KSERVES = ["tenant-a/one", "tenant-b/two"]
"""Names that paths say."""
AUDIT = Audit(Recordless.HOSTS, "host.close", HOST, "", "")


class Watch:
    """Hosts' tables, and gates of which a test says what they read."""

    def __init__(self, api: Any, *, keep: bool = False) -> None:
        self.read = True
        self.tables = HostTables(api.services.store, api.services.committer, all_read=self._all_read, keep=keep)

    async def _all_read(self) -> bool:
        return self.read

    async def close_all(self) -> None:
        """Look, where every gate reads routes."""
        await self.tables.look()


async def stands(store: CatalogStore) -> tuple[dict[str, str], dict[str, str], bool]:
    """What the default host says is published there: paths and models by uid, and whether it is closed."""
    table = await store.get(Kind.HOST, HOST)
    assert isinstance(table, HostRecord)
    if not table.is_closed:
        return dict(table.paths or {}), dict(table.models or {}), False
    places = (await store.get_many(Kind.PLACE, await store.ids(Kind.PLACE))).values()
    routes = (await store.get_many(Kind.ROUTE, await store.ids(Kind.ROUTE))).values()
    paths = {one.id.removeprefix(HOST): one.publication for one in places if isinstance(one, PlaceRecord)}
    models = {one.id.removeprefix(f"{HOST}/"): one.publication for one in routes if isinstance(one, RouteRecord)}
    return paths, models, True


@pytest.fixture
async def furnished(api: Any, kserve: str, openai: str) -> Any:
    """Two models of tenant-a, of both types, and one of tenant-b."""
    await api.model("one", kserve)
    await api.model("my-llm", openai)
    await api.model("two", kserve, "tenant-b")
    for name in ("one", "my-llm", "two"):
        assert (await api.publish(name)).status == 201
    return api


async def test_a_table_is_closed_once_every_gate_reads_routes(furnished: Any, kserve: str) -> None:
    """Not before; and so is one that comes to be later."""
    store, watch = furnished.services.store, Watch(furnished)
    paths, models, closed = await stands(store)
    assert (len(paths), sorted(models), closed) == (3, ["tenant-a/my-llm", "tenant-a/one", "tenant-b/two"], False)
    watch.read = False
    await watch.tables.look()
    assert (await stands(store))[2] is False
    watch.read = True
    await watch.tables.look()
    assert await stands(store) == (paths, models, True)
    await furnished.model("three", kserve)
    assert (await furnished.publish("three", publicHostname="own.example")).status == 201
    await watch.tables.look()
    assert (await store.get(Kind.HOST, "own.example")).is_closed


async def test_a_closed_host_is_shown_and_changed_as_before(furnished: Any, kserve: str) -> None:
    """Lists, updates, moves and unpublishing; the host goes with the last publication, and begins as a table again."""
    store = furnished.services.store
    await Watch(furnished).close_all()
    shown = (await furnished.ask("GET", "/api/hosts")).body["items"]
    assert shown == [{"name": HOST, "publications": 3}]
    assert (await furnished.update("one", externalPath="/models/moved")).status == 200
    assert (await furnished.update("my-llm", publicHostname="own.example", externalPath="/x")).status == 200
    paths, models, _ = await stands(store)
    assert (sorted(paths), sorted(models)) == (["/models/moved", "/models/two"], KSERVES)
    assert (await furnished.update("my-llm", publicHostname=HOST, externalPath="/models/llm")).status == 200
    assert (await furnished.publish("one")).code == "ALREADY_PUBLISHED"
    await furnished.model("three", kserve, "tenant-b")
    assert (await furnished.publish("three", externalPath="/models/moved/x")).code == "PATH_TAKEN"
    assert sorted((await stands(store))[1]) == ["tenant-a/my-llm", *KSERVES]
    for name in ("one", "my-llm", "two"):
        assert (await furnished.ask("DELETE", f"/api/models/{name}/publish")).status == 204
    for kind in (Kind.HOST, Kind.PLACE, Kind.ROUTE):
        assert await store.ids(kind) == []
    assert (await furnished.publish("three")).status == 201
    assert (await stands(store))[2] is False


async def test_a_change_of_type_moves_the_route(furnished: Any, openai: str) -> None:
    """An openai model published as a traditional one is in no list of the host's models, and back."""
    await Watch(furnished).close_all()
    await furnished.model("other-llm", openai)
    assert (await furnished.update("my-llm", modelType="traditional")).status == 200
    assert sorted((await stands(furnished.services.store))[1]) == KSERVES
    assert (await furnished.update("my-llm", modelType="openai")).status == 200
    assert sorted((await stands(furnished.services.store))[1]) == ["tenant-a/my-llm", *KSERVES]


async def test_names_that_the_release_before_left_out_come_with_the_closing(furnished: Any) -> None:
    """Its tables have openai models alone; the paths of KServe's clients name the others from then on."""
    store = furnished.services.store
    table = await store.get(Kind.HOST, HOST)
    old = structs.replace(table, models={name: uid for name, uid in table.models.items() if name not in KSERVES})
    await store.commit([Put(old, table.version)], audit=AUDIT)
    await Watch(furnished).close_all()
    assert sorted((await stands(store))[1]) == ["tenant-a/my-llm", *KSERVES]


async def test_an_admin_of_the_release_before_changes_no_closed_host(furnished: Any, store: redis.Redis) -> None:
    """It cannot read the record, as of a damaged one; were its table made again by it, that is what counts."""
    await Watch(furnished).close_all()
    raw = store.get(f"tk:rec:host:{HOST}")
    assert b'"paths":null,"models":null' in raw
    closed = await furnished.services.store.get(Kind.HOST, HOST)
    table = structs.replace(closed, paths={"/models/new": "0a1aaaaaaaaaaaaaaaa"}, models={})
    await furnished.services.store.commit([Put(table, closed.version)], audit=AUDIT)
    assert await stands(furnished.services.store) == ({"/models/new": "0a1aaaaaaaaaaaaaaaa"}, {}, False)


async def test_what_was_closed_half_way_is_finished(furnished: Any, kserve: str) -> None:
    """Broken off after any commit, and the table changed by others in between: what is closed is what it said last."""
    store = furnished.services.store
    table = await store.get(Kind.HOST, HOST)

    async def commit(changes: Any, action: str) -> None:
        if action == tables.CLOSE:
            raise Conflict("host", 1)
        await store.commit(changes, audit=AUDIT)

    with pytest.raises(Conflict):
        await tables.close(store, table, commit)
    assert await store.ids(Kind.PLACE) != []
    assert (await furnished.update("one", externalPath="/models/moved")).status == 200
    assert (await furnished.ask("DELETE", "/api/models/my-llm/publish")).status == 204
    await furnished.model("three", kserve, "tenant-b")
    assert (await furnished.publish("three")).status == 201
    expected = await stands(store)
    with pytest.raises(Conflict):  # one who still goes by the table of before writes nothing
        await tables.close(store, table, lambda changes, _action: store.commit(changes, audit=AUDIT))
    await Watch(furnished).close_all()
    assert await stands(store) == (expected[0], expected[1], True)


async def test_publishing_goes_on_while_tables_are_closed_and_opened(api: Any, kserve: str) -> None:
    """Nothing that was answered is lost, whichever form its host had."""
    names = [f"model-{number}" for number in range(12)]
    for name in names:
        await api.model(name, kserve)
    closing, keeping = Watch(api), Watch(api, keep=True)
    await closing.close_all()

    async def turn() -> None:
        for _ in range(6):
            await closing.tables.look()
            await keeping.tables.look()

    answers, _ = await asyncio.gather(asyncio.gather(*(api.publish(name) for name in names)), turn())
    assert {answer.status for answer in answers} == {201}, [answer.text for answer in answers]
    expected = {f"/models/{name}" for name in names}
    assert (await stands(api.services.store))[0].keys() == expected
    await closing.close_all()
    assert (await stands(api.services.store))[0].keys() == expected


async def test_a_table_comes_back_for_gates_that_read_no_routes(furnished: Any) -> None:
    """``--host-tables keep``: every closed host is opened, whoever is about, also one that was left half-way."""
    store = furnished.services.store
    before = await stands(store)
    await Watch(furnished).close_all()
    host = await store.get(Kind.HOST, HOST)
    await Watch(furnished, keep=True).tables.look()
    assert await stands(store) == before
    await Watch(furnished).close_all()
    host = await store.get(Kind.HOST, HOST)
    await store.commit([Put(structs.replace(host, paths={}), host.version)], audit=AUDIT)
    assert (await furnished.update("one", externalPath="/models/moved")).code == "CONFLICT"
    await Watch(furnished, keep=True).tables.look()
    assert await stands(store) == before


async def test_a_lost_cancellation_does_not_keep_it_alive(api: Any) -> None:
    """It ends even where a library swallowed the cancellation, as asyncio.wait_for may before Python 3.12."""
    asked = asyncio.Event()

    async def swallowing() -> bool:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return False

    services = api.services
    task = asyncio.create_task(HostTables(services.store, services.committer, all_read=swallowing).run())
    await asked.wait()
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()


async def test_damaged_places_and_routes_are_repaired(furnished: Any, store: redis.Redis, kserve: str) -> None:
    """Their host's DELETE makes its table again; one that is whole is left alone."""
    catalog = furnished.services.store
    before = await stands(catalog)
    await Watch(furnished).close_all()
    assert (await furnished.ask("DELETE", f"/api/hosts/{HOST}")).code == "HOST_IN_USE"
    store.set(f"tk:rec:place:{HOST}/models/one", b"{garbage")
    store.set(f"tk:rec:route:{HOST}/tenant-a/my-llm", b"{garbage")
    await furnished.model("four", kserve)
    assert (await furnished.publish("four", externalPath="/models/one")).code == "CORRUPT_RECORD"
    assert (await furnished.ask("DELETE", f"/api/hosts/{HOST}")).status == 204
    assert await stands(catalog) == before
    await Watch(furnished).close_all()
    assert await stands(catalog) == (before[0], before[1], True)


async def test_a_publication_that_cannot_be_read_is_taken_from_a_closed_host(
    furnished: Any, store: redis.Redis
) -> None:
    """Its place and its route are free again; a table with such a one is not closed before."""
    uid = (await furnished.show("my-llm")).body["uid"]
    store.set(f"tk:rec:pub:{uid}", b"{garbage")
    await Watch(furnished).close_all()
    assert (await stands(furnished.services.store))[2] is False
    store.set(f"tk:rec:pub:{uid}", store.get(f"tk:rec:pub:{uid}").replace(b"{garbage", b"{"))
    assert (await furnished.ask("DELETE", f"/api/published-models/{uid}")).status == 204
    await Watch(furnished).close_all()
    one = (await furnished.show("one")).body["uid"]
    store.set(f"tk:rec:pub:{one}", b"{garbage")
    assert (await furnished.ask("DELETE", f"/api/published-models/{one}")).status == 204
    assert (await stands(furnished.services.store))[0].keys() == {"/models/two"}


def publication(model: str, path: str, tenant: str = "tenant-z", kind: ModelType = ModelType.OPENAI) -> Any:
    """A publication that nobody made by the API."""
    shard = shard_of(tenant)
    return PublicationRecord(
        new_id(shard, os.urandom), tenant, model, "http://192.0.2.1", kind, "openai", HOST, path, Limits(),  # type: ignore[arg-type]
        True, (tenant,), new_id(shard, os.urandom), 1, 1,
    )  # fmt: skip


async def fill(store: CatalogStore, count: int) -> None:
    """A closed host with so many models."""
    await store.commit([Put(HostRecord(HOST, None, None, created_at_ms=1), 0)], audit=AUDIT)
    for start in range(0, count, 250):
        changes: list[Change] = []
        for number in range(start, start + 250):
            made = publication(f"m{number}", f"/v1/models/z/m{number}")
            changes += [
                Put(made, 0),
                Put(PlaceRecord(place_id(HOST, made.path), made.tenant, made.uid), 0),
                Put(RouteRecord(route_id(HOST, made.tenant, made.model), made.uid), 0),
            ]
        await store.commit(changes, audit=AUDIT)


STORE_HELD_US = 2_000
SLACK = 5


async def test_a_publishing_holds_the_store_as_short_on_a_host_with_5000_models(
    api: Any, openai: str, store: redis.Redis
) -> None:
    """By the store's own clock: the longest command of publishing, changing and unpublishing is below 2 ms.

    All of the host's models are on the new one's server.
    """
    await fill(api.services.store, MANY)
    uids = await api.services.store.ids(Kind.PUBLICATION, limit=MANY)
    server = ServerRecord(server_of(openai), dict.fromkeys(uids, "tenant-z"), created_at_ms=1)
    await api.services.store.commit([Put(server, 0)], audit=AUDIT)
    store.config_set("slowlog-log-slower-than", 0)
    store.config_set("slowlog-max-len", 10_000)
    await api.model("my-llm", openai)
    store.slowlog_reset()
    try:
        assert (await api.publish("my-llm")).status == 201
        assert (await api.update("my-llm", externalPath="/v1/models/other")).status == 200
        assert (await api.ask("DELETE", "/api/models/my-llm/publish")).status == 204
        longest = sorted((entry["duration"], entry["command"][:40]) for entry in store.slowlog_get(10_000))[-3:]
    finally:
        store.config_set("slowlog-log-slower-than", 10_000)
    assert longest[-1][0] < STORE_HELD_US * SLACK, longest
    server = await api.services.store.get(Kind.SERVER, server.id)
    assert len(server.callers) == MANY


async def test_a_host_may_have_so_many_publications(
    api: Any, kserve: str, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    """Above it a publishing is refused and says so; one that goes makes room, one that moves needs none."""
    del hosts
    monkeypatch.setattr(hosts_module, "MAX_PUBLICATIONS", 2)
    for name in ("one", "two", "three"):
        await api.model(name, kserve)
    assert [(await api.publish(name)).status for name in ("one", "two")] == [201, 201]
    full = await api.publish("three")
    assert (full.status, full.code) == (409, "QUOTA_REACHED")
    assert HOST in full.body["detail"]
    assert (await api.update("two", externalPath="/models/moved")).status == 200
    monkeypatch.setattr(hosts_module, "MAX_PUBLICATIONS", 1)  # as if a release without the bound had let in more
    assert (await api.update("two", rateLimiting={"requestsPerMinute": 7})).status == 200
    assert (await api.update("two", externalPath="/models/moved-again")).status == 200
    monkeypatch.setattr(hosts_module, "MAX_PUBLICATIONS", 2)
    assert (await api.ask("DELETE", "/api/models/one/publish")).status == 204
    assert (await api.publish("three")).status == 201


PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
CLAIMS = st.lists(st.tuples(st.sampled_from(["tenant-a", "tenant-b"]), PATHS), min_size=1, max_size=12)


@given(claims=CLAIMS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_commits_alone_keep_strangers_paths_apart(redis_client: Any, claims: list[tuple[str, str]]) -> None:
    """Claims that looked before anybody had claimed anything: of each overlap of two tenants one alone is written."""
    await redis_client.flushdb()
    store = CatalogStore(redis_client)
    record = HostRecord(HOST, None, None, created_at_ms=1)
    await store.commit([Put(record, 0)], audit=AUDIT)
    standing: dict[str, str] = {}
    for number, (tenant, path) in enumerate(claims):
        made = publication(f"m{number}", path, tenant, ModelType.TRADITIONAL)
        blind = Site(HOST, record, await _own_above(store, tenant, path))
        try:
            await store.commit(claim(blind, made), audit=AUDIT)
            is_written = True
        except Conflict:
            is_written = False
        assert is_written is _is_free(tenant, path, standing), (tenant, path, standing)
        if is_written:
            standing[path] = tenant


async def test_a_path_above_that_was_given_to_a_stranger_meanwhile_is_heeded(redis_client: Any) -> None:
    """Its record has the version that the tenant's own had: made again, it is another one."""
    store, record = CatalogStore(redis_client), HostRecord(HOST, None, None, created_at_ms=1)
    own = PlaceRecord(place_id(HOST, "/a"), "tenant-a", "gone", created_at_ms=1)
    await store.commit([Put(record, 0), Put(own, 0)], audit=AUDIT)
    seen = Site(HOST, record, await _own_above(store, "tenant-a", "/a/b"))
    await store.commit([Delete(Kind.PLACE, own.id, 1)], audit=AUDIT)
    await store.commit([Put(structs.replace(own, tenant="tenant-b", created_at_ms=2), 0)], audit=AUDIT)
    with pytest.raises(Conflict):
        await store.commit(claim(seen, publication("b", "/a/b", "tenant-a", ModelType.TRADITIONAL)), audit=AUDIT)


async def _own_above(store: CatalogStore, tenant: str, path: str) -> Mapping[str, PlaceRecord]:
    """What a claim knows of its own tenant's; of others it knows nothing."""
    found = (await store.get_many(Kind.PLACE, [place_id(HOST, upper) for upper in _above(path)])).values()
    own = [one for one in found if isinstance(one, PlaceRecord) and one.tenant == tenant]
    return {one.id.removeprefix(HOST): one for one in own}


def _above(path: str) -> list[str]:
    names = path.split("/")[1:]
    return ["/" + "/".join(names[:count]) for count in range(1, len(names))]


def _is_free(tenant: str, path: str, standing: Mapping[str, str]) -> bool:
    """The rule in plain words: a path once, and no other tenant's above or below."""
    if path in standing:
        return False
    strangers = [taken for taken, owner in standing.items() if owner != tenant]
    return not any(taken.startswith(f"{path}/") or path.startswith(f"{taken}/") for taken in strangers)
