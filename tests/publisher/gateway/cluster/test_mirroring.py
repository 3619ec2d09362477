"""Mirrors of publications in a cluster's namespaces: they come, follow, are put back and go, each gateway's alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
import redis.asyncio
from kubeserver import KubeServer, kube_server
from msgspec import structs

from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, PublicationRecord
from catalog.store.store import CatalogStore
from publisher.feed import PublicationFeed
from publisher.gateway.cluster.mirror import Front
from publisher.gateway.cluster.mirroring import CONFIG_MAPS, Mirroring
from runtime.in_step import PAUSE_S
from runtime.kube.api import NAMESPACES, KubeApi
from runtime.kube.watch import Bounds
from runtime.lifecycle import running
from tests.e2e.proxy import publication

AUDIT = Audit(Recordless.START, "any", "any", "any", "")
NAME = "published-model-my-model"
RECORD = publication("u1", "/models/my-model", model="my-model")
QUICK = Bounds(first_retry_s=0.01, last_retry_s=0.05)


class World:
    """A cluster, a catalog, and what mirrors one in the other."""

    def __init__(self, cluster: KubeServer, api: KubeApi, store: CatalogStore) -> None:
        self.cluster = cluster
        self.api = api
        self.store = store
        self.told: list[str] = []
        self.looks = 0
        self.failures: Counter[str] = Counter()

    def mirror(self, namespace: str = "tenant-a", name: str = NAME) -> dict[str, Any]:
        """A ConfigMap; empty where there is none."""
        return self.cluster.objects.get(CONFIG_MAPS.path(namespace, name), {})

    def path(self, namespace: str = "tenant-a") -> str:
        return str((self.mirror(namespace).get("data") or {}).get("externalPath", ""))

    async def namespace(self, name: str, tenant: str) -> None:
        await self.cluster.put(NAMESPACES, name, metadata={"labels": {"tollkeeper.dev/tenant": tenant}})

    async def put(self, record: PublicationRecord, expected_version: int = 0) -> None:
        await self.store.commit([Put(record, expected_version)], audit=AUDIT)

    def hear(self, faults: Any) -> None:
        self.told = list(faults)
        self.looks += 1


async def until(condition: Callable[[], bool]) -> None:
    """Poll: what reaches the cluster has no event of ours."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    """A tenant's namespace, mirrored."""
    async with kube_server() as (cluster, api), mirrored(cluster, api, redis_url, "tollkeeper") as found:
        await found.namespace("tenant-a", "tenant-a")
        yield found


@asynccontextmanager
async def mirrored(cluster: KubeServer, api: KubeApi, redis_url: str, gateway: str) -> AsyncIterator[World]:
    """A cluster with the mirrors of a gateway, whose catalog is at ``redis_url``."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        found = World(cluster, api, CatalogStore(client))
        mirroring = Mirroring(
            api,
            found.store,
            PublicationFeed(client),
            Front(gateway, lambda host, path: f"https://{host}{path}"),
            told=found.hear,
            failed=lambda cause: found.failures.update([cause]),
            bounds=QUICK,
            resync_s=0.5,
        )
        async with running(mirroring.run(), name="mirroring"):
            yield found


async def test_a_mirror_comes_follows_and_goes_with_its_publication(world: World) -> None:
    """And nothing is written while nothing changes."""
    await world.put(RECORD)
    await until(lambda: world.path() == "/models/my-model")
    await world.put(structs.replace(RECORD, path="/models/moved"), 1)
    await until(lambda: world.path() == "/models/moved")
    written = world.cluster.writes
    await asyncio.sleep(1.2)  # two looks
    assert world.cluster.writes == written
    await world.store.commit([Delete(Kind.PUBLICATION, "u1", 2)], audit=AUDIT)
    await until(lambda: not world.mirror())
    assert world.told == []


async def test_what_others_change_in_a_mirror_is_put_back(world: World) -> None:
    """What they add to it stays theirs."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    there = world.mirror()
    forged = {**there["data"], "externalPath": "/forged", "note": "mine"}
    await world.cluster.put(
        CONFIG_MAPS, NAME, "tenant-a", metadata={"labels": there["metadata"]["labels"]}, data=forged
    )
    await until(lambda: world.path() == "/models/my-model")
    assert world.mirror()["data"]["note"] == "mine"
    await world.cluster.delete(CONFIG_MAPS, NAME, "tenant-a")
    await until(lambda: world.path() == "/models/my-model")


async def test_only_what_is_ours_is_touched(world: World) -> None:
    """Somebody else's ConfigMap of the name stays, and is told of; so do all others."""
    await world.cluster.put(CONFIG_MAPS, NAME, "tenant-a", data={"of": "others"})
    await world.cluster.put(CONFIG_MAPS, "kube-root-ca.crt", "tenant-a", data={"ca.crt": "…"})
    await world.put(RECORD)
    await until(lambda: world.told == [f"tenant-a/{NAME}: a ConfigMap of this name is somebody else's"])
    assert world.mirror()["data"] == {"of": "others"}
    assert world.mirror(name="kube-root-ca.crt")
    await world.cluster.delete(CONFIG_MAPS, NAME, "tenant-a")
    await until(lambda: world.path() == "/models/my-model")
    await until(lambda: world.told == [])


async def test_labels_that_somebody_takes_away_are_put_back(world: World) -> None:
    """It is still ours: we applied it."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    labels = world.mirror()["metadata"]["labels"]
    for gone in ("tollkeeper.dev/publication", "tollkeeper.dev/gateway", "app.kubernetes.io/managed-by"):
        left = {name: value for name, value in labels.items() if name != gone}
        data = world.mirror()["data"]
        await world.cluster.put(CONFIG_MAPS, NAME, "tenant-a", metadata={"labels": left}, data=data)
        await until(lambda: world.mirror()["metadata"]["labels"] == labels)
        assert world.told == []


async def test_a_copy_that_somebody_applied_stays(world: World) -> None:
    """With our labels and all: a backup in another namespace is no mirror, and in a mirror's place it is another's."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    copied = {"metadata": {"labels": world.mirror()["metadata"]["labels"]}, "data": world.mirror()["data"]}
    await world.cluster.put(CONFIG_MAPS, NAME, "backups", **deepcopy(copied))
    looks = world.looks
    await until(lambda: world.looks > looks + 2)
    assert world.mirror("backups")
    await world.store.commit([Delete(Kind.PUBLICATION, "u1", 1)], audit=AUDIT)
    await until(lambda: not world.mirror())
    await world.cluster.put(CONFIG_MAPS, NAME, "tenant-a", **deepcopy(copied))
    await world.put(structs.replace(RECORD, uid="u2"))
    await until(lambda: world.told == [f"tenant-a/{NAME}: a ConfigMap of this name is somebody else's"])
    assert world.mirror()["data"]["uid"] == "u1"


async def test_two_gateways_of_one_cluster_keep_to_their_own(world: World, another_redis_url: str) -> None:
    """Neither removes what only the other's catalog knows; of one name the first has it, and the second tells of it."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    async with mirrored(world.cluster, world.api, another_redis_url, "other") as other:
        await other.put(publication("u2", "/models/b", model="b"))
        await until(lambda: bool(world.mirror(name="published-model-b")))
        written = world.cluster.writes
        looks = world.looks, other.looks
        await until(lambda: world.looks > looks[0] + 1 and other.looks > looks[1] + 1)
        assert world.cluster.writes == written
        await other.put(structs.replace(RECORD, uid="u3", path="/models/others"))
        await until(lambda: other.told == [f"tenant-a/{NAME}: a ConfigMap of this name is somebody else's"])
        assert world.path() == "/models/my-model"
        await world.store.commit([Delete(Kind.PUBLICATION, "u1", 1)], audit=AUDIT)
        await until(lambda: world.path() == "/models/others")
        await until(lambda: other.told == [])


async def test_what_moves_all_the_time_is_looked_at_in_rounds(world: World) -> None:
    """Somebody who writes without a pause makes nobody else do so."""
    await until(lambda: world.looks > 0)
    before, began_s = world.looks, time.monotonic()
    for number in range(200):
        await world.namespace("tenant-a", f"tenant-{number}")
        await asyncio.sleep(0.005)
    assert world.looks - before <= (time.monotonic() - began_s) / PAUSE_S + 1


async def test_one_namespace_that_refuses_stands_in_no_others_way(world: World) -> None:
    """It is told of with the API's words."""
    await world.namespace("tenant-b", "tenant-b")
    world.cluster.forbid = "/namespaces/tenant-a/"
    await world.put(RECORD)
    await world.put(publication("u2", "/models/b", model="my-model", tenant="tenant-b"))
    await until(lambda: world.path("tenant-b") == "/models/b")
    await until(lambda: world.told == [f"tenant-a/{NAME}: forbidden: PATCH"])
    assert world.failures["refused"] > 0


async def test_mirrors_go_with_the_label(world: World) -> None:
    """A namespace that is the tenant's no more has none; they follow to the tenant's other one."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    await world.namespace("tenant-z", "tenant-a")
    await until(lambda: len(world.told) == 1)
    await world.cluster.put(NAMESPACES, "tenant-a", metadata={"labels": {}})
    await until(lambda: not world.mirror() and world.path("tenant-z") == "/models/my-model")


async def test_a_cluster_that_is_away_is_told_and_caught_up_with(world: World) -> None:
    """What changed meanwhile arrives."""
    await world.put(RECORD)
    await until(lambda: bool(world.mirror()))
    world.cluster.refuse = 503
    await world.cluster.cut()
    await until(lambda: any("refused with 503" in fault for fault in world.told))
    await world.put(structs.replace(RECORD, path="/models/moved"), 1)
    world.cluster.refuse = 0
    await until(lambda: world.path() == "/models/moved")
    await until(lambda: world.told == [])
