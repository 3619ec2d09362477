"""What is said of a store that works but may lose answers."""

from __future__ import annotations

import pytest

from catalog.store.health import Health
from catalog.troubles import doubts

GOOD = Health(appendonly=True, appendfsync="always", maxmemory_policy="noeviction")

TABLE = {
    "as it should be": (GOOD, []),
    "not appending": (Health(appendonly=False, appendfsync="always", maxmemory_policy="noeviction"), ["not_durable"]),
    "every second": (Health(appendonly=True, appendfsync="everysec", maxmemory_policy="noeviction"), ["not_durable"]),
    "not syncing during a rewrite": (
        Health(appendonly=True, appendfsync="always", maxmemory_policy="noeviction", no_appendfsync_on_rewrite=True),
        ["not_durable"],
    ),
    "evicting": (Health(appendonly=True, appendfsync="always", maxmemory_policy="allkeys-lru"), ["evicts"]),
    "evicting what has a TTL": (Health(appendonly=True, appendfsync="always", maxmemory_policy="volatile-ttl"), []),
    "all of it": (
        Health(appendonly=False, appendfsync="no", maxmemory_policy="allkeys-random"),
        ["not_durable", "evicts"],
    ),
    "telling nothing": (Health(appendonly=None, appendfsync=None, maxmemory_policy=None), ["settings_hidden"]),
    "telling half": (
        Health(appendonly=True, appendfsync="always", maxmemory_policy=None),
        ["settings_hidden"],
    ),
}


@pytest.mark.parametrize(("health", "expected"), TABLE.values(), ids=TABLE)
def test_each_doubt_is_told_with_its_remedy(health: Health, expected: list[str]) -> None:
    """Nothing is said of a good store; of every other, what is wrong and what to set."""
    found = list(doubts(health))
    assert [trouble.code for trouble in found] == [f"store_{code}" for code in expected]
    assert all(trouble.problem and trouble.advice for trouble in found)
