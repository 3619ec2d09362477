"""Whether the records that something was decided on are still as they were. No I/O; the cache's lock is held around it.

A *mark* stands for one record from the moment on when something was decided on it, until the record changes: then the
mark is struck, and all that holds it is void at once, however much that is. Whoever holds marks asks by ``turn``
first: while that has not moved, nothing was struck at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class Mark(msgspec.Struct, eq=False, gc=False):
    """One record, as it was; struck once it has changed."""

    ref: str
    holders: int = 0
    stands: bool = True


_ALL: Final = ""
"""Stands for no record: the mark that everybody holds, struck when nobody can tell what changed."""


class Marks:
    """The marks of the records that somebody holds to.

    ``strike`` and ``strike_all`` come from any thread, ``hold`` and ``let_go`` from one, all of them under the lock of
    the cache whose epoch moves with them. ``turn`` is read without it: it moves *after* the marks were struck, and the
    cache's epoch after that.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._all = Mark(_ALL)
        self.turn = 0
        """Another number whenever something was struck."""

    def __len__(self) -> int:
        return len(self._marks)

    def hold(self, refs: Iterable[str]) -> tuple[Mark, ...]:
        """Return the marks of these records, and the one that everybody holds."""
        held = [self._all]
        for ref in refs:
            mark = self._marks.get(ref)
            if mark is None:
                mark = self._marks[ref] = Mark(ref)
            mark.holders += 1
            held.append(mark)
        return tuple(held)

    def let_go(self, held: Iterable[Mark]) -> None:
        """Hold these no more; of a record that nobody holds to nothing is kept."""
        for mark in held:
            mark.holders -= 1
            if mark.holders <= 0 and self._marks.get(mark.ref) is mark:
                del self._marks[mark.ref]

    def strike(self, refs: Iterable[str]) -> None:
        """Void all that holds to one of these records."""
        for ref in refs:
            mark = self._marks.pop(ref, None)
            if mark is not None:
                mark.stands = False
        self.turn += 1

    def strike_all(self) -> None:
        """Void all that anybody holds; takes no longer however much it is."""
        self._all.stands = False
        self._all = Mark(_ALL)
        self.turn += 1


def stand(held: Iterable[Mark]) -> bool:
    """Whether none of these was struck."""
    return all(mark.stands for mark in held)
