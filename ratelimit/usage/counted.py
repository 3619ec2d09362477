"""What a gate has counted of one subject since it was written last. A plain value; knows no store and no thread."""

from __future__ import annotations

import struct
from typing import Final

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
MAX_PRESUMED: Final = 100
"""Most presumed calls of a flush that are told, the newest: twenty are worth a warning."""

_TOLD: Final = 1
_TOLD_USAGE: Final = 2
_HEAD: Final = struct.Struct("<HHBBIdd")
_HEAD_OF_ONE: Final = struct.Struct("<HHBBIddI")
_MAX_ESTIMATED: Final = 2**32 - 1


class Counted:
    """Counts that can be added up; ``pack`` is what ``lua/count.lua`` reads."""

    __slots__ = ("_above", "_estimated", "_has_usage", "_last_ms", "_minutes", "_presumed", "_told_ms", "missed")

    def __init__(self) -> None:
        self.missed = 0  # how often there was no usage to add it to
        self._minutes: dict[int, list[int]] = {}  # since the Unix epoch -> calls, tokens
        self._last_ms = 0
        self._told_ms = 0
        self._has_usage = False  # an answer told usage; ``_estimated`` counts from the last one on
        self._estimated = 0
        self._presumed: list[float] = []  # when they were admitted
        self._above: dict[int, list[int]] = {}  # hour -> calls, tokens

    @property
    def calls(self) -> int:
        """Admitted calls."""
        return sum(calls for calls, _ in self._minutes.values())

    def admitted(self, calls: int, now_ms: int) -> None:
        """Count admitted calls."""
        self._of_minute(now_ms)[0] += calls
        self._last_ms = max(self._last_ms, now_ms)

    def charged(self, tokens: int, now_ms: int) -> None:
        """Count tokens that a call was charged when it ended, or take back what it was charged too much."""
        self._of_minute(now_ms)[1] += tokens

    def told(self, now_ms: int, above: int, usage: bool | None) -> None:  # noqa: FBT001  three answers: yes, no, not asked
        """Note that the end of a call was told; the fields mean what they mean to a ``Settlement``."""
        self._told_ms = max(self._told_ms, now_ms)
        if usage:
            self._has_usage, self._estimated = True, 0
        elif usage is not None:
            self._estimated = min(_MAX_ESTIMATED, self._estimated + 1)
        if above > 0:
            hour = self._above.setdefault(now_ms // HOUR_MS, [0, 0])
            hour[0] += 1
            hour[1] += above

    def presumed(self, admitted_ms: float) -> None:
        """Note a call of which nobody told in time."""
        self._presumed.append(admitted_ms)
        if len(self._presumed) > 2 * MAX_PRESUMED:
            self._presumed = sorted(self._presumed)[-MAX_PRESUMED:]

    def add(self, more: Counted) -> None:
        """Add what was counted after this."""
        for minute, (calls, tokens) in more._minutes.items():
            mine = self._minutes.setdefault(minute, [0, 0])
            mine[0] += calls
            mine[1] += tokens
        for hour, (calls, tokens) in more._above.items():
            above = self._above.setdefault(hour, [0, 0])
            above[0] += calls
            above[1] += tokens
        self._last_ms, self._told_ms = max(self._last_ms, more._last_ms), max(self._told_ms, more._told_ms)
        self._estimated = min(_MAX_ESTIMATED, more._estimated + (0 if more._has_usage else self._estimated))
        self._has_usage |= more._has_usage
        self._presumed = sorted([*self._presumed, *more._presumed])[-MAX_PRESUMED:]

    def _of_minute(self, now_ms: int) -> list[int]:
        return self._minutes.setdefault(now_ms // MINUTE_MS, [0, 0])

    def pack(self) -> bytes:
        """Write it down as the script reads it."""
        if len(self._minutes) == 1 and not self._presumed and not self._above:
            return self._packed_minute()
        presumed = sorted(self._presumed)[-MAX_PRESUMED:]
        flags = (_TOLD if self._told_ms else 0) + (_TOLD_USAGE if self._has_usage else 0)
        parts = [
            _HEAD.pack(
                len(self._minutes),
                len(presumed),
                len(self._above),
                flags,
                self._estimated,
                self._last_ms,
                self._told_ms,
            )
        ]
        for minute, (calls, tokens) in sorted(self._minutes.items()):
            parts.append(minute.to_bytes(4, "little") + calls.to_bytes(6, "little"))
            parts.append(tokens.to_bytes(7, "little", signed=True))
        parts.append(struct.pack(f"<{len(presumed)}d", *presumed))
        for hour, (calls, tokens) in sorted(self._above.items()):
            parts.append(hour.to_bytes(4, "little") + calls.to_bytes(4, "little") + tokens.to_bytes(7, "little"))
        return b"".join(parts)

    def _packed_minute(self) -> bytes:
        """The same of what has calls and tokens of one minute alone, as nearly all have."""
        ((minute, (calls, tokens)),) = self._minutes.items()
        flags = (_TOLD if self._told_ms else 0) + (_TOLD_USAGE if self._has_usage else 0)
        head = _HEAD_OF_ONE.pack(1, 0, 0, flags, self._estimated, self._last_ms, self._told_ms, minute)
        return head + calls.to_bytes(6, "little") + tokens.to_bytes(7, "little", signed=True)
