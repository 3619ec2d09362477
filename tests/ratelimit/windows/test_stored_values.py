"""What the script leaves in the store: nothing for refusals and looks, one value a subject, no longer than needed."""

from __future__ import annotations

import random
import struct

import pytest
import redis

from ratelimit.names import budget_key
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import Answer, Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.window import bucket_of, release_ms
from tests.ratelimit.windows import histories
from tests.support.draws import draw

NOW_MS = 1_800_000_000_000
LEDGER = Ledger("0")
BURST = Subject("p:1", (Budget(Window.SECOND, 2), Budget(Window.HOUR, 9)))


BOTH = pytest.mark.parametrize("stored_format", [1, 2])


def _dump(store: redis.Redis) -> dict[bytes, tuple[bytes, int]]:
    """Every key's value and the instant at which it ends."""
    return {key: (store.dump(key), store.execute_command("PEXPIRETIME", key)) for key in store.scan_iter()}


@BOTH
def test_a_refused_batch_changes_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """Refused, never fitting and expired calls leave every key and its time to live as they were."""
    full = draw((BURST,), usage=("p:1",))
    execute = store.execute_command
    limiter.take(execute, [full, full], epoch="", now_ms=NOW_MS)
    before = _dump(store)
    other = Subject("k:1", (Budget(Window.MINUTE, 5),))
    charges = [
        full,
        draw((other, BURST), usage=("k:1", "p:1")),
        draw((other,), hits=6),
        draw((other,), valid_until_ms=1),
    ]
    taken = limiter.take(execute, charges, epoch="", now_ms=NOW_MS + 900)
    answers = [grant.answer for grant in taken.grants]
    assert answers == [Answer.REFUSED, Answer.REFUSED, Answer.NEVER_FITS, Answer.EXPIRED]
    assert _dump(store) == before


def test_a_refused_call_of_a_batch_changes_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """Among admitted calls a refused one leaves no trace in the budgets that had room for it."""
    other = Subject("k:1", (Budget(Window.MINUTE, 5),))
    calls = [draw((BURST,))] * 2 + [draw((other, BURST), usage=("k:1",))] + [draw((other,))]
    taken = limiter.take(store.execute_command, calls, epoch="", now_ms=NOW_MS)
    assert taken.grants[2].answer is Answer.REFUSED
    assert taken.grants[3].states[0].remaining == 4


def test_a_look_changes_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """A look answers as the taking would, and neither counts nor writes."""
    charges = [draw((BURST,), usage=("p:1",))] * 3
    for _ in range(2):
        looked = limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS, look=True)
        assert not store.dbsize()
    taken = limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS)
    assert looked.grants == taken.grants


TRAILING = [window for window in Window if window.value.n]


@BOTH
@pytest.mark.parametrize("window", TRAILING)
def test_no_value_outlives_its_longest_window_by_more_than_a_bucket(
    limiter: Limiter, store: redis.Redis, window: Window
) -> None:
    """The time to live is the subject's longest window and one bucket, at each write anew."""
    windows = [other for other in TRAILING if other.value.id <= window.value.id]
    subject = Subject("p:1", tuple(Budget(each, 5) for each in windows))
    limiter.take(store.execute_command, [draw((subject,), tokens=1, more=(1, 1, 1, 1))], epoch="")
    ttl_ms = store.pttl(budget_key("0", "p:1"))
    longest_ms = max(each.value.window_ms + each.value.bucket_ms for each in windows)
    assert 0 < longest_ms - 30_000 < ttl_ms <= longest_ms or (longest_ms < 30_000 and -2 <= ttl_ms <= longest_ms)


@pytest.mark.parametrize("window", [Window.UTC_DAY, Window.UTC_MONTH])
def test_the_value_of_a_calendar_period_ends_with_it(limiter: Limiter, store: redis.Redis, window: Window) -> None:
    """What a day or a month has counted is of no use behind its end."""
    subject = Subject("p:1", (Budget(window, 5),))
    limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=NOW_MS)
    left_ms = release_ms(bucket_of(NOW_MS, window.value), window.value) - NOW_MS
    assert left_ms - 60_000 < store.pttl(budget_key("0", "p:1")) <= left_ms


@BOTH
def test_a_lifted_limit_shortens_the_value(limiter: Limiter, store: redis.Redis) -> None:
    """With the hour's limit its units and its time to live go at the next write."""
    execute, key = store.execute_command, budget_key("0", "p:1")
    both = Subject("p:1", (Budget(Window.MINUTE, 5), Budget(Window.HOUR, 5)))
    minute = Subject("p:1", (Budget(Window.MINUTE, 5),))
    limiter.take(execute, [draw((both,))], epoch="", now_ms=NOW_MS)
    long = len(store.get(key))
    limiter.take(execute, [draw((minute,))], epoch="", now_ms=NOW_MS)
    assert len(store.get(key)) < long
    assert store.pttl(key) <= 61_000


@pytest.mark.parametrize("stored_format", [2])
def test_the_value_stays_small(limiter: Limiter, store: redis.Redis) -> None:
    """However long the history: at most 27 bytes a window and 7 a bucket before the newest that holds units."""
    most = 1 + sum(27 + 7 * window.value.n for window in (*histories.WINDOWS, Window.HOUR))
    for step in histories.long(11, 1_000):
        limiter.take(store.execute_command, step.charges, epoch="", now_ms=step.now_ms)
    assert all(len(store.get(key)) <= most for key in store.scan_iter("tk:budget:*"))


def test_two_versions_of_a_subject_share_its_units(limiter: Limiter, store: redis.Redis) -> None:
    """Calls that hold an older and a newer limit of one subject are counted together, each under its own limit."""
    old, new = Subject("p:1", (Budget(Window.MINUTE, 3),)), Subject("p:1", (Budget(Window.MINUTE, 2),))
    charges = [draw((old,)), draw((new,)), draw((new,)), draw((old,)), draw((old,))]
    taken = limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS)
    answers = [grant.answer is Answer.ADMITTED for grant in taken.grants]
    assert answers == [True, True, False, True, False]
    assert [grant.states[0].remaining for grant in taken.grants] == [2, 0, 0, 0, 0]


def test_a_clock_step_is_counted_once(limiter: Limiter, store: redis.Redis) -> None:
    """A window ahead of the clock is one step, however many calls and versions of its subject meet it."""
    old, new = Subject("p:1", (Budget(Window.MINUTE, 3),)), Subject("p:1", (Budget(Window.MINUTE, 2),))
    limiter.take(store.execute_command, [draw((old,))], epoch="", now_ms=NOW_MS)
    taken = limiter.take(
        store.execute_command, [draw((old,)), draw((new,)), draw((old,))], epoch="", now_ms=NOW_MS - 5_000
    )
    assert taken.clock_steps == 1


STEP_MS = 2 * 3_600_000
"""A clock that steps back by this much lies behind every bucket by more than the longest of these windows."""


@pytest.mark.parametrize("window", [Window.SECOND, Window.MINUTE, Window.HOUR, Window.TOKENS_HOUR])
def test_a_clock_that_steps_back_ends_no_value_before_its_units_are_free(
    limiter: Limiter, store: redis.Redis, window: Window
) -> None:
    """Written after the step, the value lives until the clock has caught up and the window has passed; held or not."""
    subject, execute = Subject("p:1", (Budget(window, 9),)), store.execute_command
    shape, hold = window.value, Hold("r", 3, 3, 5_000, b"") if window.value.counts_tokens else None
    limiter.take(execute, [draw((subject,), tokens=3)], epoch="", now_ms=NOW_MS)
    limiter.take(execute, [draw((subject,), tokens=3, hold=hold)], epoch="", now_ms=NOW_MS - STEP_MS)
    free_ms = (NOW_MS // shape.bucket_ms + shape.n + 1) * shape.bucket_ms
    left_ms, slack_ms = store.pttl(budget_key("0", "p:1")), 60_000
    assert free_ms - (NOW_MS - STEP_MS) - slack_ms < left_ms <= STEP_MS + shape.window_ms + shape.bucket_ms
    LEDGER.settle(execute, [Settlement("r", 3)], sweep=0, now_ms=NOW_MS - STEP_MS)
    assert store.pttl(budget_key("0", "p:1")) > free_ms - (NOW_MS - STEP_MS) - slack_ms


@BOTH
def test_a_clock_that_was_years_ahead_stops_nobody_for_longer_than_a_day(limiter: Limiter, store: redis.Redis) -> None:
    """A step back by more than a day is followed for a day only: the value ends then, and its windows with it."""
    charge, year_ms = draw((Subject("p:1", (Budget(Window.HOUR, 9),)),)), 365 * 24 * 3_600_000
    limiter.take(store.execute_command, [charge], epoch="", now_ms=NOW_MS + 10 * year_ms)
    limiter.take(store.execute_command, [charge], epoch="", now_ms=NOW_MS)
    assert store.pttl(budget_key("0", "p:1")) <= (24 + 1) * 3_600_000 + 60_000


def _stored(limiter: Limiter, store: redis.Redis) -> bytes:
    """A value with three windows and several entries in each."""
    subject = Subject("p:1", tuple(Budget(window, 50) for window in histories.WINDOWS))
    for now_ms in range(NOW_MS, NOW_MS + 1_000, 220):
        limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=now_ms)
    value = store.get(budget_key("0", "p:1"))
    assert isinstance(value, bytes)
    return value


@BOTH
def test_a_corrupt_value_fails_only_the_calls_that_need_it(limiter: Limiter, store: redis.Redis) -> None:
    """Calls on the broken subject are told so and change nothing; the others of the batch are decided."""
    store.set(budget_key("0", "p:1"), b"broken", px=60_000)
    sound = Subject("k:1", (Budget(Window.MINUTE, 5),))
    charges = [draw((sound,)), draw((sound, BURST), usage=("p:1",)), draw((sound,))]
    taken = limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS)
    assert [grant.answer for grant in taken.grants] == [Answer.ADMITTED, Answer.CORRUPT, Answer.ADMITTED]
    assert taken.grants[2].states[0].remaining == 3
    assert store.get(budget_key("0", "p:1")) == b"broken"


def _section(window: int, newest: int, units: int, total: int, *entries: tuple[int, int]) -> bytes:
    """Write a section of format 1 as the script says; entries are (bucket, units), oldest first."""
    head = struct.pack("<BQ", window, newest)[:7] + struct.pack("<IIB", units, total, len(entries))
    return head + b"".join(struct.pack("<BI", bucket % 256, held) for bucket, held in entries)


def _six(number: int) -> bytes:
    return number.to_bytes(6, "little")


def _section2(
    window: int, newest: int, units: int, total: int, *entries: tuple[int, int], held: int = 0, kind: int = 0
) -> bytes:
    """The same of format 2."""
    head = bytes((kind, window)) + _six(newest) + _six(units) + _six(total) + _six(held) + bytes((len(entries),))
    return head + b"".join(bytes((bucket % 256,)) + _six(counted) for bucket, counted in entries)


SECOND_AT, MINUTE_AT = NOW_MS // 50, NOW_MS // 1_000
SOUND = _section(1, SECOND_AT, 1, 6, (SECOND_AT - 20, 2), (SECOND_AT - 1, 3))
SOUND2 = _section2(1, SECOND_AT, 1, 6, (SECOND_AT - 20, 2), (SECOND_AT - 1, 3))
UNSOUND2 = {
    "an unknown format": b"\x03" + SOUND2,
    "no format": b"",
    "the same window twice": b"\x02" + SOUND2 + SOUND2,
    "windows out of order": b"\x02" + _section2(2, MINUTE_AT, 1, 1) + SOUND2,
    "kinds out of order": b"\x02" + _section2(3, MINUTE_AT, 1, 1, kind=1) + SOUND2,
    "a newest bucket without units": b"\x02" + _section2(1, SECOND_AT, 0, 1, (SECOND_AT - 1, 1)),
    "more in the newest bucket than in all": b"\x02" + _section2(1, SECOND_AT, 2, 1),
    "units of no bucket": b"\x02" + _section2(1, SECOND_AT, 1, 2),
    "entries without units": b"\x02" + _section2(1, SECOND_AT, 1, 1, (SECOND_AT - 1, 1)),
    "an entry as old as never kept": b"\x02" + _section2(1, SECOND_AT, 1, 2, (SECOND_AT - 21, 1)),
    "an entry of the newest bucket": b"\x02" + _section2(1, SECOND_AT, 1, 2, (SECOND_AT, 1)),
    "more held than counted": b"\x02" + _section2(1, SECOND_AT, 1, 1, held=2),
    "a calendar day with a day before it": b"\x02" + _section2(6, NOW_MS // 86_400_000, 1, 2, (0, 1)),
    "dropped entries out of order": b"\x02"
    + _section2(1, SECOND_AT - 5, 1, 4, (SECOND_AT - 22, 1), (SECOND_AT - 23, 1), (SECOND_AT - 6, 1)),
}
UNSOUND = {
    "an unknown format": b"\x03" + SOUND,
    "the same window twice": b"\x01" + SOUND + SOUND,
    "the day's buckets out of order": b"\x01" + _section(4, 2_000_000, 1, 3, (1_999_998, 1), (1_999_997, 1)),
    "the day's units of no bucket": b"\x01" + _section(4, 2_000_000, 1, 3, (1_999_998, 1)),
    "windows out of order": b"\x01" + _section(2, MINUTE_AT, 1, 1) + SOUND,
    "a newest bucket without units": b"\x01" + _section(1, SECOND_AT, 0, 1, (SECOND_AT - 1, 1)),
    "more in the newest bucket than in all": b"\x01" + _section(1, SECOND_AT, 2, 1),
    "units of no bucket": b"\x01" + _section(1, SECOND_AT, 1, 2),
    "entries without units": b"\x01" + _section(1, SECOND_AT, 1, 1, (SECOND_AT - 1, 1)),
    "an entry as old as never kept": b"\x01" + _section(1, SECOND_AT, 1, 2, (SECOND_AT - 21, 1)),
    "an entry of the newest bucket": b"\x01" + _section(1, SECOND_AT, 1, 2, (SECOND_AT, 1)),
    "dropped entries out of order": b"\x01"
    + _section(1, SECOND_AT - 5, 1, 4, (SECOND_AT - 22, 1), (SECOND_AT - 23, 1), (SECOND_AT - 6, 1)),
}


def _look(limiter: Limiter, store: redis.Redis, value: bytes) -> Answer:
    store.set(budget_key("0", "p:1"), value, px=60_000)
    subject = Subject("p:1", (Budget(Window.SECOND, 50), Budget(Window.MINUTE, 50)))
    taken = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=NOW_MS, look=True)
    return taken.grants[0].answer


def test_a_sound_value_is_read(limiter: Limiter, store: redis.Redis) -> None:
    """The form written down in the script's header is the form it reads."""
    assert _look(limiter, store, b"\x01" + SOUND + _section(2, MINUTE_AT, 6, 6)) is Answer.ADMITTED
    assert _look(limiter, store, b"\x02" + SOUND2 + _section2(2, MINUTE_AT, 6, 6)) is Answer.ADMITTED


@pytest.mark.parametrize("value", [*UNSOUND.values(), *UNSOUND2.values()], ids=[*UNSOUND, *UNSOUND2])
def test_an_unsound_value_is_corrupt(limiter: Limiter, store: redis.Redis, value: bytes) -> None:
    """What the script would never write is not guessed at."""
    assert _look(limiter, store, value) is Answer.CORRUPT


@BOTH
def test_every_cut_of_a_value_is_found(limiter: Limiter, store: redis.Redis) -> None:
    """A value cut off anywhere but between two windows cannot be read."""
    value = _stored(limiter, store)
    subject = Subject("p:1", (Budget(Window.SECOND, 50),))
    sound = []
    for length in range(len(value)):
        store.set(budget_key("0", "p:1"), value[:length], px=60_000)
        taken = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=NOW_MS, look=True)
        if taken.grants[0].answer is not Answer.CORRUPT:
            sound.append(length)
    assert len(sound) == 3  # no window, the first, the first two


@BOTH
def test_no_garbage_breaks_the_script(limiter: Limiter, store: redis.Redis) -> None:
    """Whatever bytes stand in a value, the call is decided or told CORRUPT; the script never fails."""
    value, dice = _stored(limiter, store), random.Random(5)  # noqa: S311  a seed, so that a failure can be repeated
    subject = Subject("p:1", tuple(Budget(window, 50) for window in Window))
    corrupt = 0
    for _ in range(3_000):
        broken = bytearray(value[: dice.randint(0, len(value))] + dice.randbytes(dice.choice((0, 0, 3))))
        for _ in range(dice.randint(0, 4) if broken else 0):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        store.set(budget_key("0", "p:1"), bytes(broken), px=60_000)
        charges = [draw((subject,)), draw((subject,), hits=49)]
        taken = limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS + 1_000)
        corrupt += taken.grants[0].answer is Answer.CORRUPT
        assert all(state.remaining >= 0 for grant in taken.grants for state in grant.states)
    assert 1_000 < corrupt < 3_000


@pytest.mark.parametrize(
    ("stored_format", "later"),
    [(1, _section(200, 7, 1, 1)), (2, _section2(8, 7, 1, 1, kind=1)), (2, _section2(3, 7, 1, 1, kind=6))],
)
def test_a_window_of_a_later_version_is_passed_over(limiter: Limiter, store: redis.Redis, later: bytes) -> None:
    """A value written by a version that knows more windows or kinds can still be read."""
    value = _stored(limiter, store)
    store.set(budget_key("0", "p:1"), value + later, px=60_000)
    subject = Subject("p:1", (Budget(Window.MINUTE, 50),))
    taken = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=NOW_MS + 1_000)
    assert taken.grants[0].states[0].remaining == 44
