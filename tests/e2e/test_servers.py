"""A model's servers change in a running Envoy while calls run; of several, one that fails is left out."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from msgspec import structs

from catalog.records import PublicationRecord, Server
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.sink import FilesSink
from publisher.plan import plan
from tests.e2e.proxy import (
    HOST,
    PATIENCE_S,
    Envoy,
    Gate,
    Reply,
    Upstream,
    head,
    openai,
    options_for,
    short_folder,
    stripped,
)

THREADS = 2


@dataclass
class Bench:
    """A running Envoy, the sink that writes its files, and two servers of one model."""

    envoy: Envoy
    sink: FilesSink
    old: Upstream
    new: Upstream

    async def lead(self, publication: PublicationRecord, *servers: Server) -> None:
        """Have a publication lead to these from now on."""
        several = servers if len(servers) > 1 else ()
        moved = structs.replace(publication, url=servers[0].url, servers=several)
        await self.sink.apply(plan([moved]))

    def served_by(self, calls: int, path: str = "/models/m/x") -> Counter[str]:
        """Who answered so many calls; "" for a call that nobody did."""
        return Counter(self.envoy.get(path).upstream for _ in range(calls))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An Envoy of the test's own."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("old") as old, Upstream("new") as new:
        envoy = Envoy(options_for(folder, gate.target), threads=THREADS)
        async with EnvoyAdmin(envoy.options.admin_socket) as admin:
            sink = FilesSink(folder, admin, upstream_ca="/etc/ssl/certs/ca-certificates.crt", timeout_s=PATIENCE_S)
            sink.prepare()
            with envoy:
                yield Bench(envoy, sink, old, new)


def assert_about(found: Counter[str], **wanted: int) -> None:
    """Each of Envoy's threads goes round by itself, so each may be one call ahead."""
    assert found.keys() == wanted.keys()
    assert all(abs(found[name] - count) <= THREADS for name, count in wanted.items()), found


@contextmanager
def traffic(envoy: Envoy, path: str) -> Iterator[list[Reply]]:
    """Calls one after the other on one connection while the body runs."""
    replies: list[Reply] = []
    stopping = threading.Event()

    def call() -> None:
        with envoy.connect() as connection:
            while not stopping.is_set():
                connection.sendall(head("GET", path, f"host: {HOST}"))
                replies.append(Reply.read(connection))
                if replies[-1].status == 0:
                    return

    threads = [threading.Thread(target=call, name=f"traffic-{number}") for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        stopping.set()
        for thread in threads:
            thread.join(PATIENCE_S)


async def test_no_call_is_lost_while_a_server_changes(bench: Bench) -> None:
    """Calls that run end where they began, new ones are at the new server from ``apply`` on, none fails in between.

    Each server is told its own name as Host, at every moment.
    """
    published = stripped("m", "/models/m", bench.old.url)
    await bench.lead(published, Server(bench.old.url))
    with bench.envoy.connect() as stream, traffic(bench.envoy, "/models/m/x") as replies:
        stream.sendall(head("GET", "/models/m/slow", f"host: {HOST}"))
        await asyncio.to_thread(stream.recv, 100, socket.MSG_PEEK)
        for version in range(1, 21):
            now = bench.new if version % 2 else bench.old
            await bench.lead(published, Server(now.url))
            assert await asyncio.to_thread(bench.served_by, 2) == {now.name: 2}
        whole = await asyncio.to_thread(Reply.read, stream)
    assert whole.body == "." * 100
    assert [reply for reply in replies if reply.status != 200] == []
    assert {reply.upstream for reply in replies} == {"old", "new"}
    authorities = {one.name: one.url.removeprefix("http://") for one in (bench.old, bench.new)}
    assert all(reply.upstream_headers("host") == [authorities[reply.upstream]] for reply in replies)
    assert bench.envoy.stat("listener_manager.listener_modified") == 0


async def test_a_server_is_rolled_in_by_its_weight(bench: Bench) -> None:
    """A tenth of the calls, then half of them, then all; each server is told its own name as Host."""
    published = stripped("m", "/models/m", bench.old.url)
    old, new = bench.old.url, bench.new.url
    await bench.lead(published, Server(old, 9), Server(new, 1))
    assert_about(await asyncio.to_thread(bench.served_by, 100), old=90, new=10)
    reply = await asyncio.to_thread(bench.envoy.get, "/models/m/x")
    told = {"old": old, "new": new}[reply.upstream]
    assert reply.upstream_headers("host") == [told.removeprefix("http://")]
    await bench.lead(published, Server(old), Server(new))
    assert_about(await asyncio.to_thread(bench.served_by, 100), old=50, new=50)
    await bench.lead(published, Server(new))
    assert await asyncio.to_thread(bench.served_by, 20) == {"new": 20}


async def test_one_of_several_that_is_gone_is_left_out(bench: Bench) -> None:
    """At the first connection that is refused: of the calls after it, all are served."""
    published = stripped("m", "/models/m", bench.old.url)
    await bench.lead(published, Server(bench.old.url), Server(bench.new.url))
    assert_about(await asyncio.to_thread(bench.served_by, 10), old=5, new=5)
    bench.new.__exit__()
    try:
        found = await asyncio.to_thread(bench.served_by, 40)
    finally:
        bench.new.__enter__()  # the fixture ends it again
    assert found[""] <= THREADS, found  # each may have a call under way
    assert found["old"] >= 40 - THREADS


async def test_a_body_that_decides_reaches_every_server(bench: Bench) -> None:
    """An openai publication of several."""
    published = openai("llm", "/llm", bench.old.url)
    await bench.lead(published, Server(bench.old.url), Server(bench.new.url))
    body = json.dumps({"model": "llm", "messages": []}).encode()
    replies = [await asyncio.to_thread(bench.envoy.post, "/llm/chat/completions", body) for _ in range(10)]
    assert_about(Counter(reply.upstream for reply in replies), old=5, new=5)
    assert {reply.upstream_path for reply in replies} == {"/v1/chat/completions"}
