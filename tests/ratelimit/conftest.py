"""A limiter on the session's real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ratelimit.limiter import Limiter

EPOCH_KEY = "tk:epoch:{0}"
FEED_KEY = "tk:feed:{0}"
_PERMANENT = ("tk:epoch:", "tk:feed:", "tk:usage:")


@pytest.fixture
def limiter(store: redis.Redis) -> Iterator[Limiter]:
    """The limiter of cell 0; afterwards no key without TTL but the allowed ones may be left."""
    yield Limiter(cell="0", epoch_key=EPOCH_KEY, feed_key=FEED_KEY)
    leaked = [key for key in store.scan_iter() if store.ttl(key) == -1 and not key.decode().startswith(_PERMANENT)]
    assert leaked == []
