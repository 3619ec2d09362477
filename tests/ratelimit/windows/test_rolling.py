"""Old and new gates on the same values, and values of one format under gates that write the other.

Nobody is refused for a value that cannot be read, and together they never admit more than a limit in any window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.names import budget_key
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import Answer, Budget, Draw, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.conftest import EPOCH_KEY, FEED_KEY
from tests.ratelimit.windows.test_promises import most_within
from tests.support.draws import draw
from tests.support.oldtaking import OldTaker

START_MS = 1_800_000_000_000
OLD, ONE, TWO = 0, 1, 2
MOVES_MS = (0, 0, 1, 49, 50, 700, 999, 1_000, 59_000, 60_000, 890_000, 900_000, 910_000, 1_800_000, 20_000_000, -30)
LIMITS = ((Window.SECOND, 3), (Window.MINUTE, 4), (Window.HOUR, 6), (Window.DAY, 9))
TRAILING = {window: window.value.n * window.value.bucket_ms for window, _ in LIMITS}
SUBJECT = Subject("p:1", (*(Budget(window, limit) for window, limit in LIMITS), Budget(Window.TOKENS_HOUR, 50)))

Admits = Callable[[Draw, int], bool]

_steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(MOVES_MS), st.integers(1, 3), st.sampled_from((0, 7, 30))),
    min_size=5,
    max_size=60,
)
_shared_store = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _new(store: redis.Redis, stored_format: int) -> Admits:
    limiter = Limiter(cell="0", epoch_key=EPOCH_KEY, feed_key=FEED_KEY, writes_format=lambda: stored_format)

    def admits(call: Draw, now_ms: int) -> bool:
        (grant,) = limiter.take(store.execute_command, [call], epoch="", now_ms=now_ms).grants
        assert grant.answer is not Answer.CORRUPT
        return grant.answer is Answer.ADMITTED

    return admits


def _old(store: redis.Redis) -> Admits:
    old = OldTaker(store.execute_command)

    def admits(call: Draw, now_ms: int) -> bool:
        answer = old.take(call, now_ms)
        assert answer != "C"
        return answer == "A"

    return admits


def _gates(store: redis.Redis) -> dict[int, Admits]:
    return {OLD: _old(store), ONE: _new(store, 1), TWO: _new(store, 2)}


def _assert_held(admitted: Sequence[tuple[int, int]]) -> None:
    """Assert that no trailing window holds more than its limit; a clock set back counts as the latest so far."""
    for window, limit in LIMITS:
        assert most_within(admitted, TRAILING[window]) <= limit, window


@given(
    phases=st.lists(st.tuples(st.sampled_from([(OLD, ONE), (ONE, TWO), (TWO, TWO)]), _steps), min_size=1, max_size=4)
)
@settings(_shared_store, max_examples=60)
def test_old_and_new_gates_hold_the_limits_together(
    store: redis.Redis, phases: list[tuple[tuple[int, int], list[tuple[int, int, int, int]]]]
) -> None:
    """Updated, run in the new format, and rolled back: no window exceeds its limit, and no value is corrupt."""
    store.flushdb()
    gates, now_ms, latest_ms, admitted, holds = _gates(store), START_MS, START_MS, [(0, 0)], list[str]()
    for who, steps in phases:
        if OLD in who:
            _rewrite(store, gates[ONE], now_ms, admitted)
        for turn, move_ms, hits, tokens in steps:
            now_ms = max(START_MS, now_ms + move_ms)
            hold = Hold(f"0a1{len(holds)}", 100, 10, 600_000, b"") if tokens and OLD in who else None
            call = draw((SUBJECT,), hits, tokens=tokens, hold=hold)
            latest_ms = max(latest_ms, now_ms)
            if gates[who[turn]](call, now_ms):
                admitted.append((latest_ms, hits))
                holds += [hold.id] if hold else []
            if holds and move_ms == 1 and OLD in who:
                settled = Ledger("0").settle(store.execute_command, [Settlement(holds.pop(), 5)], now_ms=now_ms)
                assert settled.faults == 0
    _assert_held(admitted)


def _rewrite(store: redis.Redis, gate: Admits, now_ms: int, admitted: list[tuple[int, int]]) -> None:
    """Bring what there is to format 1, as a call of a gate that writes it does; forget it where none fits."""
    key = budget_key("0", SUBJECT.name)
    value = store.get(key)
    if value is None or value[:1] == b"\1":
        return
    if gate(draw((SUBJECT,), 1), now_ms):
        admitted.append((max(now_ms, admitted[-1][0]), 1))
    else:
        store.delete(key)
        admitted[:] = [(0, 0)]


@pytest.mark.parametrize(("first", "then"), [(OLD, ONE), (ONE, OLD), (OLD, TWO), (ONE, TWO), (TWO, ONE)])
@pytest.mark.parametrize("window", [Window.SECOND, Window.MINUTE, Window.HOUR, Window.DAY, Window.TOKENS_HOUR])
def test_what_one_has_counted_the_other_counts(store: redis.Redis, first: int, then: int, window: Window) -> None:
    """Units in every bucket of a window, taken by one gate: the next knows each of them, and none is free early."""
    span, bucket_ms = window.value.n * window.value.bucket_ms, window.value.bucket_ms
    beside = Window.MINUTE if window is Window.HOUR else Window.HOUR  # so that no value ends while the machine is busy
    subject, gates = Subject("p:1", (Budget(window, 60), Budget(beside, 10**9))), _gates(store)
    times = [
        START_MS + place * bucket_ms + bucket_ms * 2 // 3 for place in range(min(window.value.n, 48))
    ]  # of a day all, too
    for at_ms in times:
        assert gates[first](draw((subject,), tokens=1), at_ms)
    assert gates[then](draw((subject,), tokens=1), times[-1])
    left = 60 - len(times) - 1
    assert not gates[then](draw((subject,), left + 1, tokens=left + 1), times[-1])
    assert not left or gates[then](draw((subject,), left, tokens=left), times[-1])
    assert not gates[then](draw((subject,), tokens=1), times[0] + span)
    assert gates[then](draw((subject,), tokens=1), times[0] + span + bucket_ms)  # its bucket is over by now
    assert not gates[then](draw((subject,), 2, tokens=2), times[0] + span + bucket_ms)
    assert gates[then](draw((subject,), 60, tokens=60), times[-1] + 2 * (span + bucket_ms))


def test_units_that_format_1_has_no_room_for_stay(store: redis.Redis) -> None:
    """A value that counts what only format 2 knows stays in format 2, whatever is to be written."""
    subject, gates = Subject("p:1", (Budget(Window.WEEK, 2), Budget(Window.HOUR, 9))), _gates(store)
    assert gates[ONE](draw((subject,)), START_MS)
    assert (store.get(budget_key("0", "p:1")) or b"")[:1] == b"\2"
    assert gates[ONE](draw((subject,)), START_MS)
    assert not gates[ONE](draw((subject,)), START_MS)


def test_the_largest_numbers_of_format_1_are_read(store: redis.Redis) -> None:
    """A section of the release before that says 'so many or more' counts what its buckets hold, and no less."""
    subject, gates = Subject("p:1", (Budget(Window.TOKENS_HOUR, 10**10),)), _gates(store)
    minute = START_MS // 60_000
    most = (4_000_000_000).to_bytes(4, "little")
    entries = b"".join(bytes(((minute - age) % 256,)) + most for age in (2, 1))
    section = b"\5" + minute.to_bytes(6, "little") + most + most + b"\2" + entries
    for stored_format in (ONE, TWO):
        store.set(budget_key("0", "p:1"), b"\1" + section, px=3_600_000)
        assert not gates[stored_format](draw((subject,), tokens=1), START_MS)
        later_ms = START_MS + 59 * 60_000
        assert gates[stored_format](draw((subject,), tokens=2_000_000_000), later_ms)  # one of the three is free
        assert not gates[stored_format](draw((subject,), tokens=1), later_ms)


def test_values_are_rewritten_for_a_rollback(limiter: Limiter, store: redis.Redis) -> None:
    """All that counts is there in format 1; what counts nothing any more goes, and damage stays as it is."""
    gates, names = _gates(store), ("p:1", "p:2", "p:3", "p:4")
    for name in names[:2]:
        assert gates[TWO](draw((Subject(name, SUBJECT.budgets),), 2, tokens=9), START_MS)
    store.set(budget_key("0", "p:2"), store.get(budget_key("0", "p:1")) or b"", px=10**8)
    store.set(budget_key("0", "p:3"), b"broken", px=10**8)
    assert limiter.rewrite(store.execute_command, names, epoch="", now_ms=START_MS) == 3
    assert [(store.get(budget_key("0", name)) or b"")[:1] for name in names] == [b"\1", b"\1", b"b", b""]
    assert not gates[OLD](draw((Subject("p:1", SUBJECT.budgets),), 2), START_MS)
    assert gates[OLD](draw((Subject("p:1", SUBJECT.budgets),), 1, tokens=41), START_MS)
    assert not gates[ONE](draw((Subject("p:1", SUBJECT.budgets),), 0, tokens=1), START_MS)
    assert limiter.rewrite(store.execute_command, names[:2], epoch="", now_ms=START_MS + 3 * 86_400_000) == 2
    assert not store.exists(budget_key("0", "p:1"))
    assert limiter.rewrite(store.execute_command, names, epoch="9-0123456789abcdef") is None


def test_what_is_held_is_given_back_whatever_format_it_was_brought_to(store: redis.Redis) -> None:
    """Held in format 2, rewritten in 1 and settled: a caller is not told to ask again soon for units that are spent."""
    limiters = [
        Limiter(cell="0", epoch_key=EPOCH_KEY, feed_key=FEED_KEY, writes_format=lambda one=one: one) for one in (1, 2)
    ]
    subject, minute_ms, execute = Subject("p:1", (Budget(Window.TOKENS_HOUR, 100),)), 60_000, store.execute_command
    holding = draw((subject,), tokens=60, hold=Hold("r", 100, 10, 600_000, b""))
    limiters[1].take(execute, [holding], epoch="", now_ms=START_MS)
    limiters[0].take(execute, [draw((subject,), tokens=30)], epoch="", now_ms=START_MS + 2 * minute_ms)
    looks = [draw((subject,), tokens=20)]
    (grant,) = limiters[0].take(execute, looks, epoch="", now_ms=START_MS + 3 * minute_ms, look=True).grants
    assert (grant.answer, grant.held) == (Answer.REFUSED, 60)
    Ledger("0").settle(execute, [Settlement("r", 60)], now_ms=START_MS + 3 * minute_ms)
    for limiter in limiters:
        (grant,) = limiter.take(execute, looks, epoch="", now_ms=START_MS + 4 * minute_ms, look=True).grants
        assert (grant.answer, grant.held, grant.retry_at_ms) == (Answer.REFUSED, 0, START_MS + 61 * minute_ms)
