"""A gate of the release before, as far as it takes of budgets: its own script, which is kept beside the tests."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ratelimit.names import budget_key, due_key, held_key
from ratelimit.windows.budgets import Draw, Window

_TAKE: Final = (Path(__file__).parents[1] / "recordings" / "release_before" / "take.lua").read_bytes()
_CELL: Final = "0"
_SHAPES: Final = {
    Window.SECOND: (1, 20, 0, 50),
    Window.MINUTE: (2, 60, 0, 1_000),
    Window.HOUR: (3, 60, 0, 60_000),
    Window.DAY: (4, 96, 0, 900_000),
    Window.TOKENS_HOUR: (5, 60, 1, 60_000),
}
_SHAPES_BLOB: Final = b"".join(struct.pack("<BBBd", *shape) for shape in _SHAPES.values())


class OldTaker:
    """Decides one call at a time."""

    def __init__(self, execute: Callable[..., Any]) -> None:
        self._execute = execute

    def take(self, draw: Draw, now_ms: int) -> str:
        """Answer a call: ``A`` admitted, ``R`` refused, ``N`` never fits, ``C`` a value cannot be read."""
        subjects, hold = draw.charge.subjects, draw.hold
        plans = b"".join(
            struct.pack("<HB", number, len(subject.budgets))
            + b"".join(struct.pack("<BI", _SHAPES[one.window][0], one.limit) for one in subject.budgets)
            for number, subject in enumerate(subjects, start=1)
        )
        asked = b"".join(struct.pack("<HI", number, draw.hits) for number in range(1, len(subjects) + 1))
        call = struct.pack("<IdBBB", draw.tokens, 0, len(subjects), 0, hold is not None) + asked
        keys = ["tk:unfenced:{0}:feed", "tk:unfenced:{0}", *(budget_key(_CELL, one.name) for one in subjects)]
        holds = b""
        if hold is not None:
            keys += [held_key(_CELL), due_key(_CELL)]
            name, terms = hold.id.encode(), hold.terms
            numbers = (hold.ceiling, hold.presumed, hold.timeout_ms, len(terms))
            holds = struct.pack("<B", len(name)) + name + struct.pack("<IIdH", *numbers) + terms
        arguments = ("", "0", 0, now_ms, len(subjects), _SHAPES_BLOB, plans, call, holds, "")
        reply = self._execute("EVAL", _TAKE, len(keys), *keys, *arguments)
        return str(reply[6].decode())
