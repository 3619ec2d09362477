"""When an admin takes it that every gate reads routes: by heartbeats and traces in real stores."""

from __future__ import annotations

import redis
import redis.asyncio

from admin.services import Stores
from catalog.store.store import CatalogStore
from gate.formats import QUIET_MS
from gate.names import GATES
from ratelimit.names import old_rest_key
from tollkeeper.admin.older_gates import routes_are_read

NEW, PINNED, OLD = b"a:2", b"b:1", b"c"


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000.0

    def monotonic_ms(self) -> float:
        """As it was set."""
        return self.now_ms

    def wall_ms(self) -> int:
        """Never asked for."""
        return 0


async def test_a_minute_without_a_trace_of_an_older_gate(redis_url: str, store: redis.Redis) -> None:
    """Neither with a gate of the release before that beats or settles, nor with one pinned; each begins it again."""
    clock = Hands()
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        are_read = routes_are_read(Stores(client, client, CatalogStore(client)), 16, clock)

        async def after_quiet() -> bool:
            for _ in range(QUIET_MS // 5_000 + 1):
                said = await are_read()
                clock.now_ms += 5_000
            return said

        store.zadd(GATES, {NEW: 1})
        assert await are_read() is False
        assert await after_quiet() is True
        for member in (PINNED, OLD):
            store.zadd(GATES, {member: 1})
            assert await after_quiet() is False
            store.zrem(GATES, member)
            assert await are_read() is False
            assert await after_quiet() is True
        store.set(old_rest_key("7"), b"1")
        assert await are_read() is False
        store.delete(old_rest_key("7"))
        assert await are_read() is False
        assert await after_quiet() is True
