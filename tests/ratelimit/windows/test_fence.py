"""The script takes nothing for calls that were decided on records of another epoch, too late, or expired."""

from __future__ import annotations

import pytest
import redis

from ratelimit.windows.budgets import Answer, Budget, Draw, Fence, Subject, Taken, Window
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.conftest import EPOCH_KEY, FEED_KEY
from tests.support.draws import draw

SUBJECT = Subject("p:1", (Budget(Window.MINUTE, 5),))
NOW_MS = 1_800_000_000_000


def _charge(*refs: str, valid_until_ms: int = 0) -> Draw:
    return draw((SUBJECT,), refs=refs, usage=("p:1",), valid_until_ms=valid_until_ms)


def _epoch(counter: int, bits: str = "a") -> str:
    return f"{counter}-{bits * 16}"


def _change(store: redis.Redis, counter: int, refs: str, bits: str = "a") -> str:
    """What a change of records leaves behind."""
    epoch = _epoch(counter, bits)
    store.xadd(FEED_KEY, {"epoch": epoch, "refs": refs}, id=f"{counter}-0")
    store.set(EPOCH_KEY, epoch)
    return epoch


def _take(
    limiter: Limiter,
    store: redis.Redis,
    *charges: Draw,
    epoch: str,
    deadline_ms: int = 0,
) -> Taken:
    return limiter.take(
        store.execute_command,
        charges,
        epoch=epoch,
        deadline_ms=deadline_ms,
        now_ms=NOW_MS,
    )


def _untouched(store: redis.Redis) -> bool:
    return not [*store.scan_iter("tk:budget:*"), *store.scan_iter("tk:usage:*")]


def test_same_epoch_passes(limiter: Limiter, store: redis.Redis) -> None:
    """Calls decided on the epoch in force are taken."""
    epoch = _change(store, 1, "key:a")
    taken = _take(limiter, store, _charge(), epoch=epoch)
    assert (taken.fence, taken.epoch, taken.now_ms) == (Fence.PASSED, epoch, NOW_MS)
    assert taken.grants[0].answer is Answer.ADMITTED


@pytest.mark.parametrize("held", ["", _epoch(1), _epoch(2, "b"), _epoch(3)])
def test_any_other_epoch_is_stale(limiter: Limiter, store: redis.Redis, held: str) -> None:
    """None, older, newer, or the same counter with other random bits: nothing is taken, the one in force is told."""
    epoch = _change(store, 2, "key:a")
    taken = _take(limiter, store, _charge(), epoch=held)
    assert (taken.fence, taken.epoch, taken.grants) == (Fence.STALE, epoch, ())
    assert _untouched(store)


def test_a_lost_epoch_is_stale(limiter: Limiter, store: redis.Redis) -> None:
    """A store that lost everything has no epoch; whoever holds one is stale."""
    taken = _take(limiter, store, _charge(), epoch=_epoch(1))
    assert (taken.fence, taken.epoch) == (Fence.STALE, "")
    assert _untouched(store)


def test_late_takes_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """Up to the deadline, by the store's clock, calls are taken; after it none is."""
    assert _take(limiter, store, _charge(), epoch="", deadline_ms=NOW_MS).fence is Fence.PASSED
    store.flushdb()
    taken = _take(limiter, store, _charge(), epoch="", deadline_ms=NOW_MS - 1)
    assert (taken.fence, taken.now_ms, taken.grants) == (Fence.LATE, NOW_MS, ())
    assert _untouched(store)


def test_the_stores_own_clock(limiter: Limiter, store: redis.Redis) -> None:
    """Without a time of ours the script goes by the store's clock: deadlines, windows and the reply."""
    seconds, microseconds = store.time()
    store_ms = seconds * 1000 + microseconds // 1000
    execute = store.execute_command
    assert 0 <= limiter.take(execute, [_charge()], epoch="").now_ms - store_ms < 60_000
    assert limiter.take(execute, [_charge()], epoch="", deadline_ms=store_ms - 1).fence is Fence.LATE
    assert limiter.take(execute, [_charge()], epoch="", deadline_ms=store_ms + 600_000).fence is Fence.PASSED


def test_expiry_goes_by_the_stores_clock(limiter: Limiter, store: redis.Redis) -> None:
    """A call is good until, and not at, the end of what it was decided on; others of its batch are not touched."""
    charges = [_charge(valid_until_ms=NOW_MS + 1), _charge(valid_until_ms=NOW_MS), _charge()]
    taken = _take(limiter, store, *charges, epoch="")
    assert [grant.answer for grant in taken.grants] == [Answer.ADMITTED, Answer.EXPIRED, Answer.ADMITTED]
    assert taken.grants[2].states[0].remaining == 3


def test_by_records_refuses_only_what_changed(limiter: Limiter, store: redis.Redis) -> None:
    """Foreign changes stop nobody: only calls whose own records are named since their epoch are stale."""
    base = _change(store, 7, "key:base")
    _change(store, 8, "key:b pub:x")
    current = _change(store, 9, "tenant:t")
    charges = [
        _charge("key:a", "pub:y"),
        _charge("key:b", "pub:y"),
        _charge("key:a", "tenant:t"),
        _charge("key:base"),  # changed by the epoch it was decided on, not since
        _charge("key:bb"),
        _charge(),  # names nothing: nothing proves it
    ]
    taken = _take(limiter, store, *charges, epoch=base)
    assert (taken.fence, taken.epoch) == (Fence.PASSED, current)
    stale = [grant.answer is Answer.STALE for grant in taken.grants]
    assert stale == [False, True, True, False, False, True]
    assert [grant.states[0].remaining for grant in taken.grants if grant.states] == [4, 3, 2]


def test_by_records_with_the_same_epoch_asks_nothing(limiter: Limiter, store: redis.Redis) -> None:
    """Where nothing changed, nobody is stale, feed or no feed."""
    epoch = _change(store, 1, "key:a")
    store.delete(FEED_KEY)
    taken = _take(limiter, store, _charge("key:a"), epoch=epoch)
    assert taken.grants[0].answer is Answer.ADMITTED


def test_by_records_needs_every_entry(limiter: Limiter, store: redis.Redis) -> None:
    """A feed with a gap, without the base, without the end or with a foreign end proves nothing: all are stale."""
    base = _change(store, 7, "key:b")
    for counter in (8, 9, 10):
        current = _change(store, counter, "key:b")
    for gap in ("8-0", "7-0", "10-0"):
        kept = store.dump(FEED_KEY)
        store.xdel(FEED_KEY, gap)
        taken = _take(limiter, store, _charge("key:a"), epoch=base)
        assert (taken.fence, taken.epoch) == (Fence.STALE, current), gap
        store.restore(FEED_KEY, 0, kept, replace=True)
    store.delete(FEED_KEY)
    assert _take(limiter, store, _charge("key:a"), epoch=base).fence is Fence.STALE
    store.restore(FEED_KEY, 0, kept)
    store.set(EPOCH_KEY, _epoch(10, "f"))
    assert _take(limiter, store, _charge("key:a"), epoch=base).fence is Fence.STALE
    store.set(EPOCH_KEY, _epoch(9))
    assert _take(limiter, store, _charge("key:a"), epoch=base).fence is Fence.STALE
    assert _untouched(store)


def test_by_records_refuses_a_store_that_counted_up_again(limiter: Limiter, store: redis.Redis) -> None:
    """A store that lost everything and made as many changes again has other random bits at the base's counter."""
    base = _change(store, 2, "key:b")
    store.flushdb()
    for counter in (1, 2, 3):
        _change(store, counter, "key:z", bits="d")
    taken = _take(limiter, store, _charge("key:a"), epoch=base)
    assert (taken.fence, taken.epoch) == (Fence.STALE, _epoch(3, "d"))
    assert _untouched(store)


def test_by_records_needs_an_entry_to_say_what_changed(limiter: Limiter, store: redis.Redis) -> None:
    """An entry without references tells nothing, so it clears nobody."""
    base = _change(store, 1, "key:b")
    store.xadd(FEED_KEY, {"epoch": _epoch(2)}, id="2-0")
    store.set(EPOCH_KEY, _epoch(2))
    assert _take(limiter, store, _charge("key:a"), epoch=base).fence is Fence.STALE


@pytest.mark.parametrize("held", ["", "nonsense", _epoch(9)])
def test_by_records_refuses_a_base_it_cannot_place(limiter: Limiter, store: redis.Redis, held: str) -> None:
    """No epoch, no counter, or one from the future."""
    for counter in (1, 2):
        _change(store, counter, "key:b")
    assert _take(limiter, store, _charge("key:a"), epoch=held).fence is Fence.STALE


def test_by_records_reads_a_bounded_piece_of_the_feed(limiter: Limiter, store: redis.Redis) -> None:
    """A base more than 32 changes back is stale: the script does not read a long feed."""
    pipeline = store.pipeline(transaction=False)
    for counter in range(1, 35):
        pipeline.xadd(FEED_KEY, {"epoch": _epoch(counter), "refs": "key:b"}, id=f"{counter}-0")
    pipeline.execute()
    store.set(EPOCH_KEY, _epoch(34))
    charge = _charge("key:a")
    assert _take(limiter, store, charge, epoch=_epoch(1)).fence is Fence.STALE
    assert _take(limiter, store, charge, epoch=_epoch(2)).fence is Fence.PASSED
