"""The publisher's sink where the API of a cluster fails, whenever the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
from prometheus_client import CollectorRegistry

from publisher.gateway.cluster import Cluster
from publisher.gateway.cluster_sink import ClusterSink
from publisher.gateway.options import GatewayOptions
from publisher.metrics import ClusterMetrics
from runtime.kube_api import KubeApi
from runtime.lifecycle import running

Answer = Callable[[httpx2.Request], httpx2.Response]


@asynccontextmanager
async def sink_of(answer: Answer, *, resync_s: float) -> AsyncIterator[ClusterSink]:
    """A sink whose API answers like this."""
    metrics = ClusterMetrics(CollectorRegistry())
    options = GatewayOptions(gate=("unix:/run/gate.sock",), per_publication_routes=True)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://api.test") as http:
        yield ClusterSink(Cluster(KubeApi(http), metrics), options, metrics, resync_s=resync_s)


def away(_: httpx2.Request) -> httpx2.Response:
    """Nothing is to be had."""
    return httpx2.Response(503)


async def test_all_is_looked_at_now_and_then() -> None:
    """Again and again, although no watch hears of anything."""
    moved = asyncio.Semaphore(0)
    async with (
        asyncio.timeout(30),
        sink_of(away, resync_s=0.05) as sink,
        running(sink.follow(moved.release), name="follow"),
    ):
        for _ in range(3):
            await moved.acquire()
