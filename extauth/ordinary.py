"""Ordinary descriptors of the rate-limit service: what is said of each call. Free of protobuf.

A call is counted in all the limits that it meets or in none, in one step; a limit in shadow mode is counted by itself
and refuses nobody. The budgets are windows like all others (``ratelimit.limiter``), in the cell of the file's domain;
nothing fences them, because no record stands behind them.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter
from redis.exceptions import RedisError

from ratelimit.budgets import MAX_UNITS, Answer, BudgetState, Charge, Fence, Grant, Subject
from ratelimit.descriptors import Descriptors, Entries, Limit, Met, met, subject_of
from ratelimit.limiter import Limiter
from ratelimit.names import UNFENCED

MAX_DESCRIPTORS: Final = 64
"""Most descriptors of one call that are looked at; a call with more is refused."""


class Outcome(enum.StrEnum):
    """What became of a call; also a metric's label."""

    OK = "ok"
    OVER_LIMIT = "over_limit"
    UNDECIDED = "undecided"  # the store could not be asked; a setting says what the caller is told


@dataclass(frozen=True, slots=True)
class Asked:
    """One call."""

    domain: str
    descriptors: tuple[tuple[Entries, int], ...]  # with the hits of each; 0 looks


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of one descriptor."""

    is_over: bool = False
    limit: Limit | None = None  # None: it meets none, or one that another replaces
    remaining: int = 0
    reset_ms: int = 0  # until the limit is whole again; of the one that refused, until the call fits


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of one call."""

    outcome: Outcome
    statuses: tuple[Status, ...] = ()  # one for each descriptor, in order


class OrdinaryMetrics:
    """The instruments of ordinary descriptors."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "tollkeeper_descriptor_decisions",
            "Calls of the rate-limit service about ordinary descriptors, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.loads = Counter(
            "tollkeeper_descriptor_loads",
            "Times the file of descriptors was read: loaded, or refused and the one before kept.",
            ["outcome"],
            registry=registry,
        )

    def decided(self, said: Sequence[Said]) -> None:
        """Count a batch."""
        for one in said:
            self._decisions.labels(one.outcome.value).inc()

    def failed(self, calls: int) -> None:
        """Count a batch that a fault of ours left undecided."""
        self._decisions.labels(Outcome.UNDECIDED.value).inc(calls)


@dataclass(slots=True)
class _Plan:
    """One call with the places of its charges among the batch's."""

    found: list[Met]
    subjects: list[Subject | None]
    is_banned: bool  # it never fits some limit, or the call has too many descriptors
    charge: int | None = None  # of the limits that can refuse
    shadows: tuple[int, ...] = ()


class Ordinary:
    """Decides batches; used by one thread. ``use`` may come from any."""

    def __init__(self, *, cells: int, metrics: OrdinaryMetrics) -> None:
        self._cells = cells
        self.metrics = metrics
        self._file: Descriptors | None = None
        self.denies_undecided = True
        """Whether callers are refused while the store cannot be asked; to be set before the start."""

    def use(self, file: Descriptors | None) -> None:
        """Decide by these limits from the next batch on."""
        self._file = file

    @property
    def cell(self) -> int:
        """The cell that all of the file's limits are counted in."""
        domain = self._file.domain if self._file else ""
        return int.from_bytes(hashlib.sha256(domain.encode()).digest()[:4]) % self._cells

    def decide(self, asked: Sequence[Asked], execute: Callable[..., Any], deadline_ms: int) -> list[Said]:
        """Answer every call, in order. ``deadline_ms``: by the store's clock, past which nothing is taken."""
        charges: list[Charge] = []
        plans = [_plan(self._file, one, charges) for one in asked]
        grants, now_ms = self._take(charges, execute, deadline_ms) if charges else ((), 0)
        said = [_say(plan, grants, now_ms) if grants is not None else _undecided(plan) for plan in plans]
        self.metrics.decided(said)
        return said

    def _take(
        self, charges: Sequence[Charge], execute: Callable[..., Any], deadline_ms: int
    ) -> tuple[Sequence[Grant] | None, int]:
        cell = str(self.cell)
        limiter = Limiter(cell=cell, epoch_key=UNFENCED.format(cell), feed_key=UNFENCED.format(cell))
        try:
            taken = limiter.take(execute, charges, epoch="", deadline_ms=deadline_ms)
        except RedisError:  # counted as undecided
            return None, 0
        return (taken.grants if taken.fence is Fence.PASSED else None), taken.now_ms


def _plan(file: Descriptors | None, asked: Asked, charges: list[Charge]) -> _Plan:
    """Find what a call meets, and add its charges to the batch's."""
    mine = file if file and file.domain == asked.domain else None
    found = met(mine, asked.descriptors[:MAX_DESCRIPTORS])
    subjects = [subject_of(asked.domain, one.entries, one.limit) if one.limit else None for one in found]
    plan = _Plan(found, subjects, mine is not None and len(asked.descriptors) > MAX_DESCRIPTORS)
    plan.is_banned |= any(map(_never_fits, found))
    counted: dict[str, tuple[Subject, int]] = {}
    for one, subject in zip(found, subjects, strict=True):
        if one.limit is None or subject is None or not subject.budgets:
            continue
        if one.limit.is_shadow:
            plan.shadows += (len(charges),)
            charges.append(Charge((subject,), costs=(min(one.hits, MAX_UNITS),)))
        else:
            counted[subject.name] = (subject, counted.get(subject.name, (subject, 0))[1] + one.hits)
    plan.is_banned |= any(hits > MAX_UNITS for _, hits in counted.values())
    if counted and not plan.is_banned:
        plan.charge = len(charges)
        subjects_held, costs = zip(*counted.values(), strict=True)
        charges.append(Charge(subjects_held, costs=costs))
    return plan


def _never_fits(one: Met) -> bool:
    """Whether a limit lets nothing pass, or more is asked than any limit has."""
    limit = one.limit
    if limit is None or limit.window is None or not _counts(limit, one.hits):
        return False
    return limit.per_window == 0 or one.hits > MAX_UNITS


def _counts(limit: Limit, hits: int) -> bool:
    """Whether a descriptor can refuse its call: no look does, and nothing in shadow mode."""
    return hits > 0 and not limit.is_shadow


def _undecided(plan: _Plan) -> Said:
    return Said(Outcome.UNDECIDED, (Status(),) * len(plan.found))


def _say(plan: _Plan, grants: Sequence[Grant], now_ms: int) -> Said:
    told = [grants[place] for place in (plan.charge, *plan.shadows) if place is not None]
    if any(grant.answer is Answer.CORRUPT for grant in told):
        return _undecided(plan)
    states = {state.subject.name: (state, grant) for grant in told for state in grant.states}
    refused = plan.is_banned or (plan.charge is not None and grants[plan.charge].answer is not Answer.ADMITTED)
    statuses = tuple(
        _status(one, states.get(subject.name) if subject else None, now_ms, refused=refused)
        for one, subject in zip(plan.found, plan.subjects, strict=True)
    )
    return Said(Outcome.OVER_LIMIT if refused else Outcome.OK, statuses)


def _status(one: Met, found: tuple[BudgetState, Grant] | None, now_ms: int, *, refused: bool) -> Status:
    limit = one.limit
    if limit is None or limit.window is None:
        return Status(limit=limit)
    if found is None:  # nothing was asked of the store: the call never fits this limit, or another one
        return Status(_never_fits(one), limit, limit.per_window)
    state, grant = found
    is_over = refused and _counts(limit, one.hits) and state.remaining < one.hits
    until_ms = grant.retry_at_ms if state is grant.refused_by and grant.retry_at_ms else state.reset_at_ms
    return Status(is_over, limit, state.remaining, max(0, until_ms - now_ms))
