"""Which format of stored values is written: the newest that every gate reads, once that has been so for a while. Pure.

Budgets and reservations are written in format 1 or 2; every gate of this release reads both, one of the release before
reads format 1 alone and refuses a call whose budget it cannot read. So each gate tells with its heartbeat the newest
format that may be written as far as it is concerned, which is 1 where an operator pins it. Gates of the release before
tell nothing; those that settle leave a trace (``ratelimit.names.old_rest_key``) every second, and those under
``--store-failure bounded`` a heartbeat that names no format. A gate that writes format 2 says so, too: one that starts
within a minute need not prove again what was proved.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

OLDEST: Final = 1
"""What gates of the release before read and write."""
NEWEST: Final = 2
"""The newest that this release reads."""
QUIET_MS: Final = 60_000
"""How long nobody must have kept it at 1 before 2 is written: as long as a gate counts after its last heartbeat."""
LOOKED_MS: Final = 10_000
"""After so long without a look at the stores nothing is known any more, and 1 is written."""


WRITTEN: Final = b"written"
"""A member beside the gates: the newest format was written within a minute, and nobody has kept it at 1 since."""


class Heard(NamedTuple):
    """What one look at the stores found."""

    keeping: int  # gates that beat and have format 1 written: pinned, or of the release before
    old_settles: bool  # a gate of the release before has settled within two seconds
    is_written: bool = False  # the newest is, by a gate that has seen a minute without these


class Saying(enum.StrEnum):
    """What a gate says of the newest format with its heartbeat."""

    WRITES = "writes"
    KEPT = "kept"  # it knows who keeps it at 1
    WAITS = "waits"  # it does not know enough


def format_of(member: bytes) -> int:
    """The newest format that may be written for a gate's sake, by its member of ``gate.names.GATES``."""
    told = member.rpartition(b":")[2] if b":" in member else b""
    return int(told) if told.isdigit() else OLDEST


def heard(members: Iterable[bytes], *, old_settles: bool) -> Heard:
    """Put a look together from the gates that beat and the trace of those of the release before."""
    told = set(members)
    return Heard(sum(format_of(gate) < NEWEST for gate in told - {WRITTEN}), old_settles, WRITTEN in told)


class WrittenFormat:
    """Says which format is written; told by one thread, asked by any."""

    def __init__(self, newest: int, now_ms: Callable[[], float]) -> None:
        """``newest``: the newest that may be written; 1 where an operator pins it."""
        self.newest = newest
        self._now_ms = now_ms
        self._looked_ms = now_ms()
        self._quiet_from_ms: float | None = None
        self._written = OLDEST
        self._kept_by = "the stores have not been asked yet"
        self._is_kept = False

    def __call__(self) -> int:
        """The format to be written: 1 or 2."""
        return self._written

    @property
    def kept_by(self) -> str:
        """Who or what keeps it at 1; "" where 2 is written."""
        return self._kept_by

    @property
    def saying(self) -> Saying:
        """What others are to be told."""
        if self._is_kept:
            return Saying.KEPT
        return Saying.WRITES if self._written == NEWEST else Saying.WAITS

    def hear(self, found: Heard) -> None:
        """Go by a look at the stores."""
        now_ms = self._now_ms()
        if now_ms - self._looked_ms > LOOKED_MS:
            self._quiet_from_ms = None
        self._looked_ms = now_ms
        keepers = _keepers(self.newest, found)
        self._is_kept = bool(keepers)
        if keepers:
            self._quiet_from_ms = None
        elif found.is_written:
            self._quiet_from_ms = now_ms - QUIET_MS
        elif self._quiet_from_ms is None:
            self._quiet_from_ms = now_ms
        left_ms = 0.0 if self._quiet_from_ms is None else self._quiet_from_ms + QUIET_MS - now_ms
        if left_ms > 0:
            keepers = f"no older gate was seen lately: format {self.newest} is written in {left_ms / 1000:.0f} s"
        self._written, self._kept_by = (OLDEST, keepers) if keepers else (NEWEST, "")

    def miss(self) -> None:
        """Take note that the stores could not be asked."""
        if self._now_ms() - self._looked_ms > LOOKED_MS:
            self._written, self._kept_by = OLDEST, "the stores cannot be asked who is about"
            self._is_kept = False


def _keepers(newest: int, found: Heard) -> str:
    """Name those who keep it at 1, or ""."""
    if newest < NEWEST:
        return "--store-format 1 of this gate"
    many = "gate" if found.keeping == 1 else "gates"
    told = f"{found.keeping} {many} with --store-format 1 or of the release before" if found.keeping else ""
    settles = "a gate of the release before, which settles calls" if found.old_settles else ""
    return " and ".join(filter(None, (told, settles)))
