"""A link's own waits, in clear and in TLS: for room to send as for replies, all within one deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
import redis
from authority import Authority
from halting import halt
from valkeys import Valkey, running_valkey

from runtime.clock import SystemClock
from runtime.store.link import StoreLink

CLOCK = SystemClock()
LARGE = b"x" * 8_000_000
"""More than the buffers of a connection hold."""


class TlsRelay:
    """Speaks TLS for a store that cannot."""

    def __init__(self, identity: tuple[Path, Path], store: tuple[str, int]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*identity)
        self._store = store
        self._port: Future[int] = Future()
        self._relays: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> int:
        """The port it listens at."""
        self._thread.start()
        return self._port.result(10)

    def __exit__(self, *_raised: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=self._context) as server:
            self._port.set_result(server.sockets[0].getsockname()[1])
            await self._stopping.wait()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        store, to_store = await asyncio.open_connection(*self._store)
        self._relays.add(asyncio.create_task(copy(client, to_store)))
        self._relays.add(asyncio.create_task(copy(store, to_client)))


async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
    """Hand on what comes, until one of the two has gone."""
    try:
        while piece := await one.read(16_384):
            other.write(piece)
            await other.drain()
    finally:
        other.transport.abort()


@pytest.fixture
def valkey(valkey_binary: str) -> Iterator[Valkey]:
    """A store that the test may stop."""
    with running_valkey(valkey_binary) as running:
        yield running


@pytest.fixture(params=["clear", "tls"])
def link(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[StoreLink]:
    """A link to it."""
    if request.param == "tls":
        authority = Authority(tmp_path, "ca")
        with TlsRelay(authority.give("store"), ("127.0.0.1", valkey.port)) as port:
            yield from connected(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.ca}")
    else:
        yield from connected(valkey.url)


def connected(url: str) -> Iterator[StoreLink]:
    """A link, until it is not needed any more."""
    made = StoreLink(url, CLOCK)
    with closing(made):
        made.connect()
        yield made


def soon() -> float:
    """A deadline no busy machine misses."""
    return CLOCK.monotonic_ms() + 20_000


def test_what_does_not_fit_a_buffer_comes_and_goes_whole(link: StoreLink) -> None:
    """A command and a reply of megabytes, with others in between, in order."""
    replies = link.execute_many(soon(), [("SET", "a", LARGE), ("GET", "a"), ("ECHO", "b"), ("GET", "a")])
    assert replies == [b"OK", LARGE, b"b", LARGE]
    assert link.execute(soon(), "ECHO", "c") == b"c"


def test_a_store_that_reads_nothing_is_given_up_at_the_deadline(link: StoreLink, valkey: Valkey) -> None:
    """Sending is waiting too."""
    halt(valkey.process.pid)
    begun_ms = CLOCK.monotonic_ms()
    with pytest.raises(redis.TimeoutError):
        link.execute_many(begun_ms + 50, [("SET", "a", LARGE)] * 4)
    assert 50 <= CLOCK.monotonic_ms() - begun_ms < 2_000
    assert not link.connected
    os.kill(valkey.process.pid, signal.SIGCONT)


def test_whoever_waits_is_woken_by_an_interrupt(link: StoreLink) -> None:
    """Long before its deadline; what it asked has an unknown outcome."""
    timer = threading.Timer(0.05, link.interrupt)
    timer.start()
    begun_ms = CLOCK.monotonic_ms()
    with pytest.raises(redis.ConnectionError):
        link.execute(soon(), "BLPOP", "nothing", 0)
    assert CLOCK.monotonic_ms() - begun_ms < 10_000
    timer.join()
