"""Ordinary descriptors of the rate-limit service: what is said of each call. Free of protobuf.

A call is counted in all the limits that it meets or in none, in one step; a limit in shadow mode is counted with them
where the call fits it, and refuses nobody. A batch is cut so that no script keeps the store longer than it should. The
budgets are windows like all others (``ratelimit.windows.limiter``), in the cell of the file's domain; nothing fences
them, because no record stands behind them.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter
from redis.exceptions import RedisError

from ratelimit.descriptors.file import Descriptors, Entries, Limit, Met, met, subject_of
from ratelimit.names import UNFENCED
from ratelimit.windows.budgets import MAX_UNITS, Answer, BudgetState, Charge, Fence, Grant, Subject, Taken
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.packing import MAX_CHARGES, MAX_NAMES
from ratelimit.windows.sizing import BatchSizer

FIRST_LIMITS: Final = 64
"""So many limits are asked of the store at once before anything is known of what they cost it."""
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
    """One call and what it asks of the store."""

    found: list[Met]
    subjects: list[Subject | None]
    is_banned: bool  # it never fits some limit, or the call has too many descriptors
    charge: Charge | None = None  # None: nothing has to be asked of the store


class _Granted(NamedTuple):
    """What the store said of one charge."""

    grant: Grant
    now_ms: int  # the store's clock


class Ordinary:
    """Decides batches; used by one thread. ``use`` may come from any."""

    def __init__(self, *, cells: int, metrics: OrdinaryMetrics) -> None:
        self._cells = cells
        self.metrics = metrics
        self._file: Descriptors | None = None
        self._sizer = BatchSizer(first=FIRST_LIMITS, largest=MAX_NAMES)
        self.denies_undecided = True
        """Whether callers are refused while the store cannot be asked; to be set before the start."""

    def use(self, file: Descriptors | None) -> None:
        """Decide by these limits from the next batch on."""
        self._file = file

    @property
    def cell(self) -> int:
        """The cell that all of the file's limits are counted in."""
        return self._cell_of(self._file)

    def _cell_of(self, file: Descriptors | None) -> int:
        domain = file.domain if file else ""
        return int.from_bytes(hashlib.sha256(domain.encode()).digest()[:4]) % self._cells

    def decide(self, asked: Sequence[Asked], execute: Callable[..., Any], deadline_ms: int) -> list[Said]:
        """Answer every call, in order. ``deadline_ms``: by the store's clock, past which nothing is taken."""
        file, subjects = self._file, dict[str, Subject]()
        plans = [_plan(file, one, subjects) for one in asked]
        charges = [plan.charge for plan in plans if plan.charge is not None]
        take = partial(self._take, str(self._cell_of(file)), execute, deadline_ms)
        granted = iter(self._take_all(charges, take))
        said = [_say(plan, next(granted)) if plan.charge is not None else _say_alone(plan) for plan in plans]
        self.metrics.decided(said)
        return said

    def _take_all(
        self, charges: Sequence[Charge], take: Callable[[Sequence[Charge]], Taken | None]
    ) -> list[_Granted | None]:
        """Take in as many scripts as it needs; the charges of one that fails or comes too late stay undecided."""
        granted: list[_Granted | None] = []
        while len(granted) < len(charges):
            part = self._part(charges, len(granted))
            taken = take(part)
            granted += [_Granted(one, taken.now_ms) for one in taken.grants] if taken else [None] * len(part)
        return granted

    def _part(self, charges: Sequence[Charge], first: int) -> Sequence[Charge]:
        """The next charges that fit one script, by their limits: each of them costs the store about the same."""
        end, limits = first, 0
        while end < len(charges) and end - first < MAX_CHARGES:
            limits += len(charges[end].subjects)
            if end > first and limits > self._sizer.calls:
                break
            end += 1
        return charges[first:end]

    def _take(
        self, cell: str, execute: Callable[..., Any], deadline_ms: int, charges: Sequence[Charge]
    ) -> Taken | None:
        limiter = Limiter(cell=cell, epoch_key=UNFENCED.format(cell), feed_key=UNFENCED.format(cell))
        try:
            taken = limiter.take(execute, charges, epoch="", deadline_ms=deadline_ms)
        except RedisError:  # counted as undecided
            return None
        if taken.fence is not Fence.PASSED:
            return None
        self._sizer.learn(sum(len(one.subjects) for one in charges), taken.spent_us)
        return taken


def _plan(file: Descriptors | None, asked: Asked, known: dict[str, Subject]) -> _Plan:
    """Find what a call meets; ``known``: the subjects of the batch, each once however many calls meet it."""
    mine = file if file and file.domain == asked.domain else None
    found = met(mine, asked.descriptors[:MAX_DESCRIPTORS])
    made = [subject_of(asked.domain, one.entries, one.limit) if one.limit else None for one in found]
    subjects = [known.setdefault(one.name, one) if one else None for one in made]
    plan = _Plan(found, subjects, mine is not None and len(asked.descriptors) > MAX_DESCRIPTORS)
    plan.is_banned |= any(map(_never_fits, found))
    counted: dict[str, tuple[Subject, int]] = {}
    for one, subject in zip(found, subjects, strict=True):
        if one.limit is None or subject is None or not subject.budgets:
            continue
        counted[subject.name] = (subject, counted.get(subject.name, (subject, 0))[1] + one.hits)
    plan.is_banned |= any(hits > MAX_UNITS and not subject.is_shadow for subject, hits in counted.values())
    if counted and not plan.is_banned:
        subjects_held, hits = zip(*counted.values(), strict=True)
        plan.charge = Charge(subjects_held, costs=tuple(min(MAX_UNITS, one) for one in hits))
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


def _say(plan: _Plan, granted: _Granted | None) -> Said:
    if granted is None or granted.grant.answer is Answer.CORRUPT:
        return Said(Outcome.UNDECIDED, (Status(),) * len(plan.found))
    grant, now_ms = granted
    states = {state.subject: state for state in grant.states}
    refused = grant.answer is not Answer.ADMITTED
    statuses = tuple(
        _status(one, (states[subject], grant) if subject in states else None, now_ms, refused=refused)
        for one, subject in zip(plan.found, plan.subjects, strict=True)
    )
    return Said(Outcome.OVER_LIMIT if refused else Outcome.OK, statuses)


def _say_alone(plan: _Plan) -> Said:
    """What is said of a call for which nothing had to be asked of the store."""
    statuses = tuple(_status(one, None, 0, refused=plan.is_banned) for one in plan.found)
    return Said(Outcome.OVER_LIMIT if plan.is_banned else Outcome.OK, statuses)


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
