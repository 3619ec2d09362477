"""Callers of a gateway: as many connections as wanted, each waiting for its answer before it calls again."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator

from catalog.records import PublicationRecord


def call_of(publication: PublicationRecord, key: str) -> bytes:
    """A GET of a publication, as it is sent."""
    lines = (f"GET {publication.path} HTTP/1.1", f"host: {publication.host}", f"x-api-key: {key}", "", "")
    return "\r\n".join(lines).encode()


_FAULT = 500


def _reason(body: bytes) -> str:
    """Why the gate did not decide a call; empty where it is the proxy that answered."""
    try:
        return str(json.loads(body)["error"]["reason"])
    except (ValueError, KeyError):
        return ""


class Callers:
    """Keep-alive connections that send one request over and over, as fast as they are answered."""

    def __init__(self, port: int, connections: int, *requests: bytes) -> None:
        self._port = port
        self._connections = connections
        self._requests = itertools.cycle(requests)
        self._stopping = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()  # answers from 500 on, by the reason that the gate gives

    def call(self, count: int) -> None:
        """Make ``count`` calls, or stop when told."""
        asyncio.run(self._all(iter(range(count))))

    def stop(self) -> None:
        """Make no further calls."""
        self._stopping.set()

    async def _all(self, turns: Iterator[int]) -> None:
        await asyncio.gather(*(self._one(turns) for _ in range(self._connections)))

    async def _one(self, turns: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for _ in turns:
            if self._stopping.is_set():
                break
            writer.write(next(self._requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            body, status = await reader.readexactly(length), int(head.split()[1])
            self.statuses[status] += 1
            if status >= _FAULT:
                self.faults[_reason(body)] += 1
        writer.close()
        await writer.wait_closed()
