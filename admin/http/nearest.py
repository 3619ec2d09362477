"""Did you mean: the known name nearest to one that is none, and never one of another unit. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

MAX_NAME_SHOWN: Final = 32
"""Characters shown of a field's name: all of any name we know, and of a key put there by mistake next to nothing."""

_PERIODS: Final = ("millisecond", "second", "minute", "hour", "day", "week", "month", "year")
_SHORT: Final[Mapping[str, str]] = {"ms": "millisecond", "sec": "second", "min": "minute", "hr": "hour"}
_COUNTED: Final = ("request", "call", "token", "byte")
_CLOSE: Final = 0.6  # as difflib has it: a unit with a letter too few or too many


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean burstLimit?`` where a known name is close, else nothing.

    Whoever asked for ``requestsPerSecond`` is not offered ``requestsPerMinute``: it would be taken, and mean another
    limit.
    """
    asked = name[:MAX_NAME_SHOWN].lower().replace("_", "").replace("-", "")
    folded = {one.lower(): one for one in known}
    close = [one for one in difflib.get_close_matches(asked, folded, n=1) if _may_stand_for(asked, one)]
    return f"; did you mean {folded[close[0]]}?" if close else ""


def _may_stand_for(asked: str, offered: str) -> bool:
    """Whether what is offered counts the same thing, over the same period, as far as what was asked says."""
    return _period(asked) in {None, _period(offered)} and _counted(asked) <= _counted(offered)


def _counted(name: str) -> set[str]:
    return {one for one in _COUNTED if one in name}


def _period(name: str) -> str | None:
    """The period that a name ends with, also misspelt: ``requestsperminut`` ends with a minute."""
    bare = name.removesuffix("s")
    for short, period in _SHORT.items():
        if name.endswith(short) or bare.endswith(short):
            return period
    likeness, period = max((_likeness(bare[-len(one) - 1 :], one), one) for one in _PERIODS)
    return period if likeness >= _CLOSE else None


def _likeness(ending: str, period: str) -> float:
    return difflib.SequenceMatcher(None, ending, period).ratio()
