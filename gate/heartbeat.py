"""How many gates share the budgets: each says once a second that it is alive, and remembers how many did.

The one caller of lua/beat.lua. Knows nothing of calls; never on their way.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import RedisError

from gate import names
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


def beat(execute: Callable[..., Any], *, gate_id: str, kept_ms: int) -> tuple[int, bool]:
    """Say that this gate is alive; returns how many are, and whether this one did not count before."""
    gates, new = execute("EVAL", _BEAT, 1, names.GATES, gate_id, kept_ms)
    return int(gates), bool(new)


class Heartbeat:
    """Owns the thread ``gate-heartbeat`` and a link of its own."""

    def __init__(
        self,
        *,
        make: Callable[[], StoreLink],
        least: int,
        on_error: Callable[[Exception], None],
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
    ) -> None:
        self._make = make
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
        try:
            while not self._stopping.is_set():
                self._beat_on_one_link()
                self._stopping.wait(BEAT_S)
        except Exception:  # noqa: BLE001  whatever it was: the owner must learn that nobody beats any more
            _log.exception("the heartbeat ended by a fault of its own")
            self._on_fault()

    def _beat_on_one_link(self) -> None:
        """Beat until the link fails or the gate stops."""
        link = self._make()
        try:
            link.connect()
            while not self._stopping.is_set():
                self._beat(link)
                self._stopping.wait(BEAT_S)
        except (RedisError, OSError, UnicodeError) as error:
            self._on_error(error)
        finally:
            link.close()

    def _beat(self, link: StoreLink) -> None:
        def execute(*command: Any) -> Any:
            return link.execute(self._now_ms() + PATIENCE_MS, *command)

        self._gates, new = beat(execute, gate_id=self._id, kept_ms=KEPT_MS)
        self._beats = 1 if new else self._beats + 1

    def stop(self, timeout_s: float) -> None:
        """End the thread; the gate counts until its last heartbeat is a minute old."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
