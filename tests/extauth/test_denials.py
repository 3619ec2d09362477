"""The deny cache by itself: what it says is what the script says, for a second at most."""

from __future__ import annotations

import pytest
import redis
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from extauth.denials import LIFE_MS, MAX_ADMITTED, MAX_ENTRIES, Denials
from gate.assembly import limiter_of
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import Answer, Budget, BudgetState, Draw, Fence, Grant, Hold, Subject, Taken, Window
from runtime.store.offset import ClockOffset
from tests.support.draws import draw, granted

START_MS = 1_800_000_000_000
EPOCH = "7-0123456789abcdef"
HOUR = Budget(Window.HOUR, 1_000)  # a value lives by the real clock, which must not end a simulated second


class Clocks:
    """Our clock and the store's, which tell the same time but for a constant that is known exactly."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self._offset = ClockOffset()
        self._offset.learn(sent_ms=self.monotonic_ms(), store_ms=START_MS, received_ms=self.monotonic_ms())

    def monotonic_ms(self) -> float:
        """Ours began a while ago."""
        return float(self.now_ms - START_MS + 50_000)

    def denials(self) -> Denials:
        """A cache that goes by them."""
        return Denials(self.monotonic_ms, lambda _cell: self._offset)


KEYS = [
    Subject("k:1", (Budget(Window.SECOND, 2), Budget(Window.MINUTE, 4), HOUR)),
    Subject("k:2", (Budget(Window.SECOND, 3), HOUR, Budget(Window.TOKENS_HOUR, 90))),
    Subject("k:3", ()),
]
PUBLICATIONS = [
    Subject("p:1", (Budget(Window.SECOND, 3), Budget(Window.MINUTE, 6), HOUR)),
    Subject("p:2", (Budget(Window.MINUTE, 5), HOUR, Budget(Window.TOKENS_HOUR, 100))),
]
_charges = st.builds(
    draw,
    subjects=st.tuples(st.sampled_from(KEYS), st.sampled_from(PUBLICATIONS)),
    tokens=st.sampled_from([0, 10, 40, 101]),
)
_moves = st.sampled_from([0, 0, 0, 1, 20, 49, 50, 300, 999, 61_000])
_steps = st.tuples(_moves, _charges, st.sampled_from([False, False, True]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_steps, min_size=20, max_size=80))
def test_it_says_what_the_script_says(store: redis.Redis, steps: list[tuple[int, Draw, bool]]) -> None:
    """In every history of calls and settlements, each remembered refusal is the one that the store would give now."""
    store.flushdb()
    clocks, limiter, ledger, held = Clocks(), limiter_of(0), Ledger("0"), list[str]()
    denials = clocks.denials()
    for number, (move_ms, charge, settles) in enumerate(steps):
        clocks.now_ms += move_ms
        asked = charge._replace(hold=Hold(f"r{number}", 200, 0, 600_000, b""))
        denied = denials.look(0, asked, EPOCH)
        taken = limiter.take(store.execute_command, [asked], epoch="", now_ms=clocks.now_ms)
        if denied:
            event("remembered")
            same(denied.grant, taken.grants[0])
            assert denied.now_ms == clocks.now_ms
        denials.note(0, [asked], taken, EPOCH)
        held += [f"r{number}"] if taken.grants[0].answer is Answer.ADMITTED else []
        if settles and held:
            ledger.settle(store.execute_command, [Settlement(held.pop(), 0)], sweep=0, now_ms=clocks.now_ms)


def same(denied: Grant, true: Grant) -> None:
    """Answer, budget, what is left of it and times are the same; of other budgets less is promised, never more."""
    assert (denied.answer, denied.retry_at_ms) == (true.answer, true.retry_at_ms)
    assert denied.refused_by == true.refused_by
    for remembered, told in zip(denied.states, true.states, strict=True):
        assert remembered[:2] == told[:2]
        assert remembered.remaining <= told.remaining


# One entry

SUBJECTS = (KEYS[0], PUBLICATIONS[0])
CALL = draw(SUBJECTS)
TOKENS = Budget(Window.TOKENS_HOUR, 100)


def refused(retry_at_ms: int = START_MS + 30_000, *, tokens_left: int = 100, by_tokens: bool = False) -> Taken:
    """A store's reply to one charge whose key has a full minute, or full tokens."""
    calls = BudgetState(KEYS[0], KEYS[0].budgets[1], 0, retry_at_ms + 5_000)
    tokens = BudgetState(KEYS[0], TOKENS, tokens_left, START_MS + 500)
    grant = granted(Answer.REFUSED, (calls, tokens), 2 if by_tokens else 1, retry_at_ms)
    return Taken(Fence.PASSED, EPOCH, START_MS, (grant,))


def admitted() -> Taken:
    """A store's reply to one charge that fits."""
    return Taken(Fence.PASSED, EPOCH, START_MS, (granted(Answer.ADMITTED),))


@pytest.fixture
def clocks() -> Clocks:
    """Two clocks."""
    return Clocks()


@pytest.fixture
def denials(clocks: Clocks) -> Denials:
    """A cache that has one refusal."""
    denials = clocks.denials()
    denials.note(0, [CALL], refused(), EPOCH)
    return denials


def test_it_is_good_for_a_second(clocks: Clocks, denials: Denials) -> None:
    """Another gate may have filled another budget meanwhile: after that the store is asked again."""
    clocks.now_ms += LIFE_MS - 1
    assert denials.look(0, CALL, EPOCH)
    clocks.now_ms += 1
    assert denials.look(0, CALL, EPOCH) is None


def test_it_ends_before_the_call_would_fit(clocks: Clocks) -> None:
    """At the moment that was named, by the latest that the store's clock can be, the store is asked."""
    denials = clocks.denials()
    denials.note(0, [CALL], refused(START_MS + 300), EPOCH)
    clocks.now_ms += 295
    assert denials.look(0, CALL, EPOCH)
    clocks.now_ms += 4
    assert denials.look(0, CALL, EPOCH) is None


@pytest.mark.parametrize(
    ("cell", "charge", "epoch"),
    [
        (0, CALL, "8-0123456789abcdef"),
        (1, CALL, EPOCH),
        (0, draw((KEYS[0],)), EPOCH),
        (0, draw((KEYS[1], PUBLICATIONS[0])), EPOCH),
        (0, CALL._replace(hits=2), EPOCH),
        (0, CALL._replace(hits=(1, 0)), EPOCH),
        (0, CALL._replace(tokens=101), EPOCH),
        (0, draw(SUBJECTS, valid_until_ms=START_MS), EPOCH),
    ],
    ids=[
        "another epoch",
        "another cell",
        "fewer budgets",
        "another key",
        "a higher cost",
        "a look",
        "tokens",
        "expired",
    ],
)
def test_it_speaks_for_the_same_question_only(denials: Denials, cell: int, charge: Draw, epoch: str) -> None:
    """Whatever could have another answer is put to the store."""
    assert denials.look(0, draw(SUBJECTS, tokens=100, valid_until_ms=START_MS + 60_000), EPOCH)
    assert denials.look(cell, charge, epoch) is None


def test_a_budget_of_tokens_is_never_remembered(denials: Denials) -> None:
    """Tokens are given back at any moment; what was remembered of the same call before is forgotten."""
    denials.note(0, [CALL], refused(by_tokens=True), EPOCH)
    assert denials.look(0, CALL, EPOCH) is None
    assert len(denials) == 0


def test_what_admits_is_asked_again(denials: Denials) -> None:
    """A call that takes of one of the budgets may have filled it for longer; one of another cell's name has not."""
    denials.note(0, [draw((KEYS[1],))], admitted(), EPOCH)
    assert denials.look(0, CALL, EPOCH)
    denials.note(0, [draw((KEYS[0],))], admitted(), EPOCH)
    assert denials.look(0, CALL, EPOCH) is None
    denials.note(0, [CALL], refused(), EPOCH)
    assert denials.look(0, CALL, EPOCH)


def test_what_is_whole_by_now_is_told_as_whole(clocks: Clocks, denials: Denials) -> None:
    """The other budgets' headers are a second old at most, and never promise more than there is."""
    clocks.now_ms += 499
    denied = denials.look(0, CALL._replace(tokens=0), EPOCH)
    assert denied
    assert denied.grant.states[1].reset_at_ms == START_MS + 500
    clocks.now_ms += 1
    denied = denials.look(0, CALL, EPOCH)
    assert denied
    assert (denied.grant.states[1].remaining, denied.grant.states[1].reset_at_ms) == (100, 0)
    assert denied.grant.states[0].remaining == 0


def test_it_is_bounded(clocks: Clocks) -> None:
    """Keys by the thousand push out the oldest; subjects that admit by the thousand, everything; both end by age."""
    denials = clocks.denials()
    for number in range(MAX_ENTRIES + 10):
        denials.note(0, [draw((Subject(f"k:{number}", ()),))], refused(), EPOCH)
    assert len(denials) <= MAX_ENTRIES + 1
    assert denials.look(0, draw((Subject("k:0", ()),)), EPOCH) is None
    for number in range(MAX_ADMITTED + 2):
        denials.note(0, [draw((Subject(f"q:{number}", ()),))], admitted(), EPOCH)
    assert len(denials) == len(denials._admitted) == 0
    denials.note(0, [CALL], refused(), EPOCH)
    clocks.now_ms += LIFE_MS
    denials.note(0, [CALL], admitted(), EPOCH)
    assert len(denials) == len(denials._admitted) == 0
