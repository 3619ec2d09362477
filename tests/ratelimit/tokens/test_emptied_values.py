"""Settlements of budgets that have no units any more, because they lapsed, were removed or lost."""

from __future__ import annotations

import pytest
import redis

from ratelimit.names import budget_key
from ratelimit.tokens.ledger import Ledger, Outcome, Settlement
from ratelimit.windows.budgets import Answer, Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.support.draws import draw
from tests.support.settlements import settle

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
KEY = Subject("k:1", (Budget(Window.TOKENS_HOUR, 1_000),))
CALLS = 12
"""Accounts of a run are gone through in no order of theirs: so many, that one that gives back comes first."""

pytestmark = pytest.mark.parametrize("stored_format", [1, 2])


def _admit(limiter: Limiter, store: redis.Redis) -> list[str]:
    """Admit a call a minute; their reservations, the oldest first."""
    names = [f"call-{number}" for number in range(CALLS)]
    for number, name in enumerate(names):
        call = draw((KEY,), tokens=10, hold=Hold(name, 100, 0, CALLS * MINUTE_MS, b""))
        (grant,) = limiter.take(store.execute_command, [call], epoch="", now_ms=NOW_MS + number * MINUTE_MS).grants
        assert grant.answer is Answer.ADMITTED
    return names


def _used(limiter: Limiter, store: redis.Redis) -> int:
    look = [draw((KEY,), tokens=0)]
    (grant,) = limiter.take(store.execute_command, look, epoch="", now_ms=NOW_MS + CALLS * MINUTE_MS, look=True).grants
    assert grant.answer is Answer.ADMITTED
    return 1_000 - grant.states[0].remaining


def test_what_an_old_call_cost_more_is_charged_where_newer_ones_only_give_back(
    limiter: Limiter, store: redis.Redis
) -> None:
    """A budget whose value is gone has what was charged beyond what was held, and can be read."""
    oldest, *others = _admit(limiter, store)
    store.delete(budget_key("0", "k:1"))
    costs = [Settlement(oldest, 30), *[Settlement(name, 0) for name in others]]
    settled = settle(store.execute_command, Ledger("0"), costs, sweep=0, now_ms=NOW_MS + CALLS * MINUTE_MS)
    assert (set(settled.outcomes), settled.faults) == ({Outcome.SETTLED}, 0)
    assert _used(limiter, store) == 20
