"""Reads the field ``now`` of a usage hash: what is counted of the minute, the hour and the day that run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.usage.facts import UNUSED, Used


@dataclass(frozen=True, slots=True)
class Now:
    """What is counted now, as the scripts write it."""

    minute: int = 0  # since the Unix epoch
    of_minute: Used = UNUSED
    of_hour: Used = UNUSED
    of_day: Used = UNUSED
    seen: int = 0  # the total when a gate of this form wrote it last
    old_day: int = 0  # since the Unix epoch, when it was last found to be another

    def is_joined(self, total: int, since_day: int) -> bool:
        """Whether gates that know no ``now`` may have counted since a day."""
        return total != self.seen or self.old_day >= since_day


_WIDTHS: Final = (4, 4, 6, 4, 6, 5, 7, 7, 3)  # bytes of each number of ``now``, little-endian
_NOW_BYTES: Final = sum(_WIDTHS)
_SIGNED: Final = frozenset({2, 4, 6})  # tokens, which a late settlement takes back


def read_now(raw: bytes | None) -> Now:
    """Read the field ``now``; one of another length is none, as the scripts have it."""
    if raw is None or len(raw) != _NOW_BYTES:
        return Now()
    numbers, at = [], 0
    for place, width in enumerate(_WIDTHS):
        numbers.append(int.from_bytes(raw[at : at + width], "little", signed=place in _SIGNED))
        at += width
    minute, mc, mt, hc, ht, dc, dt, seen, old_day = numbers
    return Now(minute, Used(mc, mt), Used(hc, ht), Used(dc, dt), seen, old_day)
