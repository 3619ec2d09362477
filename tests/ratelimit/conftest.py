"""A limiter on the session's real Valkey, and on a real Valkey Cluster: what is promised is promised on both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from countinglimiter import CountingLimiter
from valkeycluster import Cluster

from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.cluster import ClusterLink
from runtime.store.link import StoreLink
from runtime.store.slots import slot_of

EPOCH_KEY = "tk:epoch:{0}"
FEED_KEY = "tk:feed:{0}"
_PERMANENT = re.compile(r"tk:(epoch|feed|held|due):.*|tk:usage:\{\d+\}:[kpt]:[^:]+")
_SCRIPTS = ("EVALSHA", "EVAL", "SCRIPT")
_PATIENCE_MS = 20_000


class CellStore(redis.Redis):
    """The server that has the keys of cell 0; scripts go through the link."""

    link: StoreLink | ClusterLink

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a script through the link, and anything else to the server."""
        if args[0] in _SCRIPTS:
            return self.link.execute(SystemClock().monotonic_ms() + _PATIENCE_MS, *args)
        return super().execute_command(*args, **options)


@pytest.fixture(params=["server", "cluster"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    """The Cluster that the test runs on, empty; ``None`` for one server."""
    if request.param == "server":
        yield None
        return
    found: Cluster = request.getfixturevalue("valkey_cluster")
    found.flush()
    yield found
    found.flush()


@pytest.fixture
def redis_url(redis_url: str, cluster: Cluster | None) -> str:
    """URL of the server that has cell 0, which is empty: a database of one Valkey, or a node of the Cluster."""
    return cluster.node_of(slot_of(EPOCH_KEY)).url if cluster else redis_url


@pytest.fixture
def link(redis_url: str, cluster: Cluster | None) -> Iterator[StoreLink | ClusterLink]:
    """A link to it as the gate's, which reaches every cell."""
    made = ClusterLink(cluster.url, SystemClock()) if cluster else StoreLink(redis_url, SystemClock())
    made.connect()
    yield made
    made.close()


@pytest.fixture
def store(redis_url: str, link: StoreLink | ClusterLink) -> Iterator[redis.Redis]:
    """A client of that server, to look at what is stored and to take what is asked of cell 0."""
    with CellStore.from_url(redis_url) as client:
        client.link = link
        yield client


@pytest.fixture
def stored_format() -> int:
    """In which format values are written; tests of both are parametrized."""
    return 1


@pytest.fixture
def limiter(
    request: pytest.FixtureRequest, store: redis.Redis, stored_format: int
) -> Iterator[Limiter | CountingLimiter]:
    """The limiter of cell 0; afterwards no key without TTL but the allowed ones may be left.

    What it admits is counted in usage, as a gate does, but where windows are all that a test is about.
    """
    kind = Limiter if request.path.parent.name == "windows" else CountingLimiter
    yield kind(cell="0", epoch_key=EPOCH_KEY, feed_key=FEED_KEY, writes_format=lambda: stored_format)
    leaked = [key for key in store.scan_iter() if store.ttl(key) == -1 and not _PERMANENT.fullmatch(key.decode())]
    assert leaked == []
