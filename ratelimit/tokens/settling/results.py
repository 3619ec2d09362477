"""Calls whose work goes on in the background: they stay held until the answer to a later call tells their usage.

The call that begins such work is answered before it is done, and its answer has an id. Under that id, and under its
publication's, the store keeps the reservation; a later answer that has the id and tells usage settles it. Any gate may
hear either. There is one name for each such call at most, and none outlives the reservation. Waiting and retrying are
the business of whoever gives ``execute``. All of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratelimit.names import result_key
from ratelimit.tokens.costs import goes_on, result_of
from ratelimit.tokens.endings import Told
from ratelimit.tokens.ledger import Ledger
from ratelimit.tokens.terms import Terms, Work
from ratelimit.windows.limiter import Execute


@dataclass(frozen=True, slots=True)
class Heard:
    """What endings say of work in the background."""

    awaited: frozenset[str]  # reservations that stay held: a later answer is to tell what they cost
    told: tuple[Told, ...]  # how calls ended that were held until now


class Results:
    """The results that are awaited in one cell. Raises what ``execute`` raises."""

    def __init__(self, cell: str, ledger: Ledger) -> None:
        self._cell = cell
        self._ledger = ledger

    def hear(self, execute: Execute, endings: Sequence[tuple[Told, Terms]]) -> Heard:
        """Keep in mind what is awaited, and find whose result has come."""
        named = [(told, terms) for told, terms in endings if told.answers_id and told.publication]
        begun = [told for told, terms in named if not told.is_result and goes_on(terms, told.ended)]
        for told in begun:
            self._expect(execute, told)
        fetched = [told for told, terms in named if terms.asked.work is Work.FETCHES]
        return Heard(frozenset(told.reservation for told in begun), tuple(self._found(execute, fetched)))

    def settled(self, execute: Execute, results: Sequence[Told]) -> None:
        """Forget whose results these were: their reservations are gone."""
        if results:
            execute("DEL", *map(self._name, results))

    def _expect(self, execute: Execute, told: Told) -> None:
        """The first call that has an id keeps it, so none takes over what another is to settle."""
        until_ms = self._ledger.kept_until_ms(execute, told.reservation)
        if until_ms is not None:
            execute("SET", self._name(told), told.reservation, "NX", "PXAT", until_ms)

    def _found(self, execute: Execute, fetched: Sequence[Told]) -> list[Told]:
        results = [(told, ended) for told in fetched if (ended := result_of(told.ended)) is not None]
        if not results:
            return []
        held = execute("MGET", *(self._name(told) for told, _ in results))
        return [
            told._replace(reservation=name.decode("ascii", "replace"), ended=ended, is_result=True)
            for (told, ended), name in zip(results, held, strict=True)
            if name is not None
        ]

    def _name(self, told: Told) -> str:
        return result_key(self._cell, told.publication, told.answers_id)
