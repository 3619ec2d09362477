"""Callers without a key who upload slowly, a lot, or with headers without end, at a real Envoy as it is deployed.

While they do, callers with a key are answered, Envoy's heap stays within its bound, and nothing of theirs reaches a
model. Where the gate is handed a body (openai publications) Envoy holds it before it asks who calls; on all other
routes a caller without a key is refused at the end of its headers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from protos.external_auth_pb2 import CheckRequest, CheckResponse
from tests.e2e.proxy import (
    HOST,
    Envoy,
    Gate,
    Upstream,
    admitted,
    denied,
    head,
    openai,
    options_for,
    publication,
    short_folder,
)

pytestmark = pytest.mark.timeout(180)

CALLERS = 200
UPLOAD_ENDS_S = 4
MIB = 2**20
KEY = "x-api-key: good"
JSON = "content-type: application/json"


@dataclass
class Machine:
    """An Envoy with an openai and a traditional publication of one server."""

    envoy: Envoy
    upstream: Upstream

    async def good_call(self) -> float:
        """One call with a key and a small body; seconds until it was answered."""
        began_s = time.monotonic()
        body = json.dumps({"model": "llm"}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.envoy.ports["http"])
        target = "/v1/models/llm/chat/completions"
        writer.write(head("POST", target, f"host: {HOST}", JSON, KEY, f"content-length: {len(body)}") + body)
        line = await reader.readline()
        writer.close()
        assert line.startswith(b"HTTP/1.1 200"), line
        return time.monotonic() - began_s

    async def good_calls(self, count: int = 15) -> list[float]:
        """Calls with a key, one after another."""
        return [await self.good_call() for _ in range(count)]

    async def active(self, requests: int) -> None:
        """Wait until Envoy has this many requests under way."""
        async with asyncio.timeout(UPLOAD_ENDS_S):
            while await asyncio.to_thread(self.envoy.stat, "http.ingress.downstream_rq_active") < requests:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.02)

    async def relieved(self) -> None:
        """Wait until Envoy turns nothing away any more."""
        shed = "overload.envoy.load_shed_points.http1_server_abort_dispatch.scale_percent"
        async with asyncio.timeout(30):
            while await asyncio.to_thread(self.envoy.stat, shed):  # noqa: ASYNC110  no event
                await asyncio.sleep(0.05)

    async def heap_bytes(self) -> int:
        """What Envoy has allocated."""
        return int(json.loads(await asyncio.to_thread(self.envoy.admin, "/memory"))["allocated"])


def who_has_a_key(request: CheckRequest) -> CheckResponse:
    """Admit whoever shows the key."""
    return admitted({}) if request.attributes.request.http.headers.get("x-api-key") == "good" else denied(401)


@contextmanager
def machine(**options: Any) -> Iterator[Machine]:
    """A machine whose uploads end soon."""
    with short_folder() as folder, Gate(folder, answer=who_has_a_key) as gate, Upstream("up") as upstream:
        envoy = Envoy(options_for(folder, gate.target, request_timeout_s=UPLOAD_ENDS_S, **options))
        envoy.publish(
            [openai("llm", "/v1/models/llm", upstream.url), publication("iris", "/models/iris", upstream.url)]
        )
        with envoy:
            yield Machine(envoy, upstream)


@dataclass
class Flood:
    """Callers without a key, and the status each was answered; 0: closed without an answer."""

    machine: Machine
    statuses: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def of(self, start: bytes, count: int = CALLERS) -> AsyncIterator[None]:
        """Let this many send ``start`` and then a byte now and then, until they are answered."""
        async with asyncio.TaskGroup() as group:
            sent = [asyncio.Event() for _ in range(count)]
            for event in sent:
                group.create_task(self._call(start, event))
            await asyncio.gather(*(event.wait() for event in sent))
            yield

    async def _call(self, start: bytes, sent: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.machine.envoy.ports["http"])
        drip = asyncio.create_task(self._send(writer, start, sent))
        try:
            line = await reader.readline()
        except ConnectionError:
            line = b""
        finally:
            sent.set()
            drip.cancel()
            writer.close()
        self.statuses.append(int(line.split()[1]) if line else 0)

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, start: bytes, sent: asyncio.Event) -> None:
        try:
            writer.write(start)
            await writer.drain()
            sent.set()
            while True:
                await asyncio.sleep(0.2)  # the attack itself: a byte now and then
                writer.write(b" ")
                await writer.drain()
        except ConnectionError:
            sent.set()


def upload(target: str, begun: int) -> bytes:
    """The head of an upload of 3 MiB without a key, and as much of its body."""
    return head("POST", target, f"host: {HOST}", JSON, f"content-length: {3 * MIB}") + b'{"pad":"' + b"x" * begun


def is_patient(under_attack: list[float], before: list[float]) -> bool:
    """Whether callers with a key hardly noticed; with slack for a busy machine."""
    return statistics.median(under_attack) < 20 * statistics.median(before) + 0.25


async def test_two_hundred_slow_uploads_hold_nobody_up() -> None:
    """They end by Envoy's own clock with 408; nothing of theirs is sent on, and good callers are answered meanwhile."""
    with machine() as made:
        before = await made.good_calls()
        flood = Flood(made)
        async with flood.of(upload("/v1/models/llm/chat/completions", 64 * 1024)):
            await made.active(CALLERS)
            under_attack = await made.good_calls()
            held = await made.heap_bytes()
        assert flood.statuses == [408] * CALLERS
        assert is_patient(under_attack, before), (statistics.median(before), statistics.median(under_attack))
        assert held < 64 * MIB
        assert made.upstream.seen == len(before) + len(under_attack)


@pytest.mark.parametrize("element", [b"1,", b"{},", b"[],"], ids=["numbers", "objects", "arrays"])
async def test_json_that_is_dear_to_read_is_not_read_for_who_has_no_key(element: bytes) -> None:
    """Two callers with 3 MiB of it, again and again: 401, and hardly anybody waits; reading it would take 1 s each."""
    body = b'{"model":"llm","x":[' + element * (3 * MIB // len(element)) + element[:-1] + b"]}"
    with machine() as made:
        before = await made.good_calls()
        lines: list[bytes] = []

        async def again_and_again() -> None:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", made.envoy.ports["http"])
                with closing(writer):
                    said = (f"host: {HOST}", JSON, f"content-length: {len(body)}")
                    writer.write(head("POST", "/v1/models/llm/chat/completions", *said) + body)
                    await writer.drain()
                    lines.append(await reader.readline())

        floods = [asyncio.create_task(again_and_again()) for _ in range(2)]
        under_attack = await made.good_calls(30)
        for flood in floods:
            flood.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        assert lines
        assert {line.split()[1] for line in lines} == {b"401"}
        assert statistics.median(under_attack) < 5 * statistics.median(before) + 0.1
        assert await made.heap_bytes() < 64 * MIB
        assert made.upstream.seen == len(before) + len(under_attack)


async def test_where_the_body_says_nothing_it_is_not_awaited() -> None:
    """On a route that names its model by its path, who has no key is refused before a body is read."""
    with machine() as made:
        flood = Flood(made)
        began_s = time.monotonic()
        async with flood.of(upload("/models/iris/predict", 0)):
            pass
        assert flood.statuses == [401] * CALLERS
        assert time.monotonic() - began_s < 30
        assert made.upstream.seen == 0


async def test_uploads_beyond_the_heap_are_cut_off() -> None:
    """Bodies that together pass the heap's bound cost their senders the call, and then the gateway serves again."""
    with machine(max_heap_bytes=96 * MIB) as made:
        before = await made.good_calls()
        flood = Flood(made)
        async with flood.of(upload("/v1/models/llm/chat/completions", 2 * MIB)):
            pass
        await made.relieved()
        after = await made.good_calls()
        assert set(flood.statuses) <= {0, 408, 500, 503}
        assert flood.statuses.count(408) < CALLERS / 2, "they held their memory until their time was up"
        assert made.upstream.seen == len(before) + len(after)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([f"x-filler-{number}: {'y' * 200}" for number in range(99)], 401),
        ([f"x-filler-{number}: y" for number in range(200)], 431),
        ([f"x-filler: {'y' * 40_000}"], 431),
    ],
    ids=["as many as may be", "too many", "too long"],
)
async def test_huge_headers_are_bounded(headers: list[str], status: int) -> None:
    """Two hundred callers with all the headers they can think of get 431, or 401 where they are within the bounds."""
    with machine() as made:
        before = await made.good_calls()
        flood = Flood(made)
        async with flood.of(head("GET", "/models/iris/predict", f"host: {HOST}", *headers)):
            under_attack = await made.good_calls()
            held = await made.heap_bytes()
        assert set(flood.statuses) == {status}
        assert len(flood.statuses) == CALLERS
        assert held < 64 * MIB
        assert is_patient(under_attack, before)
        assert made.upstream.seen == len(before) + len(under_attack)


async def test_headers_that_never_end_are_ended() -> None:
    """A header line without its end holds a connection for ten seconds, not longer."""
    with machine() as made:
        flood = Flood(made)
        async with flood.of(b"GET /models/iris HTTP/1.1\r\nhost: x\r\nx-filler: ", count=20):
            await made.good_calls()
        assert flood.statuses == [408] * 20
