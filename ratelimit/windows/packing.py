"""A batch of charges in the form ``take.lua`` reads: distinct names numbered from 1, numbers packed. Pure.

Owns the layout of the script's plans and calls, written down in the script's header.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Final

from ratelimit.windows.budgets import MAX_UNITS, Charge, Hold, Subject, Window

MAX_CHARGES: Final = 1_000
"""Most charges of one script; a batch this large holds the store for about ten milliseconds."""
MAX_NAMES: Final = 4_000
"""Most subjects, and most usage subjects, of one script: Lua passes the names on its stack of 8,000 values."""

MAX_HELD_NAME: Final = 200
"""Longest name of a subject, in characters, where tokens are held: a reservation says whose budgets it is in."""

_SHADOW: Final = 128
"""Added to the number of budgets of a plan in shadow mode."""

SHAPES: Final = b"".join(
    struct.pack("<BBBd", shape.id, shape.n, shape.counts_tokens, shape.bucket_ms)
    for shape in sorted((window.value for window in Window), key=lambda shape: shape.id)
)
"""The shapes of all windows, the same in every call of the script."""


class Batch:
    """The charges of one script with their subjects and usage subjects numbered in order of appearance."""

    __slots__ = ("_hold_blobs", "_plan_blobs", "asked", "call_blob", "charges", "plans", "usages", "values")

    def __init__(self, charges: Sequence[Charge]) -> None:
        if len(charges) > MAX_CHARGES:
            raise ValueError(f"a batch holds at most {MAX_CHARGES} charges, not {len(charges)}")
        self.charges = charges
        self.values: dict[str, int] = {}  # subject name -> number of its value
        self.plans: dict[Subject, int] = {}  # one version of a subject's limits -> its number
        self.usages: dict[str, int] = {}  # usage subject -> number of its hash
        self.asked: list[list[int]] = []  # per charge the numbers of its plans
        self._plan_blobs: list[bytes] = []
        self._hold_blobs: list[bytes] = []
        self.call_blob = b"".join([self._call(charge) for charge in charges])
        if max(len(self.values), len(self.usages)) > MAX_NAMES:
            raise ValueError(f"a batch names at most {MAX_NAMES} subjects and {MAX_NAMES} usage subjects")

    @property
    def plan_blob(self) -> bytes:
        """All plans, in the order of their numbers."""
        return b"".join(self._plan_blobs)

    @property
    def hold_blob(self) -> bytes:
        """The reservations to be made, in the order of their charges."""
        return b"".join(self._hold_blobs)

    def refs(self) -> list[str]:
        """Per charge the references of its records, separated by spaces."""
        return [" ".join(charge.refs) for charge in self.charges]

    def _call(self, charge: Charge) -> bytes:
        plans, usages = self.plans, self.usages
        asked = [plans.get(subject) or self._add(subject) for subject in charge.subjects if subject.budgets]
        used = [usages.get(name) or usages.setdefault(name, len(usages) + 1) for name in charge.usage]
        self.asked.append(asked)
        _check(charge)
        if charge.hold is not None:
            self._hold_blobs.append(_hold(charge.hold))
        costs = _costs(charge) if charge.costs else [charge.cost] * len(asked)
        numbers = [number for pair in zip(asked, costs, strict=True) for number in pair]
        layout = _call_layout(len(asked), len(used))
        holds = charge.hold is not None
        return layout.pack(charge.tokens, charge.valid_until_ms, len(asked), len(used), holds, *numbers, *used)

    def _add(self, subject: Subject) -> int:
        values = self.values
        value = values.get(subject.name) or values.setdefault(subject.name, len(values) + 1)
        self._plan_blobs.append(_plan(value, subject))
        number = self.plans[subject] = len(self._plan_blobs)
        return number


def _check(charge: Charge) -> None:
    if not 1 <= charge.cost <= MAX_UNITS:
        raise ValueError(f"cost must be 1..{MAX_UNITS}, not {charge.cost}")
    if not 0 <= charge.tokens <= MAX_UNITS:
        raise ValueError(f"tokens must be 0..{MAX_UNITS}, not {charge.tokens}")
    subjects = charge.subjects
    if len(subjects) > 1 and len({subject.name for subject in subjects}) < len(subjects):
        raise ValueError("a charge names each of its subjects once")
    if charge.hold is not None and max((len(name) for name in _names(charge)), default=0) > MAX_HELD_NAME:
        raise ValueError(f"a charge that holds tokens names subjects of at most {MAX_HELD_NAME} characters")
    if charge.hold is not None and any(subject.is_shadow for subject in subjects):
        raise ValueError("a charge that holds tokens names no subject in shadow mode")


def _names(charge: Charge) -> list[str]:
    return [subject.name for subject in charge.subjects] + list(charge.usage)


def _costs(charge: Charge) -> list[int]:
    """What each subject that has budgets costs."""
    for cost in charge.costs:
        if not 0 <= cost <= MAX_UNITS:
            raise ValueError(f"costs must be 0..{MAX_UNITS}, not {cost}")
    pairs = zip(charge.subjects, charge.costs, strict=True)
    return [cost for subject, cost in pairs if subject.budgets]


def _hold(hold: Hold) -> bytes:
    name, terms = hold.id.encode(), hold.terms
    if not 0 <= hold.presumed <= hold.ceiling <= MAX_UNITS:
        raise ValueError(f"presumed and ceiling must be 0..{MAX_UNITS} and in order")
    layout = f"<B{len(name)}sIIdH{len(terms)}s"
    return struct.pack(layout, len(name), name, hold.ceiling, hold.presumed, hold.timeout_ms, len(terms), terms)


def _plan(value: int, subject: Subject) -> bytes:
    numbers = [number for budget in subject.budgets for number in (budget.shape.id, budget.limit)]
    count = len(subject.budgets) + (_SHADOW if subject.is_shadow else 0)
    return _plan_layout(len(subject.budgets)).pack(value, count, *numbers)


@functools.cache
def _plan_layout(budgets: int) -> struct.Struct:
    return struct.Struct("<HB" + "BI" * budgets)


@functools.cache
def _call_layout(plans: int, usages: int) -> struct.Struct:
    return struct.Struct("<IdBBB" + "HI" * plans + "H" * usages)
