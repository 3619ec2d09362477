"""Budgets held in one process promise what the store's do, and all shares together never more than the limit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.windows.budgets import Answer, Budget, Draw, Subject, Window
from ratelimit.windows.local import LocalBudgets, NoShareError
from tests.ratelimit.windows import histories
from tests.ratelimit.windows.model import Model
from tests.support.draws import draw
from tests.support.examples import examples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

START_MS = histories.START_MS
MOVES_MS = st.sampled_from((0, 1, 49, 50, 51, 950, 1_000, 1_049, 1_050, 30_000, 60_000, 61_000))


@given(history=histories.short())
@settings(max_examples=examples(60), deadline=None)
def test_alone_it_answers_as_the_model_does(history: list[histories.Step]) -> None:
    """With nobody to share with: the same grants, what remains, when it is whole, when to retry; time only grows."""
    local, model, now_ms = LocalBudgets(), Model(), 0
    for number, step in enumerate(history):
        now_ms = max(now_ms, step.now_ms)
        for charge in (one._replace(hold=None) for one in step.charges):  # nothing is settled here
            if not charge.charge.valid_until_ms:
                assert [local.take(charge, now_ms=now_ms, sharers=1)] == model.take([charge], now_ms), number


@pytest.mark.parametrize("seed", range(3))
def test_it_knows_every_window_and_kind(seed: int) -> None:
    """Weeks, calendar periods, and what is counted beside calls and tokens: as the model has them."""
    local, model, now_ms = LocalBudgets(), Model(), 0
    for number, step in enumerate(histories.long(seed, 300, histories.ALL_WINDOWS)):
        now_ms = max(now_ms, step.now_ms)
        for call in (one._replace(hold=None) for one in step.charges):
            if not any(subject.is_shadow for subject in call.charge.subjects):
                assert [local.take(call, now_ms=now_ms, sharers=1)] == model.take([call], now_ms), number


@given(
    calls=st.lists(st.tuples(MOVES_MS, st.integers(0, 2), st.integers(1, 4)), max_size=60),
    limit=st.sampled_from((1, 2, 3, 10, 100)),
    window=st.sampled_from((Window.SECOND, Window.MINUTE)),
)
@settings(max_examples=150, deadline=None)
def test_all_shares_together_hold_the_limit(calls: list[tuple[int, int, int]], limit: int, window: Window) -> None:
    """Three gates that each admit all they can: no trailing window of them together holds more than the limit."""
    gates = [LocalBudgets() for _ in range(3)]
    charge_of = {cost: draw((Subject("p:1", (Budget(window, limit),)),), cost) for cost in range(1, 5)}
    now_ms, admitted = START_MS, []
    for move_ms, gate, cost in calls:
        now_ms += move_ms
        admitted += [(now_ms, cost) for _ in range(3) if _admits(gates[gate], charge_of[cost], now_ms)]
    for end_ms, _ in admitted:
        inside = sum(cost for at_ms, cost in admitted if end_ms - window.value.window_ms <= at_ms <= end_ms)
        assert inside <= limit


def _admits(gate: LocalBudgets, charge: Draw, now_ms: int) -> bool:
    try:
        return gate.take(charge, now_ms=now_ms, sharers=3).answer is Answer.ADMITTED
    except NoShareError:
        return False


def test_a_share_that_rounds_to_nothing_admits_nobody() -> None:
    """Two units among three gates is none for each: not a wait that would end, so no grant at all."""
    charge = draw((Subject("p:1", (Budget(Window.MINUTE, 2),)),))
    with pytest.raises(NoShareError):
        LocalBudgets().take(charge, now_ms=START_MS, sharers=3)


def test_a_refused_call_costs_nothing_anywhere() -> None:
    """All or nothing: what the publication refuses is not taken from the key."""
    key, publication = Subject("k:1", (Budget(Window.MINUTE, 9),)), Subject("p:1", (Budget(Window.MINUTE, 1),))
    local = LocalBudgets()
    both, alone = draw((key, publication)), draw((key,))
    assert local.take(both, now_ms=START_MS, sharers=1).answer is Answer.ADMITTED
    refused = local.take(both, now_ms=START_MS, sharers=1)
    assert (refused.answer, refused.refused_by) == (Answer.REFUSED, refused.states[1])
    assert local.take(alone, now_ms=START_MS, sharers=1).states[0].remaining == 7


def test_what_is_free_again_is_forgotten() -> None:
    """Memory follows the subjects that hold units, not those that ever called."""
    local = LocalBudgets(max_subjects=50)
    for number in range(500):
        charge = draw((Subject(f"k:{number}", (Budget(Window.SECOND, 5),)),))
        local.take(charge, now_ms=START_MS + 100 * number, sharers=1)
    assert len(local) < 20


def test_a_full_house_takes_no_new_subject() -> None:
    """A subject that could not be counted is not admitted; those that are counted go on."""
    local = LocalBudgets(max_subjects=2)
    charges = [draw((Subject(f"k:{number}", (Budget(Window.HOUR, 5),)),)) for number in range(3)]
    for charge in itertools.chain(charges[:2], charges[:2]):
        assert local.take(charge, now_ms=START_MS, sharers=1).answer is Answer.ADMITTED
    with pytest.raises(NoShareError):
        local.take(charges[2], now_ms=START_MS, sharers=1)
