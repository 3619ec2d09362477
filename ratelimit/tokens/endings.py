"""How a call ended, as the proxy's log says it: values to an ending. Pure; free of protobuf.

What cannot be meant is taken for unknown, because a model's server had its hand in some of the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from ratelimit.tokens.costs import Ended
from ratelimit.tokens.terms import MAX_TOKENS

MAX_ID: Final = 64
ID_HEAD: Final = 35
"""So much of a reservation's id names its cell and makes it hard to guess; who made the call stands behind it."""
MAX_ANSWERS_ID: Final = 128
MAX_COUNT: Final = 2**63
MAX_STATUS: Final = 599
WITHHELD: Final = "response_payload_too_large"
"""Envoy's detail of an answer that outgrew its buffer: it sends a 500 of its own instead."""

Numbers = Mapping[str, float]
"""What the answer's usage told, by our names."""


class Told(NamedTuple):
    """One call's end."""

    reservation: str
    publication: str  # uid, "" where it was not told
    ended: Ended
    answers_id: str = ""  # that the answer has at its server, "" where none was told
    is_result: bool = False  # a later call's answer told it, under this id

    @property
    def caller(self) -> str:
        """What tells callers apart, and says no more of them; "" for all who have no key."""
        return self.reservation[ID_HEAD:]


class Logged(NamedTuple):
    """What the proxy's log says of a call that has ended, beside its usage."""

    status: int  # sent to the caller; 0: none was sent
    bytes_sent: int
    has_flags: bool  # something went wrong: the caller left, its server broke off, a timeout
    is_whole: bool  # the answer's last byte was sent
    details: str
    duration_ms: int
    content_type: str = ""  # of the answer; "" where the proxy does not tell


def told_of(reservation: str, publication: str, logged: Logged, usage: Numbers, answers_id: str = "") -> Told | None:
    """Put an ending together; ``None`` where the call's id cannot be one of ours.

    A whole call has no flags and its last byte was sent; the latter alone tells of one that was cut off for its length.
    """
    if not 0 < len(reservation) <= MAX_ID:
        return None
    status, bytes_sent, has_flags, is_whole, details, duration_ms, _ = logged
    tell = usage.get
    apart, prompt = count(tell("apart"), MAX_TOKENS) or 0, count(tell("prompt"), MAX_TOKENS)
    ended = (
        status if 0 <= status <= MAX_STATUS else 0,
        bytes_sent,
        count(tell("total"), MAX_TOKENS),
        min(MAX_TOKENS, (prompt or 0) + apart) if apart else prompt,
        count(tell("completion"), MAX_TOKENS),
        has_flags or not is_whole,
        duration_ms,
        details == WITHHELD,
        count(tell("cached"), MAX_TOKENS),
        count(tell("cache_written"), MAX_TOKENS),
        count(tell("reasoning"), MAX_TOKENS),
        _events(logged, usage),
    )
    names = (reservation, publication if len(publication) <= MAX_ID else "")
    return _new(Told, (*names, _new(Ended, ended), id_of(answers_id), False))


_new: Final = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""


def id_of(text: str) -> str:
    """An answer's id, "" where it cannot be one: letters, digits, ``_`` and ``-``, at most 128."""
    return text if text and _IDS.fullmatch(text) else ""


_IDS: Final = re.compile(f"[A-Za-z0-9_-]{{1,{MAX_ANSWERS_ID}}}")


def _events(logged: Logged, usage: Numbers) -> int | None:
    """How many were counted; none of a JSON answer, though a stream was asked for: some servers then send one."""
    counted = count(usage.get("events"), MAX_COUNT)
    return 0 if counted is None and "json" in logged.content_type.lower() else counted


def count(value: float | None, most: int) -> int | None:
    """Return a whole number of at least 0, what is above ``most`` as that; ``None`` where it cannot be meant."""
    if value is None or not value >= 0:  # not a number is not either
        return None
    return most if value > most else int(value)
