"""The limiter as its callers see it: the script loaded when missing, odd batches refused, errors passed on."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from ratelimit.windows.budgets import Answer, Budget, Charge, Fence, Subject, Window
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.packing import MAX_CHARGES

SUBJECT = Subject("p:1", (Budget(Window.MINUTE, 5),))


def test_a_store_without_the_script_gets_it(limiter: Limiter, store: redis.Redis) -> None:
    """A store that restarted has lost the script: the batch is sent again with it, once, and then it stays."""
    store.script_flush()
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        return store.execute_command(*command)

    assert limiter.take(execute, [Charge((SUBJECT,))], epoch="").grants[0].states[0].remaining == 4
    assert sent == ["EVALSHA", "EVAL"]
    limiter.take(execute, [Charge((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA", "EVAL", "EVALSHA"]


def test_a_loaded_script_is_found(limiter: Limiter, store: redis.Redis) -> None:
    """After ``load`` the first batch is one command."""
    store.script_flush()
    limiter.load(store.execute_command)
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        return store.execute_command(*command)

    limiter.take(execute, [Charge((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA"]


def test_other_errors_pass_on(limiter: Limiter) -> None:
    """Nothing is sent twice when it may have run."""
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        raise redis.ConnectionError("gone")

    with pytest.raises(redis.ConnectionError):
        limiter.take(execute, [Charge((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA"]


def test_an_empty_batch_asks_for_the_fence(limiter: Limiter, store: redis.Redis) -> None:
    """No charges: the epoch and the clock, nothing else."""
    taken = limiter.take(store.execute_command, [], epoch="")
    assert (taken.fence, taken.grants) == (Fence.PASSED, ())
    assert taken.now_ms > 0


def test_a_call_without_budgets_is_admitted_and_used(limiter: Limiter, store: redis.Redis) -> None:
    """Unlimited calls pass the fence and are counted as usage; no budget is kept for them."""
    charge = Charge((Subject("k:1", ()),), usage=("k:1",))
    taken = limiter.take(store.execute_command, [charge], epoch="")
    assert (taken.grants[0].answer, taken.grants[0].states) == (Answer.ADMITTED, ())
    assert store.hget("tk:usage:{0}:k:1", "total") == b"1"
    assert not list(store.scan_iter("tk:budget:*"))


def test_the_script_tells_its_time(limiter: Limiter, store: redis.Redis) -> None:
    """The reply carries what the script cost the store, which sizes the next batch."""
    charges = [Charge((Subject(f"k:{n}", SUBJECT.budgets),)) for n in range(MAX_CHARGES)]
    assert 100 < limiter.take(store.execute_command, charges, epoch="").spent_us < 10_000_000


def test_the_largest_batch(limiter: Limiter, store: redis.Redis) -> None:
    """The bound on charges is one the script can carry, with four distinct subjects and usages each."""
    names = [f"{n}.{m}" for n in range(MAX_CHARGES) for m in range(4)]
    subjects = [Subject(name, SUBJECT.budgets) for name in names]
    charges = [Charge(tuple(subjects[n : n + 4]), usage=tuple(names[n : n + 4])) for n in range(0, len(names), 4)]
    taken = limiter.take(store.execute_command, charges, epoch="")
    assert {grant.answer for grant in taken.grants} == {Answer.ADMITTED}
    assert store.dbsize() == 2 * len(names)
    with pytest.raises(ValueError, match="at most 1000 charges"):
        limiter.take(store.execute_command, [*charges, charges[0]], epoch="")
    five = Charge((*charges[0].subjects, Subject("more", SUBJECT.budgets)))
    with pytest.raises(ValueError, match="at most 4000 subjects"):
        limiter.take(store.execute_command, [five, *charges[1:]], epoch="")


@pytest.mark.parametrize("cost", [0, -1, 10**9 + 1])
def test_a_cost_out_of_range_is_refused_unsent(limiter: Limiter, store: redis.Redis, cost: int) -> None:
    """A cost the windows cannot hold never reaches the store."""
    with pytest.raises(ValueError, match="cost must be"):
        limiter.take(store.execute_command, [Charge((SUBJECT,), cost)], epoch="")


def test_a_subject_named_twice_is_refused_unsent(limiter: Limiter, store: redis.Redis) -> None:
    """One call cannot be counted twice in one budget, where both halves would fit and the whole would not."""
    with pytest.raises(ValueError, match="once"):
        limiter.take(store.execute_command, [Charge((SUBJECT, Subject("p:1", ())))], epoch="")


@pytest.mark.parametrize("limit", [0, -5, 10**9 + 1])
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    """Limits are 1..10^9."""
    with pytest.raises(ValueError, match="limit must be"):
        Budget(Window.MINUTE, limit)


def test_two_budgets_on_one_window_are_refused() -> None:
    """A subject has one limit per window."""
    with pytest.raises(ValueError, match="two budgets on one window"):
        Subject("p:1", (Budget(Window.MINUTE, 5), Budget(Window.MINUTE, 6)))


def test_window_ids_fit_the_stored_form() -> None:
    """Ids are unique bytes, and a bucket's remainder modulo 256 is unambiguous in every window."""
    shapes = [window.value for window in Window]
    assert len({shape.id for shape in shapes}) == len(shapes)
    assert all(0 < shape.id < 256 and 0 < shape.n < 255 for shape in shapes)
