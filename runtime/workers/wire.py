"""What a parent and its worker say to each other: JSON objects, one a line, over a socket that only they have.

The parent opens with ``{"settings": {field: text}, "name": "worker 1"}``; the worker answers
``{"started": {"listen": ADDRESS}}``
or ``{"cannot_start": SENTENCE}`` and from then on reports ``{"state": …, "metrics": …}``, about once a second and, with
``"answer": N``, when asked by ``{"ask": N}``. ``{"drain": true}`` ends a worker gently; the end of the socket at once.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

MAX_BYTES: Final = 64 * 1024 * 1024
"""The longest message; 2,500 labelled counters and their histogram are about half a megabyte."""

Message = dict[str, Any]


class Wire:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Wire:
        """Speak over this socket, which is closed with the wire."""
        return cls(*await asyncio.open_connection(sock=end, limit=MAX_BYTES))

    async def send(self, message: Message) -> None:
        """Send one message; to an end that has gone it is lost."""
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
        except ConnectionError:
            self.close()

    async def receive(self) -> Message | None:
        """Wait for the next message; ``None`` once the other end has gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
