"""Reservations: made with the admission, ended once, presumed when nobody tells, put right when somebody tells late."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

import pytest
import redis

from ratelimit.names import budget_key, due_key, held_key, old_rest_key, rest_key, usage_key, usage_past_key
from ratelimit.tokens.ledger import Ledger, Outcome, Settlement
from ratelimit.usage.facts import Used
from ratelimit.usage.past import read_past
from ratelimit.windows.budgets import Answer, Budget, Grant, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.support.draws import draw
from tests.support.settlements import settle

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
KEY = Subject("k:1", (Budget(Window.MINUTE, 50), Budget(Window.TOKENS_HOUR, 1_000)))
PUBLICATION = Subject("p:1", (Budget(Window.TOKENS_HOUR, 5_000),))
LEDGER = Ledger("0")
PATIENCE_MS = 5_000

pytestmark = pytest.mark.parametrize("stored_format", [1, 2])


@pytest.fixture(autouse=True)
def _of_both_formats(stored_format: int) -> None:
    """Have every test run on what gates write before and after all read the newest format."""


def _hold(name: str, *, ceiling: int = 400, presumed: int = 100) -> Hold:
    return Hold(name, ceiling, presumed, PATIENCE_MS, b"terms of " + name.encode())


def _admit(
    limiter: Limiter,
    store: redis.Redis,
    *names: str,
    tokens: int = 300,
    now_ms: int = NOW_MS,
    ceiling: int = 400,
) -> list[Answer]:
    holds = [_hold(name, ceiling=ceiling) for name in names]
    charges = [draw((KEY, PUBLICATION), tokens=tokens, hold=hold, usage=("k:1", "p:1")) for hold in holds]
    taken = limiter.take(store.execute_command, charges, epoch="", now_ms=now_ms)
    return [grant.answer for grant in taken.grants]


def _remaining(limiter: Limiter, store: redis.Redis, now_ms: int = NOW_MS) -> list[int]:
    """What is left of the key's minute and tokens and of the publication's tokens."""
    look = [draw((KEY, PUBLICATION), tokens=0, hits=(0, 0))]
    (grant,) = limiter.take(store.execute_command, look, epoch="", now_ms=now_ms, look=True).grants
    return [state.remaining for state in grant.states]


def _settle(store: redis.Redis, *ended: tuple[str, int], now_ms: int = NOW_MS, sweep: int = 0) -> list[Outcome]:
    settled = settle(store.execute_command, LEDGER, [Settlement(*one) for one in ended], sweep=sweep, now_ms=now_ms)
    assert settled.faults == 0
    return list(settled.outcomes)


def test_an_admission_reserves_and_a_settlement_gives_back_the_rest(limiter: Limiter, store: redis.Redis) -> None:
    """Tokens are held in every budget from the admission on; what was not used is free again at once."""
    assert _admit(limiter, store, "a", "b") == [Answer.ADMITTED] * 2
    assert _remaining(limiter, store) == [48, 400, 4_400]
    assert _settle(store, ("a", 40)) == [Outcome.SETTLED]
    assert _remaining(limiter, store) == [48, 660, 4_660]
    assert _settle(store, ("b", 0)) == [Outcome.SETTLED]
    assert _remaining(limiter, store) == [48, 960, 4_960]
    assert not store.exists(held_key("0"), due_key("0"))


def test_nothing_passes_the_limit_while_it_is_held(limiter: Limiter, store: redis.Redis) -> None:
    """Used and reserved together never pass the limit; a refused call leaves no reservation."""
    assert _admit(limiter, store, "a", "b", "c", "d") == [Answer.ADMITTED] * 3 + [Answer.REFUSED]
    assert store.hlen(held_key("0")) == store.zcard(due_key("0")) == 3
    assert LEDGER.terms(store.execute_command, ["a", "d"]) == [b"terms of a", None]


def test_it_is_settled_once(limiter: Limiter, store: redis.Redis) -> None:
    """Repeated and forged settlements change nothing, in one script or in several."""
    _admit(limiter, store, "a")
    assert _settle(store, ("a", 100), ("a", 0), ("x", 0)) == [Outcome.SETTLED, Outcome.UNKNOWN, Outcome.UNKNOWN]
    assert _settle(store, ("a", 0)) == [Outcome.UNKNOWN]
    assert _remaining(limiter, store) == [49, 900, 4_900]


def test_more_than_was_held_is_charged_up_to_the_ceiling(limiter: Limiter, store: redis.Redis) -> None:
    """What a model's server claims is believed up to what the call can have cost."""
    _admit(limiter, store, "a", "b", tokens=100)
    assert _settle(store, ("a", 250), ("b", 10**9)) == [Outcome.SETTLED] * 2
    assert _remaining(limiter, store) == [48, 350, 4_350]


def test_what_nobody_settles_is_presumed(limiter: Limiter, store: redis.Redis) -> None:
    """Not before its time, once, and only as many at a time as are asked for; the reservation is then no more."""
    _admit(limiter, store, "a", "b")
    early = settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS - 1)
    assert (early.presumed, early.forgotten) == (0, 0)
    first = settle(store.execute_command, LEDGER, [], sweep=1, now_ms=NOW_MS + PATIENCE_MS)
    assert (first.presumed, first.presumed_tokens) == (1, 100)
    assert _remaining(limiter, store) == [48, 600, 4_600]
    again = settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS)
    assert (again.presumed, again.forgotten) == (1, 0)
    assert _remaining(limiter, store) == [48, 800, 4_800]
    assert settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS).presumed == 0


@pytest.mark.parametrize("real", [0, 60, 350])
def test_a_late_settlement_replaces_what_was_presumed(limiter: Limiter, store: redis.Redis, real: int) -> None:
    """While its bucket is counted; then it is forgotten."""
    _admit(limiter, store, "a")
    settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS)
    late_ms = NOW_MS + 59 * MINUTE_MS
    assert _settle(store, ("a", real), now_ms=late_ms) == [Outcome.REPLACED]
    assert _remaining(limiter, store, late_ms)[1:] == [1_000 - real, 5_000 - real]
    assert _settle(store, ("a", 1), now_ms=late_ms) == [Outcome.UNKNOWN]


def test_what_was_presumed_is_forgotten_with_its_bucket(limiter: Limiter, store: redis.Redis) -> None:
    """Once it is counted no more the ledger keeps nothing of it."""
    _admit(limiter, store, "a")
    settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS)
    swept = settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + HOUR_MS + MINUTE_MS)
    assert (swept.presumed, swept.forgotten) == (0, 1)
    assert not store.exists(held_key("0"), due_key("0"))


def test_a_settlement_finds_the_bucket_of_its_admission(limiter: Limiter, store: redis.Redis) -> None:
    """What is given back is given back where it was counted: the window rolls on as if it had never been taken."""
    _admit(limiter, store, "a")
    _admit(limiter, store, "b", now_ms=NOW_MS + 10 * MINUTE_MS)
    _settle(store, ("a", 100), now_ms=NOW_MS + 11 * MINUTE_MS)
    assert _remaining(limiter, store, NOW_MS + 61 * MINUTE_MS - 1)[1] == 600
    assert _remaining(limiter, store, NOW_MS + 61 * MINUTE_MS)[1] == 700
    _settle(store, ("b", 0), now_ms=NOW_MS + 62 * MINUTE_MS)
    assert _remaining(limiter, store, NOW_MS + 62 * MINUTE_MS)[1] == 1_000


def test_a_settlement_after_its_window_changes_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """What is counted no more cannot be given back to anybody."""
    late_ms = NOW_MS + HOUR_MS + MINUTE_MS
    _admit(limiter, store, "a")
    _admit(limiter, store, "b", now_ms=late_ms)
    assert _settle(store, ("a", 0), now_ms=late_ms) == [Outcome.SETTLED]
    assert _remaining(limiter, store, late_ms)[1] == 700


def test_a_call_without_token_budgets_is_settled_too(limiter: Limiter, store: redis.Redis) -> None:
    """Its tokens are counted as usage."""
    plain = Subject("k:1", (Budget(Window.MINUTE, 50),))
    charge = draw((plain,), tokens=10, hold=_hold("a"), usage=("k:1",))
    limiter.take(store.execute_command, [charge], epoch="", now_ms=NOW_MS)
    assert _settle(store, ("a", 77)) == [Outcome.SETTLED]
    assert store.hget(usage_key("0", "k:1"), "tokens") == b"77"


def test_tokens_are_counted_as_usage(limiter: Limiter, store: redis.Redis) -> None:
    """What was charged, put right by a late settlement; never under a name that is gone."""
    _admit(limiter, store, "a", "b")
    store.delete(usage_key("0", "p:1"))
    _settle(store, ("a", 30))
    settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS)
    assert store.hget(usage_key("0", "k:1"), "tokens") == b"130"
    _settle(store, ("b", 20), now_ms=NOW_MS + MINUTE_MS)
    assert store.hget(usage_key("0", "k:1"), "tokens") == b"50"
    assert not store.exists(usage_key("0", "p:1"))
    _admit(limiter, store, "c", now_ms=NOW_MS + 2 * MINUTE_MS)
    minute = NOW_MS // MINUTE_MS
    past = read_past(store.get(usage_past_key("0", "k:1")))
    assert past.minutes == {minute: Used(2, 130), minute + 1: Used(0, -80)}


def test_a_look_and_a_refusal_reserve_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """Only what is admitted is held."""
    charges = [draw((KEY,), tokens=1_001, hold=_hold("a")), draw((KEY,), tokens=1, hold=_hold("b"))]
    limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS, look=True)
    assert not store.exists(held_key("0"), due_key("0"))
    limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS)
    assert store.hkeys(held_key("0")) == [b"b"]


def test_no_garbage_breaks_the_script(limiter: Limiter, store: redis.Redis) -> None:
    """Whatever stands in a reservation or a budget value: it is settled or told, never a failing script."""
    dice = random.Random(7)  # noqa: S311  a seed, so that a failure can be repeated
    seen = set()
    for _ in range(600):
        store.delete(held_key("0"), due_key("0"), budget_key("0", "k:1"), budget_key("0", "p:1"))
        _admit(limiter, store, "a")
        if dice.random() < 0.5:
            record = _broken(dice, store.hget(held_key("0"), "a"))
            store.hset(held_key("0"), "a", record.replace(b"tk:budget:{1", b"tk:budget:{0"))
        else:
            store.set(budget_key("0", "k:1"), _broken(dice, store.get(budget_key("0", "k:1"))), px=60_000)
        LEDGER.terms(store.execute_command, ["a"])
        settled = settle(store.execute_command, LEDGER, [Settlement("a", 5)], now_ms=NOW_MS)
        seen.add((settled.outcomes[0], settled.faults > 0))
        assert not store.hexists(held_key("0"), "a")
    assert {(Outcome.SETTLED, False), (Outcome.SETTLED, True), (Outcome.CORRUPT, False)} <= seen


def _broken(dice: random.Random, value: bytes) -> bytes:
    """Cut it off, or change a byte before the names that it holds."""
    cut = bytearray(value[: dice.randint(0, len(value))] if dice.random() < 0.5 else value)
    if cut and dice.random() < 0.7:
        cut[dice.randrange(min(len(cut), 40))] = dice.randrange(256)
    return bytes(cut)


@pytest.mark.parametrize("fault", [{"tokens": -1}, {"sweep": -1}, {"sweep": 1_001}])
def test_nonsense_is_not_sent(store: redis.Redis, fault: dict[str, int]) -> None:
    """A malformed batch is the caller's mistake."""
    with pytest.raises(ValueError, match=r"tokens|overdue"):
        LEDGER.settle(
            store.execute_command, [Settlement("a", fault.get("tokens", 0))], sweep=fault.get("sweep", 0), now_ms=NOW_MS
        )


def _asked(limiter: Limiter, store: redis.Redis, now_ms: int = NOW_MS) -> Grant:
    charge = draw((KEY, PUBLICATION), tokens=300)
    (grant,) = limiter.take(store.execute_command, [charge], epoch="", now_ms=now_ms, look=True).grants
    return grant


def test_what_only_held_tokens_refuse_may_be_asked_again_soon(limiter: Limiter, store: redis.Redis) -> None:
    """As long as it fits what is really spent; where it does not, it is told when enough of that is free."""
    _admit(limiter, store, "a", "b", "c")
    refused = _asked(limiter, store)
    assert (refused.answer, refused.held, refused.retry_at_ms) == (Answer.REFUSED, 900, NOW_MS + 1_200)
    assert refused.refused_by is not None
    assert refused.refused_by.subject is KEY
    _settle(store, ("a", 400), ("b", 400))
    assert _admit(limiter, store, "d", tokens=100) == [Answer.REFUSED]
    exact = _asked(limiter, store)
    assert (exact.answer, exact.held, exact.retry_at_ms) == (Answer.REFUSED, 0, NOW_MS + 61 * MINUTE_MS)
    _settle(store, ("c", 20))
    assert _admit(limiter, store, "d", tokens=100) == [Answer.ADMITTED]


def test_what_is_presumed_is_held_no_more(limiter: Limiter, store: redis.Redis) -> None:
    """Nobody is told to ask again soon for tokens that a sweep has charged."""
    for name in "abc":
        hold = _hold(name, presumed=300)
        charge = draw((KEY,), tokens=300, hold=hold)
        limiter.take(store.execute_command, [charge], epoch="", now_ms=NOW_MS)
    assert _asked(limiter, store).held == 900
    settle(store.execute_command, LEDGER, [], now_ms=NOW_MS + PATIENCE_MS)
    refused = _asked(limiter, store, NOW_MS + PATIENCE_MS)
    assert (refused.answer, refused.held, refused.retry_at_ms) == (Answer.REFUSED, 0, NOW_MS + 61 * MINUTE_MS)


def test_what_is_held_rolls_on_with_its_window(limiter: Limiter, store: redis.Redis) -> None:
    """Tokens of a reservation that nobody ends are not told as held once they are counted no more."""
    _admit(limiter, store, "a", "b", "c")
    late_ms = NOW_MS + 61 * MINUTE_MS
    assert _admit(limiter, store, "d", "e", "f", now_ms=late_ms) == [Answer.ADMITTED] * 3
    assert _asked(limiter, store, late_ms).held == 900


def test_what_is_held_is_found_again_after_the_clock_stepped_back(limiter: Limiter, store: redis.Redis) -> None:
    """Tokens are held in the bucket in which they are counted, which may lie ahead of the clock."""
    _admit(limiter, store, "a")
    ahead_ms, back_ms = NOW_MS + 3 * MINUTE_MS, NOW_MS + MINUTE_MS
    _admit(limiter, store, "b", now_ms=ahead_ms)
    _settle(store, ("b", 300), now_ms=ahead_ms)
    _admit(limiter, store, "c", now_ms=back_ms)
    _settle(store, ("a", 300), ("c", 300), now_ms=back_ms)
    refused = _asked(limiter, store, back_ms)
    assert (refused.answer, refused.held, refused.retry_at_ms) == (Answer.REFUSED, 0, NOW_MS + 61 * MINUTE_MS)


def test_an_ending_leaves_no_value_that_cannot_be_read(limiter: Limiter, store: redis.Redis) -> None:
    """A call that held nothing is charged in a bucket far ahead of those that hold units: these are counted no more."""
    _admit(limiter, store, "a")
    _admit(limiter, store, "b", now_ms=NOW_MS + 30 * MINUTE_MS)
    late_ms = NOW_MS + 70 * MINUTE_MS
    charge = draw((PUBLICATION,), tokens=0, hold=_hold("c"))
    limiter.take(store.execute_command, [charge], epoch="", now_ms=late_ms)
    assert _settle(store, ("c", 7), now_ms=late_ms) == [Outcome.SETTLED]
    assert _remaining(limiter, store, late_ms)[2] == 5_000 - 300 - 7


def _dear(limiter: Limiter, store: redis.Redis, count: int, timeout_ms: int = PATIENCE_MS) -> list[str]:
    """Reservations whose endings are dear: each is held in three budgets of its own, with an hour full of buckets."""
    subjects = [
        [Subject(f"{kind}:{number}", (Budget(Window.TOKENS_HOUR, 10**6),)) for kind in "ktp"] for number in range(count)
    ]
    now_ms = int(store.time()[0]) * 1_000
    for minute in range(60, 0, -1):
        charges = [draw(tuple(three), tokens=1) for three in subjects]
        limiter.take(store.execute_command, charges, epoch="", now_ms=now_ms - minute * MINUTE_MS)
    ids = [f"dear-{number}" for number in range(count)]
    held = [
        draw(tuple(three), tokens=100, hold=Hold(name, 400, 50, timeout_ms, b""), usage=(three[0].name,))
        for name, three in zip(ids, subjects, strict=True)
    ]
    limiter.take(store.execute_command, held, epoch="")
    return ids


def _now_us(store: redis.Redis) -> int:
    seconds, microseconds = store.time()
    return int(seconds) * 1_000_000 + int(microseconds)


def _rested(store: redis.Redis) -> None:
    """Wait until settling rests no more."""
    until_us = max(int(store.get(key("0")) or 0) for key in (rest_key, old_rest_key))
    while _now_us(store) <= until_us:
        pass


def test_a_script_ends_as_many_as_fit_its_time(limiter: Limiter, store: redis.Redis) -> None:
    """The first ones, at least one; the others stand, and are ended by the scripts that follow."""
    ids, most_us = _dear(limiter, store, 300), 1_000
    left, spent_us = ids, list[int]()
    while left:
        settled = settle(store.execute_command, LEDGER, [Settlement(one, 5) for one in left], sweep=0, most_us=most_us)
        assert set(settled.outcomes) == {Outcome.SETTLED}
        left = left[len(settled.outcomes) :]
        spent_us.append(settled.spent_us)
        assert store.hlen(held_key("0")) == len(left)
        _rested(store)
    assert len(spent_us) > 2
    assert median(spent_us) <= 5 * most_us  # another process may have had the processor while one of them ran
    total = [int(store.hget(usage_key("0", f"k:{number}"), "tokens") or 0) for number in range(300)]
    assert total == [5] * 300


def test_a_sweep_ends_as_many_as_fit_its_time(limiter: Limiter, store: redis.Redis) -> None:
    """And says that there are more."""
    _dear(limiter, store, 300, timeout_ms=0)
    swept = settle(store.execute_command, LEDGER, [], sweep=300, most_us=1_000)
    assert 0 < swept.presumed < 300
    assert (swept.has_more, swept.spent_us <= 20_000) == (True, True)
    _rested(store)
    assert not settle(store.execute_command, LEDGER, [], sweep=1_000).has_more


def test_one_ending_that_is_dearer_than_the_time_goes_alone(limiter: Limiter, store: redis.Redis) -> None:
    """It is neither left out nor does it take others along."""
    ids = _dear(limiter, store, 3)
    for name in ids:
        left = [Settlement(one, 5) for one in ids[ids.index(name) :]]
        assert settle(store.execute_command, LEDGER, left, sweep=0, most_us=1).outcomes == (Outcome.SETTLED,)
        _rested(store)
    _dear(limiter, store, 3, timeout_ms=0)
    assert settle(store.execute_command, LEDGER, [], sweep=3, most_us=1).presumed == 1


@pytest.mark.parametrize("key", [rest_key, old_rest_key])
def test_settling_rests_as_long_as_it_worked_whoever_settles(
    limiter: Limiter, store: redis.Redis, key: Callable[[str], str]
) -> None:
    """Until then another gate's script does nothing and is told how long; then it does; gates of both releases."""
    ids, began_us = _dear(limiter, store, 200), _now_us(store)
    worked = settle(store.execute_command, LEDGER, [Settlement(one, 5) for one in ids[:199]], sweep=0, most_us=10**6)
    assert int(store.get(rest_key("0")) or 0) - began_us >= 2 * worked.rest_us > 0
    assert worked.rest_us == pytest.approx(worked.spent_us, rel=0.2)
    store.set(key("0"), _now_us(store) + 900_000, px=900)
    refused = settle(store.execute_command, Ledger("0"), [Settlement(ids[199], 5)], sweep=1, most_us=2_000)
    assert (refused.is_resting, refused.outcomes, refused.presumed) == (True, (), 0)
    assert 0 < refused.rest_us <= 900_000
    assert store.hexists(held_key("0"), ids[199])
    _rested(store)
    settled = settle(store.execute_command, Ledger("0"), [Settlement(ids[199], 5)], sweep=0, most_us=2_000)
    assert settled.outcomes == (Outcome.SETTLED,)


def test_a_rest_is_written_under_the_name_of_this_release_alone(limiter: Limiter, store: redis.Redis) -> None:
    """What stands under the old name was written by a gate of the release before: it proves that there is one."""
    (name,) = _dear(limiter, store, 1)
    settle(store.execute_command, LEDGER, [Settlement(name, 5)], sweep=1, most_us=2_000)
    assert (store.exists(rest_key("0")), store.exists(old_rest_key("0"))) == (1, 0)


@pytest.mark.parametrize("garbage", [b"not a number", b"9" * 30, b"-5", b""])
def test_no_garbage_stops_settling(limiter: Limiter, store: redis.Redis, garbage: bytes) -> None:
    """A rest that no script can have meant is none."""
    (name,) = _dear(limiter, store, 1)
    store.set(rest_key("0"), garbage, px=60_000)
    store.set(old_rest_key("0"), garbage, px=60_000)
    settled = settle(store.execute_command, LEDGER, [Settlement(name, 5)], sweep=0, most_us=2_000)
    assert settled.outcomes == (Outcome.SETTLED,)
    assert 0 < store.pttl(rest_key("0")) <= 2_000


def test_a_call_dearer_than_its_hold_is_charged_in_full_where_it_was_counted(
    limiter: Limiter, store: redis.Redis
) -> None:
    """In the bucket of its admission, for as long as that counts: to its last millisecond."""
    _admit(limiter, store, "a", tokens=1, ceiling=10**9)
    assert _settle(store, ("a", 5_000), now_ms=NOW_MS + 30 * MINUTE_MS) == [Outcome.SETTLED]
    assert _remaining(limiter, store, NOW_MS + 61 * MINUTE_MS - 1)[1:] == [0, 0]
    assert _remaining(limiter, store, NOW_MS + 61 * MINUTE_MS)[1:] == [1_000, 5_000]
    assert store.hget(usage_key("0", "p:1"), "tokens") == b"5000"


@pytest.mark.parametrize(("late_ms", "left"), [(61 * MINUTE_MS - 1, 0), (61 * MINUTE_MS, 1_000)])
def test_what_was_not_held_is_counted_to_the_last_moment_of_its_window(
    limiter: Limiter, store: redis.Redis, late_ms: int, left: int
) -> None:
    """Told a millisecond before its bucket counts no more it fills the budget; then it is usage only."""
    _admit(limiter, store, "a", tokens=1, ceiling=10**9)
    assert _settle(store, ("a", 10**9), now_ms=NOW_MS + late_ms) == [Outcome.SETTLED]
    assert _remaining(limiter, store, NOW_MS + late_ms)[1] == left
    assert store.hget(usage_key("0", "p:1"), "tokens") == b"1000000000"


def test_no_number_of_dear_calls_passes_what_a_bucket_can_count(limiter: Limiter, store: redis.Redis) -> None:
    """Sixteen calls of 10^9 in one minute and eight in the next: the budget is full until both are over, then whole."""
    first, second = [f"a{n}" for n in range(16)], [f"b{n}" for n in range(8)]
    assert set(_admit(limiter, store, *first, tokens=1, ceiling=10**9)) == {Answer.ADMITTED}
    next_ms = NOW_MS + MINUTE_MS
    assert set(_admit(limiter, store, *second, tokens=1, ceiling=10**9, now_ms=next_ms)) == {Answer.ADMITTED}
    for name in (*first, *second):
        assert _settle(store, (name, 10**9), now_ms=next_ms) == [Outcome.SETTLED]
        assert _remaining(limiter, store, next_ms)[1:] == [0, 0]
    assert _admit(limiter, store, "c", tokens=1, now_ms=next_ms) == [Answer.REFUSED]
    assert _remaining(limiter, store, NOW_MS + 62 * MINUTE_MS - 1)[1:] == [0, 0]
    assert _remaining(limiter, store, NOW_MS + 62 * MINUTE_MS)[1:] == [1_000, 5_000]
    assert store.hget(usage_key("0", "p:1"), "tokens") == b"24000000000"


def test_a_dear_call_beside_others_leaves_what_they_hold(limiter: Limiter, store: redis.Redis) -> None:
    """What is given back by others later is theirs: the sum is what all were charged, to the token."""
    _admit(limiter, store, "a", "b", "c", tokens=300, ceiling=10**9)
    _settle(store, ("a", 4_000))
    _settle(store, ("b", 7), ("c", 0))
    assert _remaining(limiter, store)[1:] == [0, 5_000 - 4_007]


def test_a_full_budget_refuses_even_what_holds_one_token(limiter: Limiter, store: redis.Redis) -> None:
    """Used, held and this call's hold stay within the limit at every admission, though it may turn out dear."""
    _admit(limiter, store, "a", tokens=1, ceiling=10**9)
    assert _settle(store, ("a", 1_000)) == [Outcome.SETTLED]
    assert _admit(limiter, store, "b", tokens=1) == [Answer.REFUSED]
    assert _admit(limiter, store, "c", tokens=0) == [Answer.ADMITTED]
