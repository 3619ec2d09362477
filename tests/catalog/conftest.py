"""A catalog on the session's real Valkey, a raw connection for readers, and a check for leaked keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from catalog.actors import Recordless
from catalog.changes import Audit
from catalog.keys.secrets import Secrets
from catalog.store import names
from catalog.store.store import CatalogStore

AUDIT = Audit(actor=Recordless.START, action="test", target="anything", tenant="tenant-a", request_id="r-1")


@pytest.fixture
def audit() -> Audit:
    """Some act, where a test does not care which."""
    return AUDIT


@pytest.fixture
async def catalog(redis_url: str, store: redis.Redis) -> AsyncIterator[CatalogStore]:
    """The catalog on an empty database; afterwards no key without TTL but the allowed ones may be left."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield CatalogStore(client)
    leaked = [key for key in store.scan_iter() if store.ttl(key) == -1 and not _permanent(key)]
    assert leaked == []


def _permanent(key: bytes) -> bool:
    return key.decode().startswith(names.PERMANENT)


@pytest.fixture
def execute(redis_url: str) -> Iterator[Callable[..., Any]]:
    """One command, one reply as the server sent it: what the gate gives to the reader."""
    with _raw_connection(redis_url) as send:
        yield send


class _raw_connection:  # noqa: N801  used as a context manager only
    """A connection without redis-py's parsing of replies."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._connection = self._client.connection_pool.get_connection()

    def __enter__(self) -> Callable[..., Any]:
        return self._send

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()
        self._client.close()

    def _send(self, *command: Any) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()


@pytest.fixture
def another_execute(redis_url: str) -> Iterator[Callable[..., Any]]:
    """A second connection, for a second thread."""
    with _raw_connection(redis_url) as send:
        yield send


@pytest.fixture
def budgets_execute(another_redis_url: str) -> Iterator[Callable[..., Any]]:
    """A connection to a second store."""
    with _raw_connection(another_redis_url) as send:
        yield send


@pytest.fixture
def secrets() -> Secrets:
    """Secrets of one version each, the same in every run."""
    return Secrets(
        peppers={1: b"p" * 32},
        current_pepper=1,
        mac_keys={1: b"m" * 32},
        current_mac_key=1,
        jwt_key=b"j" * 32,
        recovery_key=b"r" * 32,
    )
