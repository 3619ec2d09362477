"""A real Valkey as ``tollkeeper up`` starts it, on a disk that can lose its power."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from tests.durability.disk import Cut, Disk
from tests.durability.whole import require
from tests.support.gatebench import wait_until
from tollkeeper.up.machine import valkey_command
from tollkeeper.up.state import Layout

START_S: Final = 30


class PoweredStore:
    """A store in a folder of its own. ``start`` it; then ``power_cut`` or ``kill``, and ``start`` it again."""

    def __init__(self, binary: str, library: Path, folder: Path, *options: str) -> None:
        """``options`` come after those of ``up``: ``"--appendfsync", "everysec"``."""
        layout = Layout(folder, folder)
        layout.valkey.mkdir()
        self._socket = layout.socket("valkey")
        self._command = [*valkey_command(binary, layout), *options]
        self._log = folder / "log"
        self.disk = Disk(layout.valkey, library, folder / "notes")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start and wait until it has read its files; what the folder holds now is on the disk."""
        self.disk.arm()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self.disk.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_start(self._process)
        assert self.disk.journal().loaded == 1, "the library was not preloaded"

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            require(process.poll() is None, f"the store does not start:\n{self._log.read_text()[-2_000:]}")
            require(time.monotonic() < deadline_s, "the store did not answer in time")
            time.sleep(0.005)  # its readiness has no event

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:  # not there yet, or loading
            return False

    def ask(self, *command: Any) -> Any:
        """Send one command on a connection of its own."""
        with redis.Redis.from_url(self.url, socket_timeout=20) as client:
            return client.execute_command(*command)

    def await_written(self) -> None:
        """Wait until the system has all that was answered: under everysec a write may wait for a running sync."""
        wait_until(self._is_written)

    def _is_written(self) -> bool:
        told = self.ask("INFO", "persistence")
        return not told["aof_pending_bio_fsync"] and not told["aof_buffer_length"]

    def kill(self) -> None:
        """Kill -9, with its forks: what it wrote stays in the system's memory."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def power_cut(self, chance: random.Random | None = None) -> Cut:
        """Kill it and take away what was not synced: all of it, or with ``chance`` some."""
        self.kill()
        return self.disk.cut(chance)


@contextmanager
def powered_store(binary: str, library: Path, folder: Path, *options: str) -> Iterator[PoweredStore]:
    """Run a store in a new folder; it is killed at the end."""
    folder.mkdir()
    store = PoweredStore(binary, library, folder, *options)
    store.start()
    try:
        yield store
    finally:
        store.kill()
