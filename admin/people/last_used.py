"""When service accounts were last used: noted beside their records, so that no version and no epoch moves.

Written once a minute for an account at each admin, so what is told is a minute late at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import redis.asyncio
from redis.exceptions import RedisError

from admin import names
from catalog.store.store import StoreUnavailable

EVERY_MS: Final = 60_000
KEPT_S: Final = 395 * 24 * 3600
"""13 months, as usage is kept."""
MOST_KNOWN: Final = 10_000


class LastUsed:
    """Notes uses, and tells them."""

    def __init__(self, client: redis.asyncio.Redis, on_failure: Callable[[], object]) -> None:
        self._client = client
        self._on_failure = on_failure
        self._noted_ms: dict[str, int] = {}

    async def note(self, account: str, now_ms: int) -> None:
        """Note a use; a store that cannot be asked keeps nobody from their call, which would be told of it anyhow."""
        last_ms = self._noted_ms.get(account)
        if last_ms is not None and 0 <= now_ms - last_ms < EVERY_MS:
            return
        if len(self._noted_ms) >= MOST_KNOWN:
            self._noted_ms.clear()
        self._noted_ms[account] = now_ms
        try:
            await self._client.set(names.used(account), now_ms, ex=KEPT_S)
        except (RedisError, OSError):
            self._noted_ms.pop(account, None)
            self._on_failure()

    async def read(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return when these were last used, those that were; raises ``StoreUnavailable``."""
        if not accounts:
            return {}
        try:
            found = await self._client.mget([names.used(one) for one in accounts])
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store cannot be reached: {error}") from error
        return {one: int(ms) for one, ms in zip(accounts, found, strict=True) if ms is not None and ms.isdigit()}
