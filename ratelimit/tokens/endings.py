"""How a call ended, as the proxy tells it: the entries of a settlement's descriptor to values. Pure; free of protobuf.

The proxy writes what it knows as text and ``-`` for what it does not (publisher/envoy/meter.py); a value that cannot be
meant is taken for unknown, because a model's server had its hand in some of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.costs import MAX_TOKENS, Ended

DOMAIN: Final = "tollkeeper"
"""Of the ratelimit calls that settle; every other domain holds ordinary descriptors."""
MAX_ID: Final = 64
ID_HEAD: Final = 35
"""So much of a reservation's id names its cell and makes it hard to guess; who made the call stands behind it."""
UNFORMATTED: Final = "%"
"""What a value begins with where the proxy does not format it (its runtime flag is off): nothing is known."""
UNKNOWN: Final = "-"
"""What the proxy does not know; as response flags: there are none."""
_MAX_STATUS: Final = 599
_WITHHELD: Final = "response_payload_too_large"
"""Envoy's detail of an answer that outgrew its buffer: it sends a 500 of its own instead."""


@dataclass(frozen=True, slots=True)
class Told:
    """One call's end."""

    reservation: str
    publication: str  # uid, "" where it was not told
    ended: Ended

    @property
    def caller(self) -> str:
        """What tells callers apart, and says no more of them; "" for all who have no key."""
        return self.reservation[ID_HEAD:]


def read_told(entries: Mapping[str, str]) -> Told | None:
    """Read a descriptor; ``None`` where it names no reservation, or where the proxy formats nothing of what it tells.

    A call of which only the reservation is known is left to the sweep, like one of which nobody told.
    """
    reservation = entries.get("reservation", "")
    if not 0 < len(reservation) <= MAX_ID or reservation.startswith((UNFORMATTED, UNKNOWN)):
        return None
    if entries.get("status", UNFORMATTED).startswith(UNFORMATTED):
        return None
    status = _count(entries, "status", _MAX_STATUS) or 0
    publication = entries.get("publication", "")
    return Told(
        reservation,
        "" if publication.startswith((UNFORMATTED, UNKNOWN)) else publication,
        Ended(
            status=status,
            bytes_sent=_count(entries, "bytes", 2**63) or 0,
            total=_count(entries, "total", MAX_TOKENS),
            prompt=_count(entries, "prompt", MAX_TOKENS),
            completion=_count(entries, "completion", MAX_TOKENS),
            aborted=_aborted(entries.get("flags", UNFORMATTED), entries.get("whole", UNFORMATTED)),
            duration_ms=_count(entries, "duration", 2**63),
            withheld=entries.get("details") == _WITHHELD,
        ),
    )


def _aborted(flags: str, whole: str) -> bool | None:
    """Whether a call was cut off, by whomever; ``None`` where the proxy does not say.

    A whole one has no flags (``DC``: the caller left, ``UPE``, ``UC``: its server broke off) and its last byte was
    sent, which alone tells of one that the proxy itself cut off for its length.
    """
    if not flags or flags.startswith(UNFORMATTED) or not whole or whole.startswith(UNFORMATTED):
        return None
    return flags != UNKNOWN or whole == UNKNOWN


def _count(entries: Mapping[str, str], name: str, most: int) -> int | None:
    """Read a number of at least 0, what is above ``most`` as that; numbers of JSON may come as ``1e+06``."""
    try:
        value = float(entries.get(name, ""))
    except ValueError:
        return None
    if math.isnan(value) or value < 0:
        return None
    return most if value > most else int(value)
