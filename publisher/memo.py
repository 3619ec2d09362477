"""Pure functions that are asked the same again and again: what was made of a value is remembered for a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Memo(Generic[K, T]):
    """What was made of a value the last time is not made again. Values not asked for in a round are forgotten."""

    def __init__(self, make: Callable[[K], T]) -> None:
        self._make = make
        self._before: dict[K, T] = {}
        self._now: dict[K, T] = {}

    def __call__(self, key: K) -> T:
        """What is made of this."""
        made = self._now.get(key)
        if made is None:
            made = self._before.get(key)
            made = self._now[key] = self._make(key) if made is None else made
        return made

    def next_round(self) -> None:
        """Begin a round."""
        self._before, self._now = self._now, {}
