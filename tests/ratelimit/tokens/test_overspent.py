"""Calls that turned out to cost far more than their budget has: what they cost stays counted, nothing is corrupt."""

from __future__ import annotations

import pytest
import redis

from ratelimit.names import held_key, usage_key
from ratelimit.tokens.ledger import Ledger, Outcome, Settlement
from ratelimit.windows.budgets import Answer, Budget, Grant, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.support.draws import draw
from tests.support.settlements import settle

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
PUBLICATION = Subject("p:1", (Budget(Window.TOKENS_HOUR, 5_000),))
LEDGER = Ledger("0")


def _hold(name: str, *, ceiling: int = 400) -> Hold:
    return Hold(name, ceiling, 100, 5_000, b"terms of " + name.encode())


def _settle(store: redis.Redis, *ended: tuple[str, int], now_ms: int) -> list[Outcome]:
    settled = settle(store.execute_command, LEDGER, [Settlement(*one) for one in ended], sweep=0, now_ms=now_ms)
    assert settled.faults == 0
    return list(settled.outcomes)


VAST = Subject("t:1", (Budget(Window.TOKENS_HOUR, 10**9),))


def _vast(limiter: Limiter, store: redis.Redis, tokens: int, now_ms: int) -> Grant:
    (grant,) = limiter.take(store.execute_command, [draw((VAST,), tokens=tokens)], epoch="", now_ms=now_ms).grants
    return grant


def _overspend(limiter: Limiter, store: redis.Redis) -> None:
    """Three minutes of calls that held 100 tokens each and cost a thousand million each: 28 times the budget."""
    for minute, calls in enumerate((10, 10, 8)):
        holds = [_hold(f"{minute}-{number}", ceiling=10**9) for number in range(calls)]
        charges = [draw((VAST,), tokens=100, hold=hold, usage=("t:1",)) for hold in holds]
        limiter.take(store.execute_command, charges, epoch="", now_ms=NOW_MS + minute * MINUTE_MS)
    for name in store.hkeys(held_key("0")):
        assert _settle(store, (name.decode(), 10**9), now_ms=NOW_MS + 2 * MINUTE_MS) == [Outcome.SETTLED]


@pytest.mark.parametrize("stored_format", [1, 2])
@pytest.mark.usefixtures("stored_format")
def test_no_told_usage_makes_a_full_budget_look_empty(limiter: Limiter, store: redis.Redis) -> None:
    """Whatever the calls cost together, until the last of their minutes is counted no more; nothing becomes corrupt."""
    store.hset(usage_key("0", "t:1"), "tokens", 0)
    _overspend(limiter, store)
    for minute in (2, 3, 30, 60, 61, 62):
        refused = _vast(limiter, store, 1, NOW_MS + minute * MINUTE_MS)
        assert (refused.answer, refused.states[0].remaining) == (Answer.REFUSED, 0)
        assert refused.retry_at_ms == NOW_MS + 63 * MINUTE_MS
    assert _vast(limiter, store, 10**9, NOW_MS + 63 * MINUTE_MS).answer is Answer.ADMITTED
    assert store.hget(usage_key("0", "t:1"), "tokens") == b"28000000000"


def test_a_total_that_an_older_gate_wrote_too_small_is_put_right(limiter: Limiter, store: redis.Redis) -> None:
    """It wrote what four bytes hold of the sum (format 2 has six): no fault, and what it comes to is put there."""
    _overspend(limiter, store)
    (key,) = store.scan_iter("tk:budget:*")
    value = bytearray(store.get(key) or b"")
    older, at = value[16], 17
    units = [int.from_bytes(value[8:12], "little")]
    units += [int.from_bytes(value[at + 5 * place + 1 : at + 5 * place + 5], "little") for place in range(older)]
    value[12:16] = (sum(units) % 2**32).to_bytes(4, "little")
    store.set(key, bytes(value), keepttl=True)
    late = draw((PUBLICATION, Subject("t:1", ())), tokens=0, hold=_hold("late"))
    limiter.take(store.execute_command, [late], epoch="", now_ms=NOW_MS + 2 * MINUTE_MS)
    record = store.hget(held_key("0"), "late").replace(b":p:1", b":t:1")
    store.hset(held_key("0"), "late", record)
    assert _settle(store, ("late", 1), now_ms=NOW_MS + 2 * MINUTE_MS) == [Outcome.SETTLED]
    assert _vast(limiter, store, 1, NOW_MS + 2 * MINUTE_MS).answer is Answer.REFUSED
