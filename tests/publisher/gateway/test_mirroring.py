"""Mirrors of publications in a cluster's namespaces: they come, follow, are put back and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio
from kubeserver import KubeServer, kube_server

from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, PublicationRecord
from catalog.store import CatalogStore
from publisher.feed import PublicationFeed
from publisher.gateway.mirroring import CONFIG_MAPS, NAMESPACES, Mirroring
from runtime.kube_watch import Bounds
from runtime.lifecycle import running
from tests.e2e.proxy import publication

AUDIT = Audit("admin", "any", "any", "any", "")
NAME = "published-model-my-model"
RECORD = publication("u1", "/models/my-model", model="my-model")
QUICK = Bounds(first_retry_s=0.01, last_retry_s=0.05)


class World:
    """A cluster, a catalog, and what mirrors one in the other."""

    def __init__(self, cluster: KubeServer, store: CatalogStore) -> None:
        self.cluster = cluster
        self.store = store
        self.told: list[str] = []
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


async def until(condition: Callable[[], bool]) -> None:
    """Poll: what reaches the cluster has no event of ours."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    """A tenant's namespace, mirrored."""
    async with kube_server() as (cluster, api), redis.asyncio.Redis.from_url(redis_url) as client:
        found = World(cluster, CatalogStore(client))
        await found.namespace("tenant-a", "tenant-a")
        mirroring = Mirroring(
            api,
            found.store,
            PublicationFeed(client),
            lambda host, path: f"https://{host}{path}",
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
    await world.put(replace(RECORD, path="/models/moved"), 1)
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
    await world.put(replace(RECORD, path="/models/moved"), 1)
    world.cluster.refuse = 0
    await until(lambda: world.path() == "/models/moved")
    await until(lambda: world.told == [])
