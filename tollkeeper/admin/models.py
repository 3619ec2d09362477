"""The wiring of `tollkeeper admin --models kubernetes`; loaded only where that is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from admin.kserve.follower import Follower
from admin.kserve.metrics import FollowerMetrics
from admin.models.addresses import AddressRules
from admin.services import Services
from catalog.store.store import TIMEOUT_S
from publisher.feed import BLOCK_MS, PublicationFeed
from publisher.gateway.cluster.mirror import Front
from publisher.gateway.cluster.mirroring import Mirroring
from publisher.turns import names
from publisher.turns.lease import Lease
from publisher.turns.turns import Turns
from runtime.kube.api import kube_api
from runtime.lifecycle import running
from tollkeeper.admin.stores import store_client

_HOLDER_BYTES: Final = 8
_LEASE_TIMEOUT_S: Final = 1.0  # of one question for the lease: a third of its life


@asynccontextmanager
async def following(
    records: str,
    services: Services,
    rules: AddressRules,
    registry: CollectorRegistry,
    kubeconfig: Path | None,
    *,
    gateway: str,
) -> AsyncIterator[None]:
    """Follow the cluster that this process belongs to, whenever it is its turn, while the body runs.

    Its models come into the catalog, and the publications of the catalog into its namespaces, as those of ``gateway``.
    """
    metrics = FollowerMetrics(registry)
    async with (
        kube_api("--models kubernetes", kubeconfig) as api,
        store_client(records, timeout_s=_LEASE_TIMEOUT_S) as claims,
        store_client(records, timeout_s=BLOCK_MS / 1000 + TIMEOUT_S) as news,
    ):

        async def follow() -> None:
            report = services.models
            follower = Follower(
                api,
                services.store,
                services.committer,
                rules,
                report=report,
                metrics=metrics,
                quotas=services.quotas,
            )
            mirroring = Mirroring(
                api,
                services.store,
                PublicationFeed(news),
                Front(gateway, services.gateway.url),
                told=report.tell_of_mirrors,
                failed=lambda cause: metrics.errors.labels(cause).inc(),
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(follower.run(), name="models-follower")
                group.create_task(mirroring.run(), name="publications-mirror")

        lease = Lease(claims, os.urandom(_HOLDER_BYTES).hex(), name=names.MODELS_LEASE)
        turns = Turns(lease, follow, name="models", failed=metrics.errors.labels("lease").inc)
        async with running(turns.run(), name="models-lease"):
            yield
