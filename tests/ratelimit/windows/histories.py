"""Histories of batches for comparing the script with the model: drawn whole by hypothesis, or long from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import redis
from hypothesis import strategies as st

from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import MAX_UNITS, Budget, Draw, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.windows.model import Model
from tests.support.draws import draw

START_MS = 1_800_000_000_000
NAMES = ("k:1", "k:2", "t:1", "p:1")
LIMITS = (1, 2, 3, 7, 20, 100)
WINDOWS = (Window.SECOND, Window.MINUTE, Window.DAY, Window.TOKENS_HOUR)
ALL_WINDOWS = tuple(window for window in Window if window is not Window.HOUR)
CALL_WINDOWS = (Window.SECOND, Window.MINUTE, Window.DAY, Window.WEEK)
BUCKETS_MS = (50, 1_000, 60_000, 900_000)
LONG_BUCKETS_MS = (*BUCKETS_MS, 7_200_000, 86_400_000)

Pick = Callable[[Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Step:
    """Calls that come together, and the clock they meet; reservations that end."""

    now_ms: int
    charges: tuple[Draw, ...]
    settled: tuple[Settlement, ...] = ()  # before the charges; of reservations that were admitted or not


def subject(
    name: str, limits: Sequence[int | None], windows: Sequence[Window] = WINDOWS, *, is_shadow: bool = False
) -> Subject:
    """Build a subject limited in some windows.

    An hour is always among them: a value's time to live goes by the real clock, which must not end a simulated
    second while the machine is busy.
    """
    given = [Budget(window, limit) for window, limit in zip(windows, limits, strict=True) if limit]
    return Subject(name, (*given, Budget(Window.HOUR, 40)), is_shadow)


def _hold(number: int) -> Hold:
    return Hold(f"0a1{number}", MAX_UNITS, 0, 1_000, b"")


def _moved(now_ms: int, bucket_ms: int, buckets: int, beside_ms: int) -> int:
    """Move to the border of a bucket so many buckets away, or beside it."""
    return max(0, (now_ms // bucket_ms + buckets) * bucket_ms + beside_ms)


_limits = st.tuples(*[st.none() | st.sampled_from(LIMITS)] * len(WINDOWS))
_moves = st.tuples(
    st.sampled_from(BUCKETS_MS), st.sampled_from((-3, 0, 0, 1, 2, 20, 21, 60, 61)), st.sampled_from((-1, 0, 1, 7))
)


@st.composite
def short(draw: st.DrawFn) -> list[Step]:
    """Draw up to 40 steps that hypothesis can make smaller; limits change in the middle of it."""
    now_ms, steps, held = START_MS, [], 0
    for _ in range(draw(st.integers(1, 4))):
        subjects = [subject(name, draw(_limits)) for name in NAMES]
        for move in draw(st.lists(_moves, min_size=1, max_size=10)):
            now_ms = _moved(now_ms, *move)
            asked = st.lists(st.sampled_from(subjects), unique=True, max_size=3).map(tuple)
            charge = asked.flatmap(partial(_charges, now_ms))
            charges = draw(st.lists(charge, min_size=1, max_size=6))
            settled = draw(st.lists(_settlements(held), max_size=3)) if held else []
            holding = draw(st.booleans())
            if holding:
                charges = [one._replace(hold=_hold(held + number)) for number, one in enumerate(charges)]
                held += len(charges)
            steps.append(Step(now_ms, tuple(charges), tuple(settled)))
    return steps


def _settlements(held: int) -> st.SearchStrategy[Settlement]:
    """Settle one of the last reservations."""
    ids = st.integers(max(0, held - 20), held - 1).map(lambda number: _hold(number).id)
    return st.tuples(ids, st.sampled_from((0, 0, 1, 2, 9))).map(lambda ended: Settlement(*ended))


def _charges(now_ms: int, subjects: tuple[Subject, ...]) -> st.SearchStrategy[Draw]:
    each = st.lists(st.sampled_from((0, 1, 2, 9)), min_size=len(subjects), max_size=len(subjects)).map(tuple)
    return st.builds(
        draw,
        st.just(subjects),
        hits=st.sampled_from((1, 1, 2, 3, 8)) | each,
        tokens=st.sampled_from((0, 1, 2, 5, 30)),
        valid_until_ms=st.sampled_from((0, 0, 0, now_ms, now_ms + 1)),
    )


def long(seed: int, steps: int, windows: Sequence[Window] = WINDOWS, *, gives_back: bool = False) -> Iterator[Step]:
    """Make thousands of steps: mostly small moves, sometimes far ones or back, limits changed now and then.

    ``gives_back``: some calls give hits back, and none holds anything, as it is with descriptors.
    """
    dice = random.Random(seed)  # noqa: S311  a seed, so that a failure can be repeated
    now_ms, subjects, held = START_MS, _any_subjects(dice, windows), 0
    for _ in range(steps):
        if dice.random() < 0.01:
            subjects = _any_subjects(dice, windows)
        now_ms = _any_move(dice, now_ms, BUCKETS_MS if windows is WINDOWS else LONG_BUCKETS_MS)
        charges = [_any_charge(dice, subjects, gives_back=gives_back) for _ in range(dice.choice((1, 1, 2, 8, 20)))]
        settled = [_any_settlement(dice, held) for _ in range(dice.choice((0, 0, 1, 3)))] if held else []
        if dice.random() < 0.5 and not gives_back:
            charges = [
                one if one.charge.holds_fault else one._replace(hold=_hold(held + number))
                for number, one in enumerate(charges)
            ]
            held += len(charges)
        yield Step(now_ms, tuple(charges), tuple(settled))


def _any_settlement(dice: random.Random, held: int) -> Settlement:
    return Settlement(_hold(dice.randrange(max(0, held - 40), held)).id, dice.choice((0, 1, 3, 20)))


def _any_subjects(dice: random.Random, windows: Sequence[Window]) -> list[Subject]:
    return [
        subject(name, [dice.choice((None, *LIMITS)) for _ in windows], windows, is_shadow=dice.random() < 0.2)
        for name in NAMES
    ]


def _any_move(dice: random.Random, now_ms: int, buckets_ms: Sequence[int]) -> int:
    if dice.random() < 0.7:
        return now_ms + dice.choice((0, 1, 3, 17, 49, 50, 51, 400))
    ahead = dice.choice((1, 1, 1, 2, 5, 20, 21, 60, 61, -2, -30))
    return _moved(now_ms, dice.choice(buckets_ms), ahead, dice.choice((-1, 0, 1)))


def _any_charge(dice: random.Random, subjects: Sequence[Subject], *, gives_back: bool) -> Draw:
    asked = tuple(dice.sample(subjects, dice.randint(0, 3)))
    each = tuple(dice.choice((0, 1, 4, -1, -5) if gives_back else (0, 1, 4)) for _ in asked)
    hits = each if dice.random() < 0.2 else dice.choice((1, 1, 1, 2, 5, 21, -3) if gives_back else (1, 1, 1, 2, 5, 21))
    more = (dice.choice((0, 2)), 1, dice.choice((0, 5)), 1) if dice.random() < 0.5 else None
    return draw(asked, hits=hits, tokens=dice.choice((0, 0, 1, 3, 20)), more=more)


def vast(seed: int, most: int) -> Iterator[Step]:
    """Make calls that held next to nothing turn out to have cost ``most``, again and again."""
    dice = random.Random(seed)  # noqa: S311  a seed, so that a failure can be repeated
    vast_one = Subject("k:1", (Budget(Window.TOKENS_HOUR, most), Budget(Window.HOUR, most)))
    now_ms, held = START_MS, 0
    for _ in range(4):
        begun = held
        for _ in range(dice.choice((1, 3, 12))):
            calls = [_vast_call(vast_one, held + number, most) for number in range(dice.choice((1, 4, 15)))]
            held += len(calls)
            yield Step(now_ms, tuple(calls))
            now_ms += dice.choice((0, 20_000, 60_000))
        ids = [_hold(number).id for number in range(begun, held)]
        dice.shuffle(ids)
        while ids:
            ended, ids = ids[:5], ids[5:]
            costs = (0, 50, most // 7, most, most)
            yield Step(now_ms, (), tuple(Settlement(one, dice.choice(costs)) for one in ended))
            yield Step(now_ms, (draw((vast_one,), tokens=dice.choice((1, most // 2, most))),))
            now_ms += dice.choice((0, 1_000, 60_000))
        for _ in range(8):
            now_ms += dice.choice((60_000, 600_000, 1_200_000))
            yield Step(now_ms, (draw((vast_one,), tokens=dice.choice((1, most))),))


def _vast_call(subject: Subject, number: int, most: int) -> Draw:
    return draw((subject,), tokens=100, hold=Hold(_hold(number).id, most, 0, 1_000, b""))


def check_agreement(
    limiter: Limiter, store: redis.Redis, history: Iterator[Step] | Sequence[Step], stored_format: int = 1
) -> None:
    """Assert that the script tells of every step what the model tells of it."""
    store.flushdb()
    model, ledger = Model(stored_format), Ledger("0")
    for number, step in enumerate(history):
        if step.settled:
            settled = ledger.settle(store.execute_command, step.settled, sweep=0, now_ms=step.now_ms)
            assert settled.faults == 0, number
        model.settle([(one.id, one.tokens) for one in step.settled])
        taken = limiter.take(store.execute_command, step.charges, epoch="", now_ms=step.now_ms)
        assert taken.clock_steps == model.clock_steps(step.charges, step.now_ms), number
        assert list(taken.grants) == model.take(step.charges, step.now_ms), number
