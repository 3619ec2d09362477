"""The reply of ``take.lua`` as grants. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ratelimit.windows.budgets import Answer, Draw, Fence, Grant, Taken

_FENCES: Final = {b"P": Fence.PASSED, b"S": Fence.STALE, b"L": Fence.LATE}
_ADMITTED: Final = ord("A")
_IS_ADMITTED: Final = Answer.ADMITTED
_new: Final = tuple.__new__
"""Makes a grant of all its values: half the time that its own constructor takes, once a call."""
_REFUSED: Final = {ord("R"): Answer.REFUSED, ord("N"): Answer.NEVER_FITS}
_UNDECIDED: Final = {ord("E"): Answer.EXPIRED, ord("S"): Answer.STALE, ord("C"): Answer.CORRUPT}
_NUMBER_BYTES: Final = 8


def read_reply(draws: Sequence[Draw], reply: Sequence[Any]) -> Taken:
    """Turn the script's reply to these draws into what the callers are told."""
    fence, epoch, now_ms = _FENCES[reply[0]], reply[1].decode(), reply[2]
    if fence is not Fence.PASSED:
        return Taken(fence, epoch, now_ms, ())
    steps, spent_us, answers, packed, refusals = reply[3:]
    numbers = struct.unpack(f"<{len(packed) // _NUMBER_BYTES}q", packed)
    grants = tuple(_grants(draws, answers, numbers, refusals))
    return Taken(fence, epoch, now_ms, grants, spent_us=spent_us, clock_steps=steps)


def _grants(
    draws: Sequence[Draw], answers: bytes, numbers: tuple[int, ...], refusals: Sequence[int]
) -> Iterator[Grant]:
    """Hand out each call's own part of the numbers."""
    at, told = 0, iter(refusals)
    for draw, letter in zip(draws, answers, strict=True):
        if letter in _UNDECIDED:
            yield Grant(_UNDECIDED[letter], draw)
            continue
        first, at = at, at + 2 * draw.charge.count
        if letter == _ADMITTED:
            yield _new(Grant, (_IS_ADMITTED, draw, numbers[first:at], 0, 0, 0))
        else:
            yield Grant(_REFUSED[letter], draw, numbers[first:at], next(told), next(told), next(told))
