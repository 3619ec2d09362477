"""The feed's follower, on real stores: it finds its way from a store that fell behind to the one that is written to."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import redis
from gatebench import Catalog, wait_until

from catalog.keys.secrets import Secrets
from catalog.store import names, reader
from extauth.records.cache import RecordCache
from extauth.records.follower import FeedFollower
from gate.links import RECORDS_CELL
from runtime.clock import SystemClock
from runtime.store.link import StoreLink

CLOCK = SystemClock()


@pytest.fixture
def deposed(redis_url: str, another_redis_url: str, secrets: Secrets) -> str:
    """URL of a store that lacks the latest change of the one at ``redis_url``."""
    catalog = Catalog(redis_url, secrets)
    catalog.tenant()
    with redis.Redis.from_url(redis_url) as store, redis.Redis.from_url(another_redis_url) as copy:
        for name in store.scan_iter():
            copy.restore(name, 0, store.dump(name))
    catalog.tenant("tenant-b")
    return another_redis_url


class RememberingCache(RecordCache):
    """A cache that keeps which epochs it was emptied for: each may be there for a moment only."""

    def __init__(self) -> None:
        super().__init__()
        self.resets: list[str] = []

    def reset(self, epoch: str) -> None:
        self.resets.append(epoch)
        super().reset(epoch)


def test_a_store_that_is_behind_is_not_stayed_with(redis_url: str, deposed: str) -> None:
    """A link that leads to a deposed primary empties the cache once, not as long as that answers."""
    cache, faults = RememberingCache(), threading.Event()
    with redis.Redis.from_url(redis_url) as store:
        newest = (store.get(names.epoch(RECORDS_CELL)) or b"").decode()
    cache.reset(newest)
    urls = iter([deposed])
    follower = FeedFollower(
        cache,
        make=lambda: StoreLink(next(urls, redis_url), CLOCK),
        follow=lambda execute, epoch, block_ms: reader.follow(execute, epoch, block_ms, cell=RECORDS_CELL),
        read_epoch=partial(reader.read, refs=(), cell=RECORDS_CELL),
        on_error=lambda: None,
        on_fault=faults.set,
        now_ms=CLOCK.monotonic_ms,
    )
    follower.start()
    try:
        wait_until(lambda: len(cache.resets) > 1 and cache.epoch == newest)
        assert cache.resets[1:] != [newest]
        assert len(cache.resets) == 2
        assert not faults.is_set()
    finally:
        follower.stop(5)
