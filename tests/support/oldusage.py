"""A gate of the release before, as far as it counts usage: its own scripts, which are kept beside the tests."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratelimit.names import due_key, held_key, usage_key

_SCRIPTS = Path(__file__).parents[1] / "recordings" / "release_before"
_TAKE, _SETTLE = ((_SCRIPTS / f"{name}.lua").read_bytes() for name in ("take", "settle"))
_CELL = "0"


class OldGate:
    """Counts calls by the script that admits them, and tokens by the one that settles."""

    def __init__(self, execute: Callable[..., Any]) -> None:
        self._execute = execute
        self._ids = itertools.count()

    def admit(self, subjects: tuple[str, ...], calls: int, now_ms: int) -> None:
        """Admit calls that have no budgets."""
        keys = ["tk:unfenced:{0}:feed", "tk:unfenced:{0}", *(usage_key(_CELL, name) for name in subjects)]
        call = struct.pack("<IdBBB", 0, 0, 0, len(subjects), 0) + struct.pack(
            f"<{len(subjects)}H", *range(1, len(subjects) + 1)
        )
        numbers = ("", "0", 0, now_ms, 0, b"", b"", call * calls, b"")
        reply = self._execute("EVAL", _TAKE, len(keys), *keys, *numbers, *([""] * calls))
        assert (reply[0], reply[4], reply[6]) == (b"P", 0, b"A" * calls)

    def settle(self, subjects: tuple[str, ...], tokens: int, now_ms: int) -> None:
        """End a call that held nothing, at this cost."""
        name = f"old-{next(self._ids)}"
        named = [usage_key(_CELL, one).encode() for one in subjects]
        names = b"".join(struct.pack("<B", len(key)) + key for key in named)
        head = struct.pack("<HBIIId", 0, ord("R"), 0, 4_000_000_000, 0, now_ms + 60_000)
        made = head + bytes([0]) + bytes([len(subjects)]) + names + struct.pack("<d", now_ms)
        self._execute("HSET", held_key(_CELL), name, made)
        keys = (held_key(_CELL), due_key(_CELL), f"{due_key(_CELL)}:rest")
        reply = self._execute("EVAL", _SETTLE, 3, *keys, now_ms, 0, 0, name, tokens, "1")
        assert (reply[1], reply[5]) == (b"S", 0)
