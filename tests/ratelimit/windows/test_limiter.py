"""The limiter as its callers see it: the script loaded when missing, odd batches refused, errors passed on."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest
import redis

from ratelimit.names import held_key
from ratelimit.windows.budgets import (
    MAX_UNITS,
    SPANS,
    Answer,
    Budget,
    Charge,
    Draw,
    Fence,
    Hold,
    Subject,
    Window,
)
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.packing import MAX_CHARGES
from tests.ratelimit.conftest import EPOCH_KEY, FEED_KEY
from tests.support.draws import draw

SUBJECT = Subject("p:1", (Budget(Window.MINUTE, 5),))


def test_a_store_without_the_script_gets_it(limiter: Limiter, store: redis.Redis) -> None:
    """A store that restarted has lost the script: the batch is sent again with it, once, and then it stays."""
    store.script_flush()
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        return store.execute_command(*command)

    assert limiter.take(execute, [draw((SUBJECT,))], epoch="").grants[0].states[0].remaining == 4
    assert sent == ["EVALSHA", "EVAL"]
    limiter.take(execute, [draw((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA", "EVAL", "EVALSHA"]


def test_a_loaded_script_is_found(limiter: Limiter, store: redis.Redis) -> None:
    """After ``load`` the first batch is one command."""
    store.script_flush()
    limiter.load(store.execute_command)
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        return store.execute_command(*command)

    limiter.take(execute, [draw((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA"]


def test_other_errors_pass_on(limiter: Limiter) -> None:
    """Nothing is sent twice when it may have run."""
    sent: list[str] = []

    def execute(*command: Any) -> Any:
        sent.append(command[0])
        raise redis.ConnectionError("gone")

    with pytest.raises(redis.ConnectionError):
        limiter.take(execute, [draw((SUBJECT,))], epoch="")
    assert sent == ["EVALSHA"]


def test_an_empty_batch_asks_for_the_fence(limiter: Limiter, store: redis.Redis) -> None:
    """No charges: the epoch and the clock, nothing else."""
    taken = limiter.take(store.execute_command, [], epoch="")
    assert (taken.fence, taken.grants) == (Fence.PASSED, ())
    assert taken.now_ms > 0


def test_a_call_without_budgets_is_admitted(limiter: Limiter, store: redis.Redis) -> None:
    """Unlimited calls pass the fence; nothing is kept of them: usage is counted by whoever asked."""
    charge = draw((Subject("k:1", ()),), usage=("k:1",))
    taken = limiter.take(store.execute_command, [charge], epoch="")
    assert (taken.grants[0].answer, taken.grants[0].states) == (Answer.ADMITTED, ())
    assert not list(store.scan_iter("tk:*"))


def test_only_calls_that_hold_tell_the_script_whose_usage_they_are(limiter: Limiter, store: redis.Redis) -> None:
    """Of one charge some calls may hold tokens and others not: the reservation has its usage, whoever came first."""
    charge = Charge((Subject("k:1", (Budget(Window.TOKENS_HOUR, 9),)),), refs=("key:1",), usage=("k:one", "p:one"))
    hold = Hold("r1", 5, 5, 600_000, b"terms")
    plain, holding = Draw(charge, tokens=1), Draw(charge, tokens=5, hold=hold)
    told = [argument for argument in limiter.question([plain], epoch="").arguments if isinstance(argument, bytes)]
    assert not any(b"k:one" in argument for argument in told)
    taken = limiter.take(store.execute_command, [plain, holding, plain, holding._replace(tokens=3)], epoch="")
    assert [grant.answer for grant in taken.grants] == [Answer.ADMITTED] * 3 + [Answer.REFUSED]
    reserved = store.hget(held_key("0"), "r1")
    assert reserved is not None
    assert b"k:one" in reserved
    assert b"p:one" in reserved
    for epoch in ("1-a", "2-b"):
        store.xadd(FEED_KEY, {"epoch": epoch, "refs": "key:1"}, id=f"{epoch[0]}-0")
        store.set(EPOCH_KEY, epoch)
    stale = limiter.take(store.execute_command, [plain, holding, plain], epoch="1-a")
    assert [grant.answer for grant in stale.grants] == [Answer.STALE] * 3


def test_the_script_tells_its_time(limiter: Limiter, store: redis.Redis) -> None:
    """The reply carries what the script cost the store, which sizes the next batch."""
    charges = [draw((Subject(f"k:{n}", SUBJECT.budgets),)) for n in range(MAX_CHARGES)]
    assert 100 < limiter.take(store.execute_command, charges, epoch="").spent_us < 10_000_000


def test_the_largest_batch(limiter: Limiter, store: redis.Redis) -> None:
    """The bound on charges is one the script can carry, with four distinct subjects each."""
    names = [f"{n}.{m}" for n in range(MAX_CHARGES) for m in range(4)]
    subjects = [Subject(name, SUBJECT.budgets) for name in names]
    charges = [draw(tuple(subjects[n : n + 4])) for n in range(0, len(names), 4)]
    taken = limiter.take(store.execute_command, charges, epoch="")
    assert {grant.answer for grant in taken.grants} == {Answer.ADMITTED}
    assert store.dbsize() == len(names)
    with pytest.raises(ValueError, match="at most 1000 charges"):
        limiter.take(store.execute_command, [*charges, charges[0]], epoch="")
    five = draw((*charges[0].charge.subjects, Subject("more", SUBJECT.budgets)))
    with pytest.raises(ValueError, match="at most 4000 subjects"):
        limiter.take(store.execute_command, [five, *charges[1:]], epoch="")


@pytest.mark.parametrize("cost", [-MAX_UNITS - 1, MAX_UNITS + 1])
def test_a_cost_out_of_range_is_refused_unsent(limiter: Limiter, store: redis.Redis, cost: int) -> None:
    """A cost the windows cannot hold never reaches the store."""
    with pytest.raises(ValueError, match="hits must be"):
        limiter.take(store.execute_command, [draw((SUBJECT,), cost)], epoch="")


def test_a_subject_named_twice_is_refused_unsent(limiter: Limiter, store: redis.Redis) -> None:
    """One call cannot be counted twice in one budget, where both halves would fit and the whole would not."""
    with pytest.raises(ValueError, match="once"):
        limiter.take(store.execute_command, [draw((SUBJECT, Subject("p:1", ())))], epoch="")


@pytest.mark.parametrize("limit", [0, -5, MAX_UNITS + 1])
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    """Limits are 1..10^12."""
    with pytest.raises(ValueError, match="limit must be"):
        Budget(Window.MINUTE, limit)


def test_two_budgets_on_one_window_are_refused() -> None:
    """A subject has one limit per window."""
    with pytest.raises(ValueError, match="two budgets on one window"):
        Subject("p:1", (Budget(Window.MINUTE, 5), Budget(Window.MINUTE, 6)))


def test_windows_fit_the_stored_form() -> None:
    """Slots are unique bytes, and a bucket's remainder modulo 256 is unambiguous in every span."""
    shapes = [window.value for window in Window]
    assert len({shape.id for shape in shapes}) == len(shapes)
    assert all(0 < shape.id < 256 and shape.kind < 16 and 0 < shape.span.id < 16 for shape in shapes)
    assert all(0 <= span.n < 255 for span in SPANS)


def test_the_script_knows_the_same_spans() -> None:
    """Spans are constant in the script, so that no batch has to bring them: they are those of Python, by number."""
    text = files("ratelimit.windows").joinpath("lua/take.lua").read_text()
    (table,) = re.findall(r"^local SPANS = \{(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"\{ n = (\d+), (?:bucket_ms = (\d+), )?current = false \}", table)
    found = [(int(n), int(bucket_ms or 0)) for n, bucket_ms in rows]
    assert found == [(span.n, span.bucket_ms) for span in SPANS]
    assert [span.id for span in SPANS] == list(range(1, len(SPANS) + 1))


def test_numbers_beyond_14_digits_are_no_texts(limiter: Limiter, store: redis.Redis) -> None:
    """Lua writes 15 digits and more inexactly: the largest units that can be stored come and go digit by digit."""
    subject, now_ms = Subject("p:1", (Budget(Window.WEEK, MAX_UNITS),)), 1_800_000_000_000
    newest, most = now_ms // 7_200_000, 10**13 - 1
    entries = b"".join(bytes(((newest - age) % 256,)) + most.to_bytes(6, "little") for age in (84, 83, 2, 1))
    numbers = (newest, most - 1, 5 * most - 1, 0)
    head = bytes((0, 5)) + b"".join(number.to_bytes(6, "little") for number in numbers) + b"\4"
    store.set("tk:budget:{0}:p:1", b"\2" + head + entries, px=10**9)
    (grant,) = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=now_ms).grants
    assert (grant.answer, grant.numbers) == (Answer.REFUSED, (5 * most - 1, (newest + 85) * 7_200_000))
    many = bytes((0, 5)) + b"".join(number.to_bytes(6, "little") for number in (newest, most - 1, 10**14 - 1, 0))
    old = b"".join(bytes(((newest - age) % 256,)) + most.to_bytes(6, "little") for age in range(84, 0, -1))
    store.set("tk:budget:{0}:p:1", b"\2" + many + bytes((84,)) + old, px=10**9)
    (grant,) = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=now_ms).grants
    assert grant.numbers[0] == 85 * most - 1
    later_ms = (newest + 84) * 7_200_000
    (grant,) = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=later_ms).grants
    assert grant.numbers[0] == most - 1
