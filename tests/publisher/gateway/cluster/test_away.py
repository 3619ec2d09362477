"""The publisher's sink where the API of a cluster fails, whenever the test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from publisher.gateway.cluster.objects import Cluster
from publisher.gateway.cluster.sink import ClusterSink
from publisher.gateway.options import GatewayOptions
from publisher.metrics import ClusterMetrics
from publisher.plan import plan
from publisher.sink import NotServed
from runtime.in_step import RESYNC_S
from runtime.kube.api import KubeApi
from runtime.lifecycle import running

Answer = Callable[[httpx2.Request], httpx2.Response]


@asynccontextmanager
async def sink_of(answer: Answer, *, resync_s: float = RESYNC_S) -> AsyncIterator[ClusterSink]:
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


async def test_what_is_not_waited_for_any_more_is_not_told() -> None:
    """The API goes away while a judgement is waited for: that is the trouble then."""
    has_written = False

    def goes_away(request: httpx2.Request) -> httpx2.Response:
        nonlocal has_written
        if request.method == "PATCH":
            has_written = True
            return httpx2.Response(200, json=json.loads(request.content))
        return away(request) if has_written else httpx2.Response(200, json={"items": []})

    async with asyncio.timeout(30), sink_of(goes_away) as sink:
        applying = asyncio.create_task(sink.apply(plan([])))
        while not sink.waiting:  # noqa: ASYNC110  told for a quarter of a second
            await asyncio.sleep(0.01)
        with pytest.raises(NotServed):
            await applying
        assert sink.waiting == ""
