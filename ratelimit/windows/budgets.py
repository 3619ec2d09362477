"""The nouns of the limiter: windows, budgets, subjects, charges, grants. Pure values.

A *subject* is an opaque name that is counted (``k:…``, ``t:…``, ``p:…``: the caller's business).
A *budget* is one limit on one window of one subject. A *charge* is what one call asks of all its subjects at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_UNITS: Final = 10**9
"""Largest limit of a budget and largest cost of a call, in units."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """A trailing window of ``n`` sub-buckets of ``bucket_ms``; the current and the ``n`` before it are counted."""

    id: int  # one byte in the packed value, never reused for another shape
    name: str
    n: int
    bucket_ms: int
    counts_tokens: bool = False  # a call costs it its tokens, else its calls

    @property
    def window_ms(self) -> int:
        """Length of the window: 20 x 50 ms is one second."""
        return self.n * self.bucket_ms


class Window(enum.Enum):
    """The windows budgets may have."""

    SECOND = WindowShape(1, "second", 20, 50)
    MINUTE = WindowShape(2, "minute", 60, 1_000)
    HOUR = WindowShape(3, "hour", 60, 60_000)
    DAY = WindowShape(4, "day", 96, 900_000)
    TOKENS_HOUR = WindowShape(5, "token hour", 60, 60_000, counts_tokens=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one window: at most ``limit`` units in any trailing ``window``."""

    window: Window
    limit: int  # 1..10^9
    shape: WindowShape = field(init=False, repr=False, compare=False)  # the window's, at hand for the hot path

    def __post_init__(self) -> None:
        """Refuse a limit that the store could not hold."""
        if not 1 <= self.limit <= MAX_UNITS:
            raise ValueError(f"limit must be 1..{MAX_UNITS}, not {self.limit}")
        object.__setattr__(self, "shape", self.window.value)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One counted thing with its budgets. Compared by identity on the hot path; make one per record and keep it."""

    name: str  # "p:0a1…": opaque here, names its counters in the store
    budgets: tuple[Budget, ...]  # at most one per window; may be empty
    is_shadow: bool = False  # counted where an admitted call fits; refuses nobody, and holds no tokens

    def __post_init__(self) -> None:
        """Refuse two limits on one window."""
        if len({budget.window for budget in self.budgets}) < len(self.budgets):
            raise ValueError(f"subject {self.name!r} has two budgets on one window")


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation: the tokens of one call are held back until the call is settled (``ratelimit.tokens.ledger``)."""

    id: str  # at most 255 characters; nobody can guess it
    ceiling: int  # no settlement charges more tokens than this: 0..10^9
    presumed: int  # what is charged if the call is never settled: 0..ceiling
    timeout_ms: int  # how long after its admission a call is presumed to have ended
    terms: bytes  # what whoever settles wants to know again; opaque here, at most 65,535 bytes


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call asks of every budget of every subject, all or nothing.

    A budget of a window that counts tokens costs ``tokens``; any other costs its subject's entry in ``costs``, or where
    there are no ``costs``, ``cost``. What costs 0 is looked at only: it takes nothing and refuses nothing.
    """

    subjects: tuple[Subject, ...]  # distinct names
    cost: int = 1  # 1..10^9
    tokens: int = 0  # 0..10^9
    costs: tuple[int, ...] = ()  # one for each subject, 0..10^9
    hold: Hold | None = None  # written if the call is admitted
    valid_until_ms: int = 0  # store time from which the call is refused as expired; 0: never
    refs: tuple[str, ...] = ()  # record references the call was decided on (a moved epoch has them compared)
    usage: tuple[str, ...] = ()  # usage subjects to count the admitted call under


class BudgetState(NamedTuple):
    """One budget after a call was decided. A tuple, because the hot path makes several for every call."""

    subject: Subject
    budget: Budget
    remaining: int  # units left: limit 100, 40 counted -> 60; never negative
    reset_at_ms: int  # store time at which it is whole again if nothing else is admitted; 0: it is whole


class Answer(enum.Enum):
    """What the script said about one call."""

    ADMITTED = "admitted"
    REFUSED = "refused"  # some budget is full; see retry_at_ms
    NEVER_FITS = "never_fits"  # the cost is above a limit, waiting does not help
    EXPIRED = "expired"  # valid_until_ms has come by the store's clock
    STALE = "stale"  # a record of the call changed; decide again
    CORRUPT = "corrupt"  # a subject's stored value cannot be read; nothing was taken


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to one charge."""

    answer: Answer
    states: tuple[BudgetState, ...] = ()  # of every budget, in order; if admitted, refused or never fitting
    refused_by: BudgetState | None = None  # the budget that takes longest to free the cost, or never will
    retry_at_ms: int = 0  # store time at which the cost fits if nothing else intervenes; 0 unless refused
    held: int = 0  # units of ``refused_by`` that unsettled calls hold, where only they are in the way; else 0. Then
    # ``retry_at_ms`` is when to ask again: they are given back when their calls end


class Fence(enum.Enum):
    """Outcome of the epoch fence for the whole script."""

    PASSED = "passed"
    STALE = "stale"  # another epoch is in force; nothing was taken
    LATE = "late"  # the batch's deadline had passed on the store's clock; nothing was taken


@dataclass(frozen=True, slots=True)
class Taken:
    """The script's reply for a batch."""

    fence: Fence
    epoch: str  # in force at the script; "" where none is set
    now_ms: int  # the store's clock in the script
    grants: tuple[Grant, ...]  # one per charge, in order; empty unless PASSED
    spent_us: int = 0  # processor time of the script in the store
    clock_steps: int = 0  # windows whose newest bucket lay ahead of the store's clock
    usage_faults: int = 0  # usage subjects whose counters could not be written; their calls stand
