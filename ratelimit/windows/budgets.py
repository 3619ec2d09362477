"""The nouns of the limiter: windows, budgets, subjects, charges, grants. Pure values.

A *subject* is an opaque name that is counted (``k:…``, ``t:…``, ``p:…``: the caller's business).
A *budget* is one limit on one window of one subject. A *charge* is what calls of one kind ask of all their subjects at
once, a *draw* what one of these calls asks.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import force_setattr

MAX_UNITS: Final = 10**12
"""Largest limit of a budget and largest cost of a call, in units."""

SHADOW: Final = 128
"""Added to the number of budgets of a plan in shadow mode."""

MAX_HELD_NAME: Final = 200
"""Longest name of a subject, in bytes, where tokens are held: a reservation says whose budgets it is in."""


class Kind(enum.IntEnum):
    """What is counted. The number is stored."""

    CALLS = 0
    TOKENS = 1
    TOKENS_IN = 2
    TOKENS_OUT = 3
    COST = 4
    SLOTS = 5  # of running calls: given back when they end


@dataclass(frozen=True, slots=True)
class Span:
    """How long units count: the current sub-bucket and the ``n`` before it; with ``n`` = 0 until a period's end."""

    id: int  # one byte in the packed value, never reused for another span
    name: str
    n: int
    bucket_ms: int  # of a month: 0, months differ


_SECOND: Final = Span(1, "second", 20, 50)
_MINUTE: Final = Span(2, "minute", 60, 1_000)
_HOUR: Final = Span(3, "hour", 60, 60_000)
_DAY: Final = Span(4, "day", 48, 1_800_000)
_WEEK: Final = Span(5, "week", 84, 7_200_000)
_UTC_DAY: Final = Span(6, "calendar day", 0, 86_400_000)
_UTC_MONTH: Final = Span(7, "calendar month", 0, 0)
SPANS: Final = (_SECOND, _MINUTE, _HOUR, _DAY, _WEEK, _UTC_DAY, _UTC_MONTH)
"""As ``take.lua`` has them."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """A kind of units in a span of time."""

    kind: Kind
    span: Span
    id: int = field(init=False)  # the section of a packed value, as plans name it
    n: int = field(init=False, repr=False, compare=False)  # the span's, at hand for the hot path
    bucket_ms: int = field(init=False, repr=False, compare=False)
    counts_tokens: bool = field(init=False, repr=False, compare=False)  # a call costs it its tokens

    def __post_init__(self) -> None:
        """Take over what is asked for often."""
        values = (self.kind * 16 + self.span.id, self.span.n, self.span.bucket_ms, self.kind is Kind.TOKENS)
        for name, value in zip(("id", "n", "bucket_ms", "counts_tokens"), values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Name it in messages."""
        words = {Kind.CALLS: "", Kind.TOKENS: "token "}.get(self.kind, f"{self.kind.name.lower()} ")
        return words + self.span.name

    @property
    def window_ms(self) -> int:
        """Length of the window: 20 x 50 ms is one second. A calendar period has none."""
        return self.n * self.bucket_ms


class Window(enum.Enum):
    """The windows budgets may have. Users are offered those of ``OFFERED``."""

    SECOND = WindowShape(Kind.CALLS, _SECOND)
    MINUTE = WindowShape(Kind.CALLS, _MINUTE)
    HOUR = WindowShape(Kind.CALLS, _HOUR)
    DAY = WindowShape(Kind.CALLS, _DAY)
    WEEK = WindowShape(Kind.CALLS, _WEEK)
    UTC_DAY = WindowShape(Kind.CALLS, _UTC_DAY)
    UTC_MONTH = WindowShape(Kind.CALLS, _UTC_MONTH)
    TOKENS_MINUTE = WindowShape(Kind.TOKENS, _MINUTE)
    TOKENS_HOUR = WindowShape(Kind.TOKENS, _HOUR)
    TOKENS_WEEK = WindowShape(Kind.TOKENS, _WEEK)
    TOKENS_UTC_MONTH = WindowShape(Kind.TOKENS, _UTC_MONTH)
    TOKENS_IN_HOUR = WindowShape(Kind.TOKENS_IN, _HOUR)
    TOKENS_OUT_DAY = WindowShape(Kind.TOKENS_OUT, _DAY)
    COST_UTC_DAY = WindowShape(Kind.COST, _UTC_DAY)
    COST_UTC_MONTH = WindowShape(Kind.COST, _UTC_MONTH)
    SLOTS_HOUR = WindowShape(Kind.SLOTS, _HOUR)


OFFERED: Final = (Window.SECOND, Window.MINUTE, Window.HOUR, Window.DAY, Window.TOKENS_HOUR)
"""Those that records and files can name, and format 1 can keep."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one window: at most ``limit`` units in any trailing ``window``."""

    window: Window
    limit: int  # 1..MAX_UNITS
    shape: WindowShape = field(init=False, repr=False, compare=False)  # the window's, at hand for the hot path

    def __post_init__(self) -> None:
        """Refuse a limit that the store could not hold."""
        if not 1 <= self.limit <= MAX_UNITS:
            raise ValueError(f"limit must be 1..{MAX_UNITS}, not {self.limit}")
        object.__setattr__(self, "shape", self.window.value)


class Subject(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One counted thing with its budgets. Compared by identity on the hot path; make one per record and keep it."""

    name: str  # "p:0a1…": opaque here, names its counters in the store
    budgets: tuple[Budget, ...]  # at most one per window; may be empty
    is_shadow: bool = False  # counted where an admitted call fits; refuses nobody, and holds no tokens
    plan: bytes = b""  # the budgets as ``take.lua`` reads them; made here, where nobody has them (``plan_of``)

    def __post_init__(self) -> None:
        """Refuse two limits on one window."""
        if not self.plan:
            force_setattr(self, "plan", plan_of(self.budgets, is_shadow=self.is_shadow))


def plan_of(budgets: Sequence[Budget], *, is_shadow: bool = False) -> bytes:
    """Put budgets as ``take.lua`` reads them; refuses two limits on one window."""
    if len({budget.shape.id for budget in budgets}) < len(budgets):
        raise ValueError("two budgets on one window")
    numbers = [number for budget in budgets for number in (budget.shape.id, budget.limit)]
    count = len(budgets) + (SHADOW if is_shadow else 0)
    return struct.pack("<B" + "Bd" * len(budgets), count, *numbers)


def planned(plan: bytes) -> list[Budget]:
    """Read the budgets back."""
    return [Budget(_WINDOW_OF[slot], int(limit)) for slot, limit in struct.iter_unpack("<Bd", plan[1:])]


_WINDOW_OF: Final = {window.value.id: window for window in Window}


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A reservation: the tokens of one call are held back until the call is settled (``ratelimit.tokens.ledger``)."""

    id: str  # at most 255 characters; nobody can guess it
    ceiling: int  # no settlement charges more tokens than this: 0..MAX_UNITS
    presumed: int  # what is charged if the call is never settled: 0..ceiling
    timeout_ms: int  # how long after its admission a call is presumed to have ended
    terms: bytes  # what whoever settles wants to know again; opaque here, at most 65,535 bytes


class Charge(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What calls of one kind ask of every budget of every subject, all or nothing. Made once and kept, by the 100,000.

    What differs from call to call is a ``Draw``'s. What can be worked out once is worked out here.
    """

    subjects: tuple[Subject, ...]  # distinct names
    valid_until_ms: int = 0  # store time from which a call is refused as expired; 0: never
    refs: tuple[str, ...] = ()  # record references the calls were decided on (a moved epoch has them compared)
    usage: tuple[str, ...] = ()  # usage subjects under which whoever admits a call counts it
    limited: tuple[Subject, ...] = ()  # those that have budgets
    count: int = 0  # of all budgets
    refs_line: str = ""  # the references as the script takes them
    packed_usage: bytes = b""  # the usage subjects as a reservation has them, once a call of it has held tokens

    def __post_init__(self) -> None:
        """Refuse a subject that is named twice: half of a cost would fit twice where the whole does not."""
        subjects = self.subjects
        if len(subjects) > 1 and len({subject.name for subject in subjects}) < len(subjects):
            raise ValueError("a charge names each of its subjects once")
        limited = tuple([subject for subject in subjects if subject.budgets])
        force_setattr(self, "limited", subjects if len(limited) == len(subjects) else limited)
        force_setattr(self, "count", sum([len(subject.budgets) for subject in limited]))
        force_setattr(self, "refs_line", " ".join(self.refs) + "\n")

    @property
    def used(self) -> bytes:
        """The usage subjects as a reservation has them; raises ``ValueError`` where no call of it may hold tokens."""
        if not self.packed_usage:
            if fault := self.holds_fault:
                raise ValueError(fault)
            force_setattr(self, "packed_usage", _packed_names(self.usage))
        return self.packed_usage

    @property
    def holds_fault(self) -> str:
        """Why no call of it may hold tokens; "": it may."""
        return _holds_fault(self.subjects, self.usage)

    @property
    def budgets(self) -> tuple[tuple[Subject, Budget], ...]:
        """Every budget, in the order of a grant's numbers."""
        return tuple((subject, budget) for subject in self.limited for budget in subject.budgets)

    def __repr__(self) -> str:
        """Name its subjects."""
        return f"Charge({', '.join(subject.name for subject in self.subjects)})"


class Draw(NamedTuple):
    """What one call asks of a charge's budgets.

    A budget of calls costs ``hits``, one number or one for each subject; one of tokens ``tokens``; of another kind
    its place in ``more``.
    What costs 0 is looked at only: it takes nothing and refuses nothing. Hits below 0 are given back, the oldest first.
    """

    charge: Charge
    hits: int | tuple[int, ...] = 1  # -MAX_UNITS..MAX_UNITS
    tokens: int = 0  # 0..MAX_UNITS
    hold: Hold | None = None  # written if the call is admitted
    more: tuple[int, int, int, int] | None = None  # tokens in, tokens out, cost, slots; 0..MAX_UNITS each


def units_of(draw: Draw, kind: Kind) -> int:
    """What a call asks of budgets of a kind other than calls."""
    if kind is Kind.TOKENS:
        return draw.tokens
    return draw.more[kind - Kind.TOKENS_IN] if draw.more else 0


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


class Grant(NamedTuple):
    """The answer to one draw.

    ``numbers``: two for each of ``draw.charge.budgets``, in order, straight from the script: the units that it counts
    after this call was decided (they may be more than its limit; those that it would count, where a subject in shadow
    mode had no room for an admitted call), and the store time at which it is whole again if nothing else is admitted
    (0: it is whole). Empty unless the call was admitted, refused or never fits.
    """

    answer: Answer
    draw: Draw
    numbers: tuple[int, ...] = ()
    place: int = 0  # which of the budgets takes longest to free the cost, or never will; from 1, 0: none
    retry_at_ms: int = 0  # store time at which the cost fits if nothing else intervenes; 0 unless refused
    held: int = 0  # units of ``refused_by`` that unsettled calls hold, where only they are in the way; else 0. Then
    # ``retry_at_ms`` is when to ask again: they are given back when their calls end

    @property
    def states(self) -> tuple[BudgetState, ...]:
        """The state of every budget, in order; made anew each time."""
        if not self.numbers:
            return ()
        pairs = zip(self.draw.charge.budgets, self.numbers[::2], self.numbers[1::2], strict=True)
        return tuple(
            BudgetState(subject, budget, max(0, budget.limit - total), reset_ms)
            for (subject, budget), total, reset_ms in pairs
        )

    @property
    def refused_by(self) -> BudgetState | None:
        """The budget that takes longest to free the cost, or never will."""
        return self.states[self.place - 1] if self.place else None


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
    grants: tuple[Grant, ...]  # one per draw, in order; empty unless PASSED
    spent_us: int = 0  # processor time of the script in the store
    clock_steps: int = 0  # windows whose newest bucket lay ahead of the store's clock


def _holds_fault(subjects: tuple[Subject, ...], usage: tuple[str, ...]) -> str:
    if any(subject.is_shadow for subject in subjects):
        return "a charge that holds tokens names no subject in shadow mode"
    longest = max((len(name.encode()) for name in (*[subject.name for subject in subjects], *usage)), default=0)
    if longest > MAX_HELD_NAME:
        return f"a charge that holds tokens names subjects of at most {MAX_HELD_NAME} bytes"
    return ""


def _packed_names(names: tuple[str, ...]) -> bytes:
    texts = [name.encode() for name in names]
    return bytes([len(texts)]) + b"".join(bytes([len(text)]) + text for text in texts)
