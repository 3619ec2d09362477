"""A catalog, a feed and a limiter in plain Python, for tests of what is decided: no store, no waiting, any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from catalog.keys.secrets import Secrets
from catalog.records import KIND_OF, Record, ref
from catalog.store.reader import Delta, Snapshot
from extauth.batch import Ask, Checker
from extauth.lanes.table import LaneTable
from extauth.records.cache import RecordCache
from extauth.request.call import Asking
from extauth.stores import Budgets, Stores
from extauth.verdict import Verdict
from ratelimit.windows.budgets import Answer, Draw, Fence, Grant, Taken

START_MS = 1_800_000_000_000


class World:
    """What the stores would hold, and what they would say. Every budget has room."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.feed: list[tuple[str, frozenset[str]]] = [(_epoch(1), frozenset())]
        self.feed_is_lost = False
        self.now_ms = START_MS
        self.before_take: Callable[[World], None] | None = None  # happens once
        self.takes = 0

    @property
    def epoch(self) -> str:
        """The one in force."""
        return self.feed[-1][0]

    def put(self, *records: Record) -> None:
        """Write records in one act."""
        names = {ref(KIND_OF[type(record)], record.id): record for record in records}
        self.records |= names
        self._announce(names)

    def remove(self, name: str) -> None:
        """Delete a record."""
        self.records.pop(name, None)
        self._announce([name])

    def _announce(self, names: Iterable[str]) -> None:
        self.feed.append((_epoch(len(self.feed) + 1), frozenset(names)))

    def changed_since(self, epoch: str) -> frozenset[str] | None:
        """What changed since an epoch; ``None`` where nobody can tell."""
        known = [number for number, (one, _) in enumerate(self.feed) if one == epoch]
        if not known or self.feed_is_lost:
            return None
        return frozenset(itertools.chain.from_iterable(refs for _, refs in self.feed[known[0] + 1 :]))

    # What reads records

    def read(self, _execute: Any, refs: Sequence[str]) -> Snapshot:
        """Read records together with the epoch."""
        return Snapshot(self.epoch, {name: self.records.get(name) for name in refs}, frozenset())

    def catch_up(self, _execute: Any, epoch: str) -> Delta | None:
        """Tell what changed."""
        changed = self.changed_since(epoch)
        return None if changed is None else Delta(self.epoch, changed)

    def knows(self, _execute: Any, epoch: str) -> bool:
        """Whether an epoch was ever in force."""
        return not epoch or any(one == epoch for one, _ in self.feed)

    # What takes

    def take(self, _budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float) -> dict[int, Taken | RedisError]:
        """Answer as the script does: by the epoch, else by the calls' own records."""
        del deadline_ms
        self.takes += 1
        if self.before_take is not None:
            change, self.before_take = self.before_take, None
            change(self)
        return {cell: self._taken(ask) for cell, ask in asks.items()}

    def _taken(self, ask: Ask) -> Taken:
        changed = frozenset[str]() if ask.epoch == self.epoch else self.changed_since(ask.epoch)
        has_moved = ask.epoch != self.epoch
        if changed is None:
            return Taken(Fence.STALE, self.epoch, self.now_ms, ())
        grants = tuple(self._grant(draw, changed, has_moved=has_moved) for draw in ask.draws)
        return Taken(Fence.PASSED, self.epoch, self.now_ms, grants)

    def _grant(self, draw: Draw, changed: frozenset[str], *, has_moved: bool) -> Grant:
        refs = draw.charge.refs
        if not changed.isdisjoint(refs) or (has_moved and not refs):
            return Grant(Answer.STALE, draw)
        if 0 < draw.charge.valid_until_ms <= self.now_ms:
            return Grant(Answer.EXPIRED, draw)
        return Grant(Answer.ADMITTED, draw, (1, self.now_ms + 1_000) * len(draw.charge.budgets))

    # What decides

    def checker(self, secrets: Secrets, *, lane_bytes: int = 2**20, cache: RecordCache | None = None) -> Checker:
        """A checker of its own; ``lane_bytes``: that its lanes may take."""
        cache = RecordCache() if cache is None else cache
        return Checker(
            cache=cache,
            records=self,
            limiter=self,
            secrets=secrets,
            lanes=LaneTable(cache, max_bytes=lane_bytes, clock_ms=lambda: float(self.now_ms)),
            now_ms=lambda: self.now_ms - 5,
        )


def check(checker: Checker, *calls: Asking) -> list[Verdict]:
    """What becomes of calls."""
    return checker.check(calls, Stores.one(lambda *_command: None), 1e15)


def _epoch(number: int) -> str:
    return f"{number}-{number:016x}"
