"""How a store keeps what it answered: read from its settings, where it tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

SETTINGS: Final = ("appendonly", "appendfsync", "maxmemory-policy", "no-appendfsync-on-rewrite")
"""What ``CONFIG GET`` is asked for, one by one: several at once are not understood before Redis 7."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the store keeps what it answered; None where it does not tell (managed stores hide CONFIG)."""

    appendonly: bool | None
    appendfsync: str | None  # always | everysec | no
    maxmemory_policy: str | None  # noeviction, else records may be evicted
    no_appendfsync_on_rewrite: bool | None = False  # while its file is rewritten nothing is synced, always or not

    @property
    def durable(self) -> bool | None:
        """Whether an answered commit survives a power cut; None when the store does not tell."""
        if self.appendonly is None or self.appendfsync is None or self.no_appendfsync_on_rewrite is None:
            return None
        return self.appendonly and self.appendfsync == "always" and not self.no_appendfsync_on_rewrite

    @property
    def evicts(self) -> bool | None:
        """Whether a full store may drop records; None when the store does not tell."""
        return None if self.maxmemory_policy is None else self.maxmemory_policy.startswith("allkeys")


def health_of(replies: Mapping[str, Sequence[bytes] | None]) -> Health:
    """Read the replies to ``CONFIG GET`` for each of ``SETTINGS``: name and value; ``None`` where it was refused."""
    appendonly, appendfsync, policy, lazy = (_value(replies[name]) for name in SETTINGS)
    return Health(_is_yes(appendonly), appendfsync, policy, _is_yes(lazy))


def _is_yes(value: str | None) -> bool | None:
    return None if value is None else value == "yes"


def _value(reply: Sequence[bytes] | None) -> str | None:
    return reply[1].decode() if reply else None


def read_health(execute: Callable[..., Any]) -> Health:
    """Ask a store how it keeps its data; raises what ``execute`` raises, but for refusals."""

    def ask(name: str) -> Sequence[bytes] | None:
        try:
            reply: Sequence[bytes] = execute("CONFIG", "GET", name)
        except ResponseError:
            return None
        return reply

    return health_of({name: ask(name) for name in SETTINGS})
