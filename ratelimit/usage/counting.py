"""Writes what a gate has counted of subjects into their usage: the one caller of ``lua/count.lua``."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import NoScriptError

from ratelimit.names import usage_flush_key, usage_key, usage_past_key
from ratelimit.usage.counted import Counted
from ratelimit.windows.limiter import Execute

REMEMBERED_MS: Final = 3_600_000
"""How long the store knows which flush of a gate was its last: so long one may be sent again."""
MAX_FLUSHED: Final = 1_000
"""Most subjects of one script: Lua passes names on its stack."""

_LUA: Final = importlib.resources.files("ratelimit.usage")
_COUNT: Final = _LUA.joinpath("lua/past.lua").read_bytes() + _LUA.joinpath("lua/count.lua").read_bytes()
_COUNT_SHA: Final = hashlib.sha1(_COUNT, usedforsecurity=False).hexdigest()  # how the store names scripts


class Flushed(NamedTuple):
    """The script's reply."""

    faults: int  # subjects of which something could not be written
    spent_us: int  # processor time of the script in the store
    missing: list[str]  # subjects of which nothing was written: they have no usage, and ended calls make none


def count(execute: Execute, cell: str, gate: str, number: int, counted: Sequence[tuple[str, Counted]]) -> Flushed:
    """Write one flush of a gate, once: it may be sent again, under the same number, until a later one was.

    ``number`` counts up with each flush of a gate in a cell. Raises ``ValueError`` for too many subjects, and what
    ``execute`` raises.
    """
    if len(counted) > MAX_FLUSHED:
        raise ValueError(f"a flush holds at most {MAX_FLUSHED} subjects, not {len(counted)}")
    keys = [usage_flush_key(cell, gate)]
    for subject, _ in counted:
        keys += (usage_key(cell, subject), usage_past_key(cell, subject))
    arguments = (len(keys), *keys, number, REMEMBERED_MS, *(told.pack() for _, told in counted))
    try:
        faults, spent_us, missing = execute("EVALSHA", _COUNT_SHA, *arguments)
    except NoScriptError:  # proves that nothing ran
        faults, spent_us, missing = execute("EVAL", _COUNT, *arguments)
    return Flushed(faults, spent_us, [counted[place - 1][0] for place in missing])
