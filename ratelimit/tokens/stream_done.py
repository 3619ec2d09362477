"""The way in which an Envoy of the release before says how a call ended: the entries of a descriptor, as text. Pure.

To be deleted with ``ratelimit.service.stream_done`` in the release after this one. That Envoy's configuration writes
what it knows as text and ``-`` for what it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import MAX_COUNT, MAX_ID, MAX_STATUS, WITHHELD, Told, count
from ratelimit.tokens.terms import MAX_TOKENS

DOMAIN: Final = "tollkeeper"
"""Of the ratelimit calls that settle; every other domain holds ordinary descriptors."""
UNFORMATTED: Final = "%"
"""What a value begins with where the proxy does not format it (its runtime flag is off): nothing is known."""
UNKNOWN: Final = "-"
"""What the proxy does not know; as response flags: there are none."""


def read_told(entries: Mapping[str, str]) -> Told | None:
    """Read a descriptor; ``None`` where it names no reservation, or where the proxy formats nothing of what it tells.

    A call of which only the reservation is known is left to the sweep, like one of which nobody told.
    """
    reservation = entries.get("reservation", "")
    if not 0 < len(reservation) <= MAX_ID or reservation.startswith((UNFORMATTED, UNKNOWN)):
        return None
    if entries.get("status", UNFORMATTED).startswith(UNFORMATTED):
        return None
    status = _count(entries, "status", MAX_STATUS) or 0
    publication = entries.get("publication", "")
    return Told(
        reservation,
        "" if publication.startswith((UNFORMATTED, UNKNOWN)) else publication,
        Ended(
            status=status,
            bytes_sent=_count(entries, "bytes", MAX_COUNT) or 0,
            total=_count(entries, "total", MAX_TOKENS),
            prompt=_count(entries, "prompt", MAX_TOKENS),
            completion=_count(entries, "completion", MAX_TOKENS),
            aborted=_aborted(entries.get("flags", UNFORMATTED), entries.get("whole", UNFORMATTED)),
            duration_ms=_count(entries, "duration", MAX_COUNT),
            withheld=entries.get("details") == WITHHELD,
        ),
    )


def _aborted(flags: str, whole: str) -> bool | None:
    """Whether a call was cut off, by whomever; ``None`` where the proxy does not say."""
    if not flags or flags.startswith(UNFORMATTED) or not whole or whole.startswith(UNFORMATTED):
        return None
    return flags != UNKNOWN or whole == UNKNOWN


def _count(entries: Mapping[str, str], name: str, most: int) -> int | None:
    """Read a number; those of JSON may come as ``1e+06``."""
    try:
        return count(float(entries.get(name, "")), most)
    except ValueError:
        return None
