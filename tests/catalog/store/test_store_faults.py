"""What a commit says when the store does not answer as it should. Every fault stands before a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from catalog.changes import Audit, Put
from catalog.records import Kind, TenantRecord
from catalog.store.store import CatalogStore, OutcomeUnknown, StoreRefused, StoreUnavailable

TENANT = TenantRecord("tenant-a", shard=1, created_at_ms=1, updated_at_ms=1)


class Line:
    """A socket in front of the real store that passes everything on until it is told to fail."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = Path(tempfile.mkdtemp(prefix="tk-"))
        self.path = self._folder / "line.sock"
        self.answers = True  # whether replies are passed back
        self.cut_at_reply = False  # close instead of passing the next reply back
        self.commits = 0  # EVAL commands that were passed on to the store
        self.swallowed = asyncio.Event()  # set when a reply was kept back

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        shutil.rmtree(self._folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(self._target)
        replies = asyncio.create_task(self._pass_replies(store_reader, writer), name="replies")
        while data := await reader.read(65_536):
            self.commits += data.count(b"EVAL")
            store_writer.write(data)
        replies.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await replies
        for end in (store_writer, writer):
            end.close()

    async def _pass_replies(self, store_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await store_reader.read(65_536):
            if self.answers and not self.cut_at_reply:
                writer.write(data)
                continue
            self.swallowed.set()
            if self.cut_at_reply:
                writer.close()


@pytest.fixture
async def line(valkey_socket: Path) -> AsyncIterator[Line]:
    """A line to the session's Valkey that can be made to fail."""
    async with Line(valkey_socket) as made:
        yield made


@pytest.fixture
async def client(line: Line, redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client over the line that would retry by itself."""
    database = redis_url.partition("db=")[2]
    async with redis.asyncio.Redis(
        unix_socket_path=str(line.path), db=int(database), retry=Retry(NoBackoff(), 5)
    ) as made:
        yield made


async def test_no_answer_is_an_unknown_outcome(
    line: Line, client: redis.asyncio.Redis, catalog: CatalogStore, audit: Audit
) -> None:
    """The commit was sent once, may be in force (here it is), and the caller is told to look; nothing is sent again."""
    over_line = CatalogStore(client, timeout_s=0.3)
    await over_line.get(Kind.TENANT, "tenant-a")
    line.answers = False
    with pytest.raises(OutcomeUnknown, match="no answer"):
        await over_line.commit([Put(TENANT, 0)], audit=audit)
    assert line.commits == 1
    assert await catalog.get(Kind.TENANT, "tenant-a") == TENANT


async def test_a_line_that_breaks_after_sending_is_an_unknown_outcome(
    line: Line, client: redis.asyncio.Redis, catalog: CatalogStore, audit: Audit
) -> None:
    """A connection lost between sending and answer is no reason to send again, whatever the client's retries."""
    over_line = CatalogStore(client)
    await over_line.now_ms()
    line.cut_at_reply = True
    with pytest.raises(OutcomeUnknown):
        await over_line.commit([Put(TENANT, 0)], audit=audit)
    assert line.commits == 1
    assert await catalog.get(Kind.TENANT, "tenant-a") == TENANT


async def test_a_late_reply_meets_no_later_command(line: Line, client: redis.asyncio.Redis, audit: Audit) -> None:
    """After a wait that was given up the next command has a connection of its own, so replies are never mixed up."""
    over_line = CatalogStore(client, timeout_s=0.3)
    await over_line.now_ms()
    line.answers = False
    with pytest.raises(OutcomeUnknown):
        await over_line.commit([Put(TENANT, 0)], audit=audit)
    line.answers = True
    assert await over_line.get(Kind.TENANT, "tenant-a") == TENANT
    assert await over_line.ids(Kind.TENANT) == ["tenant-a"]


async def test_a_caller_that_leaves_leaves_no_reply_behind(
    line: Line, client: redis.asyncio.Redis, audit: Audit
) -> None:
    """A request cancelled in the middle of a commit does not hand its reply to the next one."""
    over_line = CatalogStore(client)
    await over_line.now_ms()
    line.answers = False
    commit = asyncio.create_task(over_line.commit([Put(TENANT, 0)], audit=audit))
    await line.swallowed.wait()
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    line.answers = True
    assert await over_line.get(Kind.TENANT, "tenant-a") == TENANT


async def test_a_silent_read_is_an_unavailable_store(line: Line, client: redis.asyncio.Redis) -> None:
    """A read has no outcome to be unsure of."""
    over_line = CatalogStore(client, timeout_s=0.3)
    await over_line.now_ms()
    line.answers = False
    with pytest.raises(StoreUnavailable):
        await over_line.get(Kind.TENANT, "tenant-a")


async def test_a_store_that_is_not_there_ran_nothing(audit: Audit, tmp_path: Path) -> None:
    """Nothing listens: that is no unknown outcome."""
    async with redis.asyncio.Redis(unix_socket_path=str(tmp_path / "nobody")) as nobody:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await CatalogStore(nobody, timeout_s=0.3).commit([Put(TENANT, 0)], audit=audit)


async def test_a_store_that_never_greets_ran_nothing(line: Line, client: redis.asyncio.Redis, audit: Audit) -> None:
    """A connection that is accepted and then silent has been sent no commit when the time is up."""
    line.answers = False
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await CatalogStore(client, timeout_s=0.3).commit([Put(TENANT, 0)], audit=audit)
    assert line.commits == 0


async def test_a_busy_pool_ran_nothing(redis_url: str, audit: Audit) -> None:
    """Without a free connection nothing is sent."""
    async with redis.asyncio.Redis.from_url(redis_url, max_connections=1) as one:
        held = await one.connection_pool.get_connection()
        with pytest.raises(StoreUnavailable):
            await CatalogStore(one).commit([Put(TENANT, 0)], audit=audit)
        await one.connection_pool.release(held)


async def test_a_missing_permission_ran_nothing(redis_url: str, store: redis.Redis, audit: Audit) -> None:
    """A refusal by the store's access list is told as one."""
    store.acl_setuser("reader", enabled=True, nopass=True, categories=["+@read", "+@connection"], keys=["*"])
    try:
        async with redis.asyncio.Redis.from_url(redis_url, username="reader", password="") as reader:
            with pytest.raises(StoreRefused):
                await CatalogStore(reader).commit([Put(TENANT, 0)], audit=audit)
    finally:
        store.acl_deluser("reader")
    assert store.dbsize() == 0


async def test_a_script_that_fails_within_is_an_unknown_outcome(
    catalog: CatalogStore, store: redis.Redis, audit: Audit
) -> None:
    """A store damaged by hand makes the script stop half-way: never told as a refusal, and no record is in force."""
    store.set("tk:audit", "not a stream")
    with pytest.raises(OutcomeUnknown, match="the script failed"):
        await catalog.commit([Put(TENANT, 0)], audit=audit)
    assert await catalog.get(Kind.TENANT, "tenant-a") is None
    store.delete("tk:audit")
    await catalog.commit([Put(TENANT, 0)], audit=audit)
