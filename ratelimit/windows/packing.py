"""A batch of draws in the form ``take.lua`` reads: distinct names numbered from 1, numbers packed. Pure.

Owns the layout of the script's plans, charges and draws, written down in the script's header.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Final

from ratelimit.windows.budgets import MAX_UNITS, Charge, Draw, Hold, Subject

MAX_CHARGES: Final = 1_000
"""Most draws of one script; a batch this large holds the store for about ten milliseconds."""
MAX_NAMES: Final = 4_000
"""Most subjects of one script: Lua passes the names on its stack of 8,000 values."""

_HOLDS: Final = 1
_LISTED: Final = 2
_MORE: Final = 4
_DRAW: Final = struct.Struct("<HBdd").pack
_VALUE: Final = struct.Struct("<H").pack


class Batch:
    """The draws of one script, their charges, plans and subjects numbered in order of appearance."""

    __slots__ = (
        "_charges",
        "_holding",
        "_plans",
        "_refs",
        "charge_blobs",
        "draw_blobs",
        "draws",
        "hold_blobs",
        "plan_blobs",
        "values",
    )

    def __init__(self, draws: Sequence[Draw]) -> None:
        if len(draws) > MAX_CHARGES:
            raise ValueError(f"a batch holds at most {MAX_CHARGES} charges, not {len(draws)}")
        self.draws = draws
        self.values: dict[str, int] = {}  # subject name -> number of its value
        self.plan_blobs: list[bytes] = []
        self.charge_blobs: list[bytes] = []
        self.draw_blobs: list[bytes] = []
        self.hold_blobs: list[bytes] = []
        self._plans: dict[Subject, int] = {}  # one version of a subject's limits -> its number
        self._charges: dict[Charge, int] = {}  # of calls that hold nothing
        self._holding: dict[Charge, int] = {}  # of others: only these tell the script whose usage they are
        self._refs: list[str] = []  # of each charge
        for draw in draws:
            self._draw(draw)
        if len(self.values) > MAX_NAMES:
            raise ValueError(f"a batch names at most {MAX_NAMES} subjects")

    def refs(self) -> str:
        """Per charge a line with the references of its records, separated by spaces."""
        return "".join(self._refs)

    def _draw(self, draw: Draw) -> None:
        charge, hits, tokens, hold, more = draw
        if not 0 <= tokens <= MAX_UNITS:
            raise ValueError(f"tokens must be 0..{MAX_UNITS}, not {tokens}")
        flags, rest = 0, b""
        if hold is None:
            charges = self._charges
            number = charges.get(charge) or self._add_charge(charges, charge, b"")
        else:
            charges = self._holding
            number = charges.get(charge) or self._add_charge(charges, charge, charge.used)
            flags = _HOLDS
            self.hold_blobs.append(_hold(hold))
        if not isinstance(hits, int):
            flags, rest, hits = flags | _LISTED, _listed(charge, hits), 0
        elif not -MAX_UNITS <= hits <= MAX_UNITS:
            raise ValueError(f"hits must be -{MAX_UNITS}..{MAX_UNITS}, not {hits}")
        if more is not None:
            flags, rest = flags | _MORE, rest + _units("more", more)
        self.draw_blobs.append(_DRAW(number, flags, hits, tokens) + rest)

    def _add_charge(self, charges: dict[Charge, int], charge: Charge, used: bytes) -> int:
        plans = self._plans
        numbers = [plans.get(subject) or self._add_plan(subject) for subject in charge.limited]
        layout = _charge_layout(len(numbers))
        self.charge_blobs.append(layout.pack(charge.valid_until_ms, len(numbers), len(used), *numbers) + used)
        self._refs.append(charge.refs_line)
        number = charges[charge] = len(self.charge_blobs)
        return number

    def _add_plan(self, subject: Subject) -> int:
        values = self.values
        value = values.get(subject.name) or values.setdefault(subject.name, len(values) + 1)
        self.plan_blobs.append(_VALUE(value) + subject.plan)
        number = self._plans[subject] = len(self.plan_blobs)
        return number


def _listed(charge: Charge, hits: tuple[int, ...]) -> bytes:
    """What each subject that has budgets costs."""
    _units("hits", hits, least=-MAX_UNITS)
    own = [one for subject, one in zip(charge.subjects, hits, strict=True) if subject.budgets]
    return _units("hits", own, least=-MAX_UNITS)


def _units(what: str, numbers: Sequence[int], *, least: int = 0) -> bytes:
    for one in numbers:
        if not least <= one <= MAX_UNITS:
            raise ValueError(f"{what} must be {least}..{MAX_UNITS}, not {one}")
    return struct.pack(f"<{len(numbers)}d", *numbers)


def _hold(hold: Hold) -> bytes:
    name, terms = hold.id.encode(), hold.terms
    if not 0 <= hold.presumed <= hold.ceiling <= MAX_UNITS:
        raise ValueError(f"presumed and ceiling must be 0..{MAX_UNITS} and in order")
    layout = _hold_layout(len(name), len(terms))
    return layout.pack(len(name), name, hold.ceiling, hold.presumed, hold.timeout_ms, len(terms), terms)


@functools.lru_cache(maxsize=1_024)
def _hold_layout(name: int, terms: int) -> struct.Struct:
    return struct.Struct(f"<B{name}sdddH{terms}s")


@functools.cache
def _charge_layout(numbers: int) -> struct.Struct:
    return struct.Struct(f"<dBH{numbers}H")
