"""Redis-py's asyncio clients, bounded and sending nothing twice: for the admin process, which may wait.

A client of a URL with Sentinels asks them for the master whenever it makes a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.connection import parse_url

from runtime.addresses import TcpAddress
from runtime.store.urls import SentinelUrl, is_cluster, is_sentinel, parse_cluster, parse_sentinel

CONNECTIONS: Final = 64
"""Most connections of one client; who finds none free waits, as long as for one."""
_NOWHERE: Final = TcpAddress("nowhere", 1)  # stands for the master's address, which the Sentinels will tell


class _MasterPool(SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """Connections to the master of the moment, at most so many; it owns the clients of the Sentinels too."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def client_of(url: str, *, connect_s: float, answer_s: float) -> redis.asyncio.Redis:
    """Make a client that waits at most ``connect_s`` for a connection and ``answer_s`` for each reply."""
    options: dict[str, Any] = {
        "max_connections": CONNECTIONS,
        "timeout": connect_s,
        "socket_timeout": answer_s,
        "socket_connect_timeout": connect_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_cluster(url):
        return _cluster_client(url, options)
    if is_sentinel(url):
        return redis.asyncio.Redis.from_pool(_master_pool(parse_sentinel(url), options))
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool.from_url(url, **options))


@asynccontextmanager
async def clients_of(
    one: str, other: str, *, patience_s: float
) -> AsyncIterator[tuple[redis.asyncio.Redis, redis.asyncio.Redis]]:
    """Give clients of two URLs, which wait at most so long for each step: one client where they are the same."""
    async with client_of(one, connect_s=patience_s, answer_s=patience_s) as first:
        if one == other:
            yield first, first
            return
        async with client_of(other, connect_s=patience_s, answer_s=patience_s) as second:
            yield first, second


def _cluster_client(url: str, options: dict[str, Any]) -> redis.asyncio.Redis:
    """Make a client that finds a Cluster's servers itself; it follows redirections, which prove that nothing ran."""
    target = parse_cluster(url)
    first, *others = target.seeds
    facts = parse_url(target.node.at(first))  # type: ignore[no-untyped-call]
    tls = facts.pop("connection_class", None) is not None
    bounds = {name: options[name] for name in ("max_connections", "socket_timeout", "socket_connect_timeout", "retry")}
    nodes = [ClusterNode(one.host, one.port) for one in others]
    made = redis.asyncio.RedisCluster(startup_nodes=nodes or None, ssl=tls, **facts, **bounds)
    return cast("redis.asyncio.Redis", made)  # what we ask of a client is the same in both


def _master_pool(target: SentinelUrl, options: dict[str, Any]) -> _MasterPool:
    facts = parse_url(target.node.at(_NOWHERE))  # type: ignore[no-untyped-call]
    tls = facts.pop("connection_class", None) is not None
    place = {name: value for name, value in facts.items() if name not in {"host", "port"}}
    kind = SentinelManagedSSLConnection if tls else SentinelManagedConnection
    sentinels = _sentinels(target, options)
    return _MasterPool(target.master, sentinels, connection_class=kind, **place, **options)  # type: ignore[no-untyped-call]


def _sentinels(target: SentinelUrl, options: dict[str, Any]) -> Sentinel:
    """The Sentinels share the time one connection may take."""
    share_s = options["socket_connect_timeout"] / len(target.sentinels)
    waits = {"socket_timeout": share_s, "socket_connect_timeout": share_s, "retry": options["retry"]}
    sentinel = Sentinel([])  # type: ignore[no-untyped-call]
    sentinel.sentinels = [redis.asyncio.Redis.from_url(url, **waits) for url in target.sentinels]
    return sentinel
