"""A proxy before a real store that loses, delays, cuts and dribbles, one command or all of them.

It knows where commands and replies begin and end, so a fault hits exactly one: the command runs and only its answer
is lost, or it arrives long after its sender gave up. One thread, asyncio; Unix socket in front, URL of a Unix socket
behind.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import hiredis

PATIENCE_S = 20
READ_BYTES = 65_536
DRIBBLED = 20  # bytes of a reply that come one by one


class Act(Enum):
    """What is done to one command and its reply."""

    PASS = "pass"
    DROP_COMMAND = "drop_command"  # never reaches the store, nobody says so
    DROP_REPLY = "drop_reply"  # runs; its reply is swallowed
    RESET_BEFORE = "reset_before"  # the connection is reset, the command not forwarded
    RESET_AFTER = "reset_after"  # runs; the connection is reset before its reply
    CUT = "cut"  # runs; half of its reply, then the end
    DRIBBLE = "dribble"  # runs; its reply comes byte by byte, for longer than anybody waits
    LATE_COMMAND = "late_command"  # reaches the store after its sender gave up
    LATE_REPLY = "late_reply"  # runs; its reply comes after its sender gave up


FAULTS = tuple(act for act in Act if act is not Act.PASS)
LOSES_CONNECTION = frozenset({Act.RESET_BEFORE, Act.RESET_AFTER, Act.CUT})

Command = list[bytes]
Choose = Callable[[Command], Act]


@dataclass(slots=True)
class _Side:
    """One direction of a connection: bytes in, whole messages out."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parser: Any

    async def message(self) -> tuple[bytes, list[Any]]:
        """Read until at least one whole message is there: its bytes, and the messages in them."""
        raw, found = b"", []
        while not found:
            data = await self.reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError
            raw += data
            self.parser.feed(data)
            while (one := self.parser.gets()) is not False:
                found.append(one)
        return raw, found


class FaultProxy:
    """Forwards to the store at ``upstream`` (a socket's path) until told otherwise."""

    def __init__(self, path: Path, upstream: Path, late_s: float) -> None:
        self._path = path
        self._upstream = upstream
        self._late_s = late_s
        self._loop = asyncio.new_event_loop()
        self._choose: Choose = lambda _command: Act.PASS
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.seen: list[tuple[bytes, Act]] = []  # names of commands, in the order they came
        self.deaf_to: frozenset[bytes] = frozenset()  # commands that are always dropped
        self.held = 0  # commands and replies that are kept back at the moment
        self.url = f"unix://{path}"

    # What is done to the traffic

    def plan(self, choose: Choose) -> None:
        """Have every command from now on judged by ``choose``, in the proxy's thread."""
        self._choose = choose

    def once(self, name: bytes, act: Act, accept: Callable[[Command], bool] = lambda _command: True) -> threading.Event:
        """Do this to the next command of that name which ``accept`` takes; the event tells that it was done."""
        done = threading.Event()

        def choose(command: Command) -> Act:
            if done.is_set() or command[0] != name or not accept(command):
                return Act.PASS
            done.set()
            return act

        self.plan(choose)
        return done

    def hang(self) -> None:
        """Stop forwarding silently; connections are accepted and never answered."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Forward again, what was held back first."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def heal(self) -> None:
        """Stop every fault."""
        self.plan(lambda _command: Act.PASS)
        self.flow()

    # Life

    def run(self, ready: threading.Event) -> None:
        """Serve until ``stop``; the thread's target."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_unix_server(self._accept, str(self._path)))
        ready.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close in the next round
        self._loop.close()

    def stop(self) -> None:
        """End the loop, from another thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.CancelledError, OSError):
            await self._flowing.wait()
            store = await asyncio.open_unix_connection(str(self._upstream))
            try:
                client = _Side(reader, writer, hiredis.Reader())
                await self._converse(client, _Side(*store, hiredis.Reader()))
            finally:
                store[1].close()
        writer.close()

    async def _converse(self, client: _Side, store: _Side) -> None:
        while True:
            raw, commands = await client.message()
            act = self._judge(commands)
            await self._flowing.wait()
            if act is Act.RESET_BEFORE:
                return _reset(client.writer)
            if act is Act.DROP_COMMAND:
                continue
            if act is Act.LATE_COMMAND:
                await self._hold(self._late_s)
            store.writer.write(raw)
            await self._reply(client, store, len(commands), act)
            if act in LOSES_CONNECTION:
                return None

    def _judge(self, commands: list[Command]) -> Act:
        acts = [Act.DROP_COMMAND if command[0] in self.deaf_to else self._choose(command) for command in commands]
        self.seen += [(command[0], act) for command, act in zip(commands, acts, strict=True)]
        return next((act for act in acts if act is not Act.PASS), Act.PASS)

    async def _reply(self, client: _Side, store: _Side, count: int, act: Act) -> None:
        raw = b""
        while count > 0:
            data, replies = await store.message()
            raw, count = raw + data, count - len(replies)
        await self._flowing.wait()
        if act is Act.RESET_AFTER:
            _reset(client.writer)
        elif act is Act.CUT:
            client.writer.write(raw[: len(raw) // 2])
            await client.writer.drain()
        elif act is Act.DRIBBLE:
            for byte in raw[:DRIBBLED]:
                client.writer.write(bytes([byte]))
                await self._hold(self._late_s / DRIBBLED)
            client.writer.write(raw[DRIBBLED:])
        elif act is not Act.DROP_REPLY:
            if act is Act.LATE_REPLY:
                await self._hold(self._late_s)
            client.writer.write(raw)

    async def _hold(self, seconds: float) -> None:
        self.held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.held -= 1


def _reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection at once; over TCP with a reset."""
    connection = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(store_url: str, *, late_s: float) -> Iterator[FaultProxy]:
    """A proxy before the store at ``unix://PATH[?db=N]``; its ``url`` selects the same database."""
    path, _, query = store_url.removeprefix("unix://").partition("?")
    with tempfile.TemporaryDirectory(prefix="tk-fault-") as folder:
        proxy = FaultProxy(Path(folder) / "s.sock", Path(path), late_s)
        proxy.url += f"?{query}" if query else ""
        ready = threading.Event()
        thread = threading.Thread(target=proxy.run, args=(ready,), name="fault-proxy")
        thread.start()
        assert ready.wait(PATIENCE_S)
        try:
            yield proxy
        finally:
            proxy.stop()
            thread.join(PATIENCE_S)
