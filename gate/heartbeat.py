"""Which gates share the stores: each says once a second that it is alive and what it reads, and remembers who did.

The one caller of lua/beat.lua. Looks for gates of the release before, too, by the trace that they leave in the budgets
store. Knows nothing of calls; never on their way.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import RedisError

from gate import names
from gate.formats import WRITTEN, Saying, WrittenFormat, heard
from runtime.lifecycle import fault_told
from runtime.store.cluster import AnyLink
from runtime.store.link import StoreLink

BEAT_S: Final = 1.0
KEPT_MS: Final = 60_000
"""How long a gate counts after its last heartbeat: what it admitted by itself is by then out of every minute."""
SETTLED_BEATS: Final = 3
"""Heartbeats after which every other gate has had a whole ``BEAT_S`` in which to count this one."""
PATIENCE_MS: Final = 1_000
_ID_BYTES: Final = 16  # 128 bit, random: two gates never share one

_BEAT: Final = files("gate").joinpath("lua/beat.lua").read_bytes()
_log: Final = logging.getLogger(__name__)


def beat(
    execute: Callable[..., Any], *, gate_id: str, kept_ms: int, newest: int, saying: Saying
) -> tuple[list[bytes], bool]:
    """Say that this gate is alive; returns the members of all that are, and whether this one did not count before.

    ``newest``: the newest format that may be written for this gate's sake; ``saying``: whether that is written.
    """
    new, members = execute("EVAL", _BEAT, 1, names.GATES, gate_id, kept_ms, newest, saying.value)
    return list(members), bool(new)


class OldTraces:
    """Looks for what gates of the release before leave in the budgets store; has a link of its own."""

    def __init__(self, make: Callable[[], AnyLink], keys: Sequence[str], now_ms: Callable[[], float]) -> None:
        """``keys``: what is there only where such a gate has settled within two seconds."""
        self._make = make
        self._commands = [("EXISTS", key) for key in keys]
        self._now_ms = now_ms
        self._link: AnyLink | None = None

    def seen(self) -> bool:
        """Whether there is such a trace; raises ``RedisError`` or ``OSError`` where that cannot be told."""
        if self._link is None:
            self._link = self._make()
        try:
            if not self._link.connected:
                self._link.connect()
            replies = self._link.execute_many(self._now_ms() + PATIENCE_MS, self._commands)
            return any(_told(reply) for reply in replies)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up the link; the next look makes another."""
        if self._link is not None:
            self._link.close()
        self._link = None


def _told(reply: Any) -> bool:
    if isinstance(reply, RedisError):
        raise reply
    return bool(reply)


class Heartbeat:
    """Owns the thread ``gate-heartbeat`` and a link of its own."""

    def __init__(
        self,
        *,
        make: Callable[[], StoreLink],
        traces: OldTraces,
        formats: WrittenFormat,
        least: int,
        on_error: Callable[[Exception], None],
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
    ) -> None:
        self._make = make
        self._traces = traces
        self._formats = formats
        self._least = least
        self._on_error = on_error
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._id = os.urandom(_ID_BYTES).hex()
        self._beats = 0
        self._gates = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gate-heartbeat", daemon=True)

    @property
    def gates(self) -> int:
        """How many gates were alive when the store last told, or what the operator says if that is more."""
        return max(self._gates, self._least)

    @property
    def sharers(self) -> int | None:
        """By how many a limit must be divided; ``None`` until every other gate can know of this one."""
        return self.gates if self._beats >= SETTLED_BEATS else None

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def _run(self) -> None:
        with fault_told(_log, "the heartbeat", self._on_fault):
            while not self._stopping.is_set():
                self._beat_on_one_link()
                self._stopping.wait(BEAT_S)

    def _beat_on_one_link(self) -> None:
        """Beat until the link fails or the gate stops."""
        link = self._make()
        try:
            link.connect()
            while not self._stopping.is_set():
                self._beat(link)
                self._stopping.wait(BEAT_S)
        except (RedisError, OSError, UnicodeError) as error:
            self._formats.miss()
            self._on_error(error)
        finally:
            link.close()
            self._traces.close()

    def _beat(self, link: StoreLink) -> None:
        def execute(*command: Any) -> Any:
            return link.execute(self._now_ms() + PATIENCE_MS, *command)

        formats = self._formats
        members, new = beat(execute, gate_id=self._id, kept_ms=KEPT_MS, newest=formats.newest, saying=formats.saying)
        self._gates, self._beats = len(set(members) - {WRITTEN}), 1 if new else self._beats + 1
        self._formats.miss()
        with suppress(RedisError, OSError):  # counted, and told, by the keeper of the link to that store
            self._formats.hear(heard(members, old_settles=self._traces.seen()))

    def stop(self, timeout_s: float) -> None:
        """End the thread; the gate counts until its last heartbeat is a minute old."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
