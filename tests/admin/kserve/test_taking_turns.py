"""Of several admins one follows the cluster, and the next goes on where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from kubeserver import kube_server
from prometheus_client import CollectorRegistry

from admin.kserve.follower import SERVICES, Follower
from admin.kserve.metrics import FollowerMetrics
from admin.models.addresses import AddressRules
from catalog.records import Kind
from publisher.turns import names
from publisher.turns.lease import Lease
from publisher.turns.turns import Turns
from runtime.kube.api import NAMESPACES, KubeApi
from runtime.lifecycle import running


class Admin:
    """One admin's part in it."""

    def __init__(self, name: str, kube: KubeApi, api: Any, client: redis.asyncio.Redis) -> None:
        self.registry = CollectorRegistry()
        self._metrics = FollowerMetrics(self.registry)
        self._kube = kube
        self._services = api.services
        lease = Lease(client, name, name=names.MODELS_LEASE)
        self.turns = Turns(lease, self._follow, name="models", failed=lambda: None)

    async def _follow(self) -> None:
        services, rules = self._services, AddressRules()
        given = {"report": services.models, "metrics": self._metrics}
        await Follower(self._kube, services.store, services.committer, rules, **given).run()

    @property
    def leads(self) -> bool:
        return self.registry.get_sample_value("tollkeeper_models_leader") == 1


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll: what reaches the store has no event of ours."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_next_admin_goes_on_with_the_same_models(
    start_api: Callable[..., Awaitable[Any]], redis_client: redis.asyncio.Redis
) -> None:
    """Nothing is made twice, and what went between the two turns is cleared away."""
    async with kube_server() as (cluster, kube):
        await cluster.put(NAMESPACES, "n", metadata={"labels": {"tollkeeper.dev/tenant": "tenant-a"}})
        await cluster.put(SERVICES, "stays", "n")
        await cluster.put(SERVICES, "goes", "n")
        api = await start_api()
        first, second = (Admin(name, kube, api, redis_client) for name in ("first", "second"))

        async def models() -> list[str]:
            return list(await api.services.store.ids(Kind.MODEL))

        async def both_are_there() -> bool:
            return await models() == ["tenant-a/goes", "tenant-a/stays"]

        async def one_is_there() -> bool:
            return await models() == ["tenant-a/stays"]

        async with running(first.turns.run(), name="first"):
            await until(both_are_there)
            before = await api.services.store.get(Kind.MODEL, "tenant-a/stays")
        await cluster.delete(SERVICES, "goes", "n")
        async with running(second.turns.run(), name="second"):
            await until(one_is_there)
            assert (first.leads, second.leads) == (False, True)
        assert await api.services.store.get(Kind.MODEL, "tenant-a/stays") == before
