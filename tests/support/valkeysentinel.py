"""A master, a replica that can be made to lag, and three Sentinels: all real, on loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeys import Valkey, await_ping, free_port, running_valkey

MASTER = "tollkeeper"
SENTINELS = 3
DOWN_AFTER_MS = 500
_BYTES = 65_536


class Relay:
    """Carries bytes between a replica and its master, until it is told to keep the master's back."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    @property
    def port(self) -> int:
        """Where the replica connects to."""
        return int(self._server.getsockname()[1])

    def freeze(self) -> None:
        """Keep back all that the master says from now on; it is lost with the master."""
        self._flowing.clear()

    def close(self) -> None:
        """End every thread; what was kept back is lost."""
        self._server.shutdown(socket.SHUT_RDWR)
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in (self._server, *self._ends):
            end.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="relay")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                replica, _ = self._server.accept()
                self._ends.append(replica)
                self._join(replica)

    def _join(self, replica: socket.socket) -> None:
        try:
            master = socket.create_connection(("127.0.0.1", self._target_port))
        except OSError:  # it is dead
            replica.shutdown(socket.SHUT_RDWR)
            return
        self._ends.append(master)
        self._spawn(self._carry, replica, master, True)
        self._spawn(self._carry, master, replica, False)

    def _carry(self, source: socket.socket, target: socket.socket, always: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(OSError):
            while data := source.recv(_BYTES):
                if always or self._flowing.is_set():
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Watched:
    """A master with its replica, watched by Sentinels."""

    master: Valkey
    replica: Valkey
    relay: Relay
    sentinels: tuple[Valkey, ...]

    @property
    def url(self) -> str:
        """How the master of the moment is reached."""
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{MASTER}"

    def kill_master(self) -> None:
        """Take the master away without warning."""
        self.master.process.kill()
        self.master.process.wait()


@contextlib.contextmanager
def watched_master(binary: str) -> Iterator[Watched]:
    """All of them, ready for a failover."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(running_valkey(binary, "--repl-diskless-sync-delay", "0"))
        relay = Relay(master.port)
        stack.callback(relay.close)
        replica = stack.enter_context(running_valkey(binary, "--replicaof", f"127.0.0.1 {relay.port}"))
        await_that(lambda: _info(replica, "replication")["master_link_status"] == "up")
        sentinels = tuple(stack.enter_context(_sentinel(binary, master)) for _ in range(SENTINELS))
        for sentinel in sentinels:
            await_that(lambda one=sentinel: _knows_all(one))  # type: ignore[misc]
        yield Watched(master, replica, relay, sentinels)


@contextlib.contextmanager
def _sentinel(binary: str, master: Valkey) -> Iterator[Valkey]:
    port = free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tk-sentinel-")))
        rules = folder / "sentinel.conf"
        rules.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} {SENTINELS // 2 + 1}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 60000\n"
        )
        log = stack.enter_context((folder / "log").open("wb"))
        with subprocess.Popen([binary, str(rules), "--sentinel"], stdout=log) as process:
            sentinel = Valkey(port, process, folder)
            try:
                await_ping(sentinel)
                yield sentinel
            finally:
                process.kill()


def _info(valkey: Valkey, section: str) -> dict[str, object]:
    with valkey.client() as client:
        found: dict[str, object] = client.info(section)
        return found


def _knows_all(sentinel: Valkey) -> bool:
    """Whether it knows the replica and the other Sentinels, so that they can agree."""
    state = _info(sentinel, "sentinel").get("master0")
    return isinstance(state, dict) and (state["slaves"], state["sentinels"]) == (1, SENTINELS)


def await_that(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    """Wait for what servers agree on in their own time; fails the test after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(redis.RedisError, KeyError):
            if condition():
                return
        if time.monotonic() > deadline_s:
            pytest.fail("the servers did not agree in time")
        time.sleep(0.02)
