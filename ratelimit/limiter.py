"""The limiter: asks ``lua/take.lua`` whether a batch of calls fits its budgets. The script's only caller.

Knows subjects, budgets and the epoch's text; not keys, tenants or where the epoch comes from.
Waiting, retrying and the store's absence are the business of whoever gives ``execute``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError

from ratelimit.budgets import Charge, Taken
from ratelimit.names import budget_prefix, usage_prefix
from ratelimit.packing import SHAPES, Batch
from ratelimit.replay import read_reply

Execute = Callable[..., Any]
"""Sends one command to the store and returns its reply as redis-py would: bytes, integers, lists; raises its errors."""

_TAKE: Final = importlib.resources.files("ratelimit").joinpath("lua/take.lua").read_bytes()
_TAKE_SHA: Final = hashlib.sha1(_TAKE, usedforsecurity=False).hexdigest()  # how the store names scripts


class Limiter:
    """Takes units of budgets, for batches of calls, in one cell of one store.

    ``epoch_key`` and ``feed_key`` name the epoch in force and the feed of changes; they carry the cell's hash tag.
    """

    def __init__(self, *, cell: str, epoch_key: str, feed_key: str) -> None:
        self._fence_keys = (feed_key, epoch_key)
        self._budget_prefix = budget_prefix(cell)
        self._usage_prefix = usage_prefix(cell)

    def load(self, execute: Execute) -> None:
        """Put the script into the store, so that the first batch finds it."""
        execute("SCRIPT", "LOAD", _TAKE)

    def take(
        self,
        execute: Execute,
        charges: Sequence[Charge],
        *,
        epoch: str,
        deadline_ms: int = 0,
        by_records: bool = False,
        now_ms: int | None = None,
        look: bool = False,
    ) -> Taken:
        """Decide the charges one after another and count the admitted ones; a refused charge changes nothing.

        ``epoch``: the one the charges were decided on ("" where none is set); another one in force: STALE.
        ``by_records``: if it differs, ask the feed whether a charge's own ``refs`` changed since.
        ``deadline_ms``: by the store's clock; past it nothing is taken (0: none).
        ``now_ms``: the time to go by; None is the store's own clock, a number is for tests.
        ``look``: decide and report, write nothing.

        Raises ``ValueError`` for a batch too large or malformed, and what ``execute`` raises. A store that has
        lost the script gets it again: that error proves that nothing ran.
        """
        batch = Batch(charges)
        numbers = (int(by_records), int(look), deadline_ms, "" if now_ms is None else now_ms, len(batch.values))
        keys = self._keys(batch)
        arguments = (len(keys), *keys, epoch, *numbers, SHAPES, batch.plan_blob, batch.call_blob)
        return read_reply(batch, self._run(execute, arguments, batch.refs() if by_records else ()))

    def _keys(self, batch: Batch) -> list[str]:
        keys = [*self._fence_keys]
        keys += [self._budget_prefix + name for name in batch.values]
        keys += [self._usage_prefix + name for name in batch.usages]
        return keys

    def _run(self, execute: Execute, arguments: Sequence[Any], refs: Sequence[str]) -> Any:
        try:
            return execute("EVALSHA", _TAKE_SHA, *arguments, *refs)
        except NoScriptError:
            self.load(execute)
            return execute("EVALSHA", _TAKE_SHA, *arguments, *refs)
