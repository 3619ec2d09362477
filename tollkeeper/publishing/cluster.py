"""The wiring of `--publish-to cluster` and `publish --to cluster`; loaded only where that is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from publisher.gateway.cluster.objects import Cluster
from publisher.gateway.cluster.sink import ClusterSink
from publisher.gateway.options import GatewayOptions
from publisher.metrics import ClusterMetrics
from publisher.workshop import Workshop
from runtime.kube.api import kube_api


@asynccontextmanager
async def cluster_sink(
    option: str,
    options: GatewayOptions,
    kubeconfig: Path | None,
    *,
    may_write: Callable[[], bool],
    registry: CollectorRegistry,
    workshop: Workshop | None = None,
) -> AsyncIterator[ClusterSink]:
    """The sink of a cluster, while the body runs; raises ``CannotStart``. ``option``: what asked for it."""
    metrics = ClusterMetrics(registry)
    async with kube_api(option, kubeconfig) as api:
        yield ClusterSink(Cluster(api, metrics, may_write), options, metrics, workshop=workshop)
