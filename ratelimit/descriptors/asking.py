"""What a call of the rate-limit service asks of the store: worked out once, and kept with the call's question. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ratelimit.descriptors.file import (
    Descriptors,
    Entries,
    Limit,
    label_of_brought,
    subject_of,
    without_replaced,
)
from ratelimit.windows.budgets import MAX_UNITS, Charge, Draw, Subject, Window

MAX_DESCRIPTORS: Final = 64
"""Most descriptors of one call that are looked at; a call with more is refused."""
MAX_SHAPES: Final = 1_000
"""Most combinations of limits whose common shape is kept: a file has few, and calls that mix them at will gain less."""
MAX_BROUGHT: Final = 1_000
"""Most different limits that calls bring along and that are kept; a call with another one has it made."""
UNCOUNTED: Final = -1
"""The place of a descriptor for which no budget is counted."""


class Brought(NamedTuple):
    """A limit that a call brings along for one of its descriptors."""

    window: Window | None  # None: ``unit`` is not offered
    per_window: int
    unit: str


@dataclass(slots=True, eq=False)
class Asked:
    """One call, or what all calls alike ask: who keeps it for the next one has it planned once."""

    domain: str
    descriptors: tuple[tuple[Entries, int], ...]  # with the hits of each; 0 looks, below 0 gives back
    brought: tuple[Brought | None, ...] = ()  # the limit of each; (): the call brings none
    plan: Plan | None = None  # by the file that was in force last


@dataclass(slots=True, eq=False)
class Shape:
    """What calls that meet the same limits have in common, whatever their values are."""

    limits: tuple[Limit | None, ...]  # of each descriptor; None: it meets none, or one that another replaces
    places: tuple[int, ...]  # of each descriptor's budget among those of the call; or UNCOUNTED
    prepared: object = None  # what whoever shows it keeps with it
    is_measured: bool = False  # some limit has a metric of its own
    has_quota: bool = False  # some limit is in quota mode


@dataclass(slots=True, eq=False)
class Plan:
    """What one call asks of the store by one file."""

    planner: Planner
    shape: Shape
    hits: tuple[int, ...]  # of each descriptor
    is_banned: bool  # it never fits some limit, or the call has too many descriptors
    draw: Draw | None = None  # None: nothing has to be asked of the store
    labels: tuple[str, ...] = ()  # the metric of each descriptor's limit, "": none; (): none has one
    told: tuple[Entries, ...] = ()  # its descriptors, where the answer says them again
    fault: str = ""  # why it cannot be decided; "": it can

    def summed_hits(self, place: int) -> int:
        """What is asked of a budget, by all descriptors that name it."""
        hits = self.draw.hits if self.draw else 0
        return hits if isinstance(hits, int) else hits[place]


class Planner:
    """Plans calls by one file; ``None``: there are no limits."""

    def __init__(self, file: Descriptors | None) -> None:
        self.is_measured = False
        """Whether some call met a limit that has a metric of its own."""
        self._file = file
        self._shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], Shape] = {}
        self._brought: dict[Brought, Limit] = {}

    @property
    def domain(self) -> str:
        """Whose limits these are; "": there are none."""
        return self._file.domain if self._file else ""

    def plan_of(self, asked: Asked) -> Plan:
        """What a call asks, worked out at its first time."""
        plan = asked.plan
        if plan is None or plan.planner is not self:
            plan = asked.plan = self._plan(asked)
        return plan

    def _plan(self, asked: Asked) -> Plan:
        mine = self._file if self._file and self._file.domain == asked.domain else None
        if mine is None:
            return self._free(asked)
        descriptors = asked.descriptors[:MAX_DESCRIPTORS]
        listed = [mine.limit_of(entries) for entries, _ in descriptors]
        found = self._with_brought(listed, asked.brought) if asked.brought else listed
        limits = tuple(without_replaced(found))
        hits = tuple([one for _, one in descriptors])
        counted = _Counted()
        places = tuple(
            [
                counted.add(_subject(mine, entries, limit, beside), own) if limit and limit.budgets else UNCOUNTED
                for (entries, own), limit, beside in zip(descriptors, limits, listed, strict=True)
            ]
        )
        is_banned = len(asked.descriptors) > MAX_DESCRIPTORS
        is_banned |= any(map(never_fits, limits, hits)) or counted.is_too_much
        shape = self._shape(limits, places)
        plan = Plan(self, shape, hits, is_banned)
        if counted.subjects and not is_banned:
            plan.draw = counted.draw()
        if shape.is_measured:
            self.is_measured = True
            met = zip(descriptors, limits, strict=True)
            plan.labels = tuple([_label(mine, entries, limit) for (entries, _), limit in met])
        if shape.has_quota:
            plan.told = tuple([entries for entries, _ in descriptors])
        if asked.brought and (fault := _fault_of(asked.brought)):
            plan.fault, plan.draw, plan.labels = fault, None, ()
        return plan

    def _free(self, asked: Asked) -> Plan:
        """The plan of a call that meets no limit, whatever it brings along: its domain is not the file's."""
        hits = tuple([one for _, one in asked.descriptors[:MAX_DESCRIPTORS]])
        return Plan(self, self._shape((None,) * len(hits), (UNCOUNTED,) * len(hits)), hits, is_banned=False)

    def _with_brought(self, listed: list[Limit | None], brought: Sequence[Brought | None]) -> list[Limit | None]:
        """The limits that a call brings along, before the file's."""
        return [
            self._limit_of(own) if own is not None and own.window is not None else limit
            for limit, own in zip(listed, brought, strict=False)
        ]

    def _limit_of(self, brought: Brought) -> Limit:
        """One limit for all calls that bring the same, as long as not too many differ."""
        limit = self._brought.get(brought)
        if limit is None:
            if len(self._brought) >= MAX_BROUGHT:
                self._brought.clear()
            limit = self._brought[brought] = Limit(brought.window, brought.per_window, is_brought=True)
        return limit

    def _shape(self, limits: tuple[Limit | None, ...], places: tuple[int, ...]) -> Shape:
        """Limits are told apart by identity: a shape that is kept keeps its limits."""
        key = tuple(map(id, limits)), places
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = Shape(limits, places)
            shape.is_measured = any(limit is not None and limit.is_measured for limit in limits)
            shape.has_quota = any(limit is not None and limit.is_quota for limit in limits)
        return shape


def _subject(file: Descriptors, entries: Entries, limit: Limit, listed: Limit | None) -> Subject:
    """What is counted for a descriptor.

    What a limit that is brought along counts is counted with the file's for the same values where both have the same
    window; else by itself, because a value of the store keeps those windows only that its limits have.
    """
    if limit.is_brought:
        window = limit.window
        is_common = listed is not None and listed.window is window and not listed.refuses_nobody
        apart = "" if is_common or window is None else f":{window.value.span.id}"
        return subject_of(file.domain, entries, limit, apart=apart)
    return subject_of(file.domain, file.counted_as(entries) if limit.shares else entries, limit)


def _label(file: Descriptors, entries: Entries, limit: Limit | None) -> str:
    if limit is None or not limit.is_measured:
        return ""
    return label_of_brought(file.domain, entries) if limit.is_brought else file.label_of(entries, limit)


def _fault_of(brought: Sequence[Brought | None]) -> str:
    """What is wrong with a limit that is brought along."""
    for number, one in enumerate(brought):
        if one is not None and one.window is None:
            return (
                f"descriptors[{number}].limit.unit: {one.unit} is not offered for a limit that a call brings along: "
                "it must be SECOND, MINUTE, HOUR or DAY"
            )
    return ""


class _Counted:
    """The subjects of one call and the hits of each; one that two descriptors name has the hits of both."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self._hits: list[int] = []
        self._places: dict[str, int] = {}

    def add(self, subject: Subject, hits: int) -> int:
        """Take in a descriptor; its subject's place. One that is named with two limits is held to the lower one."""
        place = self._places.setdefault(subject.name, len(self.subjects))
        if place == len(self.subjects):
            self.subjects.append(subject)
            self._hits.append(0)
        elif subject.budgets[0].limit < self.subjects[place].budgets[0].limit:
            self.subjects[place] = subject
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
        hits = tuple([max(-MAX_UNITS, min(MAX_UNITS, one)) for one in self._hits])
        return Draw(Charge(tuple(self.subjects)), hits[0] if len(set(hits)) == 1 else hits)


def never_fits(limit: Limit | None, hits: int) -> bool:
    """Whether a limit lets nothing pass, or more is asked than any limit has."""
    if limit is None or limit.window is None or (limit.per_window and hits <= MAX_UNITS):
        return False
    return counts(limit, hits)


def counts(limit: Limit, hits: int) -> bool:
    """Whether a descriptor can refuse its call: no look does, and nothing in shadow or quota mode."""
    return hits > 0 and not limit.refuses_nobody
