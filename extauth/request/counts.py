"""What a call's body says of its cost: the counts that bound it. Pure.

A body that names several bounds is held to the largest of them: which one its server reads is not for us to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.costs import MAX_TOKENS

MAX_FIELDS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
CHOICES_FIELD: Final = "n"
COUNT_FIELDS: Final = (*MAX_FIELDS, CHOICES_FIELD)
MAX_CHOICES: Final = 16


@dataclass(frozen=True, slots=True)
class Counts:
    """The bounds that a body names."""

    max_tokens: int | None = None  # the largest; None: it names none
    choices: int = 1
    fault: str = ""  # the first field whose value cannot be meant


NO_COUNTS: Final = Counts()


def read_counts(fields: Mapping[str, object]) -> Counts:
    """Read the counts of a body; ``None`` stands for JSON's null, which says nothing.

    A count is a whole number, 0..10^9 tokens or 1..16 choices; anything else is a fault.
    """
    if not fields:
        return NO_COUNTS
    given = {name: value for name in COUNT_FIELDS if (value := fields.get(name)) is not None}
    for name, value in given.items():
        least, most = (1, MAX_CHOICES) if name == CHOICES_FIELD else (0, MAX_TOKENS)
        if not _is_whole(value, least, most):
            return Counts(fault=name)
    bounds = [_whole(given[name]) for name in MAX_FIELDS if name in given]
    return Counts(max(bounds, default=None), _whole(given.get(CHOICES_FIELD, 1)))


def _is_whole(value: object, least: int, most: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value <= most and value == int(value)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
