"""What a call of the rate-limit service asks of the store: worked out once, and kept with the call's question. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.descriptors.file import Descriptors, Entries, Limit, limits_met, subject_of
from ratelimit.windows.budgets import MAX_UNITS, Charge, Draw, Subject

MAX_DESCRIPTORS: Final = 64
"""Most descriptors of one call that are looked at; a call with more is refused."""
MAX_SHAPES: Final = 1_000
"""Most combinations of limits whose common shape is kept: a file has few, and calls that mix them at will gain less."""
UNCOUNTED: Final = -1
"""The place of a descriptor for which no budget is counted."""


@dataclass(slots=True, eq=False)
class Asked:
    """One call, or what all calls alike ask: who keeps it for the next one has it planned once."""

    domain: str
    descriptors: tuple[tuple[Entries, int], ...]  # with the hits of each; 0 looks
    plan: Plan | None = None  # by the file that was in force last


@dataclass(slots=True, eq=False)
class Shape:
    """What calls that meet the same limits have in common, whatever their values are."""

    limits: tuple[Limit | None, ...]  # of each descriptor; None: it meets none, or one that another replaces
    places: tuple[int, ...]  # of each descriptor's budget among those of the call; or UNCOUNTED
    prepared: object = None  # what whoever shows it keeps with it


@dataclass(slots=True, eq=False)
class Plan:
    """What one call asks of the store by one file."""

    planner: Planner
    shape: Shape
    hits: tuple[int, ...]  # of each descriptor
    is_banned: bool  # it never fits some limit, or the call has too many descriptors
    draw: Draw | None = None  # None: nothing has to be asked of the store


class Planner:
    """Plans calls by one file; ``None``: there are no limits."""

    def __init__(self, file: Descriptors | None) -> None:
        self._file = file
        self._shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], Shape] = {}

    def plan_of(self, asked: Asked) -> Plan:
        """What a call asks, worked out at its first time."""
        plan = asked.plan
        if plan is None or plan.planner is not self:
            plan = asked.plan = self._plan(asked)
        return plan

    def _plan(self, asked: Asked) -> Plan:
        mine = self._file if self._file and self._file.domain == asked.domain else None
        descriptors = asked.descriptors[:MAX_DESCRIPTORS]
        limits = tuple(limits_met(mine, [entries for entries, _ in descriptors]))
        hits = tuple([one for _, one in descriptors])
        counted = _Counted()
        places = tuple(
            [
                counted.add(subject_of(asked.domain, entries, limit), own) if limit and limit.budgets else UNCOUNTED
                for (entries, own), limit in zip(descriptors, limits, strict=True)
            ]
        )
        is_banned = mine is not None and len(asked.descriptors) > MAX_DESCRIPTORS
        is_banned |= any(map(never_fits, limits, hits)) or counted.is_too_much
        plan = Plan(self, self._shape(limits, places), hits, is_banned)
        if counted.subjects and not is_banned:
            plan.draw = counted.draw()
        return plan

    def _shape(self, limits: tuple[Limit | None, ...], places: tuple[int, ...]) -> Shape:
        """Limits are told apart by identity: the file that this planner holds keeps each of its own."""
        key = tuple(map(id, limits)), places
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = Shape(limits, places)
        return shape


class _Counted:
    """The subjects of one call and the hits of each; one that two descriptors name has the hits of both."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self._hits: list[int] = []
        self._places: dict[str, int] = {}

    def add(self, subject: Subject, hits: int) -> int:
        """Take in a descriptor; its subject's place."""
        place = self._places.setdefault(subject.name, len(self.subjects))
        if place == len(self.subjects):
            self.subjects.append(subject)
            self._hits.append(0)
        self._hits[place] += hits
        return place

    @property
    def is_too_much(self) -> bool:
        """Whether together they ask more of a subject than any limit has."""
        if max(self._hits, default=0) <= MAX_UNITS:
            return False
        pairs = zip(self.subjects, self._hits, strict=True)
        return any(hits > MAX_UNITS and not subject.is_shadow for subject, hits in pairs)

    def draw(self) -> Draw:
        """All of it, to be counted together or not at all."""
        hits = tuple(min(MAX_UNITS, one) for one in self._hits)
        return Draw(Charge(tuple(self.subjects)), hits[0] if len(set(hits)) == 1 else hits)


def never_fits(limit: Limit | None, hits: int) -> bool:
    """Whether a limit lets nothing pass, or more is asked than any limit has."""
    if limit is None or limit.window is None or (limit.per_window and hits <= MAX_UNITS):
        return False
    return counts(limit, hits)


def counts(limit: Limit, hits: int) -> bool:
    """Whether a descriptor can refuse its call: no look does, and nothing in shadow mode."""
    return hits > 0 and not limit.is_shadow
