"""The limiter: asks ``lua/take.lua`` whether a batch of calls fits its budgets. The script's only caller.

Knows subjects, budgets and the epoch's text; not keys, tenants or where the epoch comes from.
Waiting, retrying and the store's absence are the business of whoever gives ``execute``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from ratelimit.names import budget_prefix, due_key, held_key, usage_prefix
from ratelimit.windows.budgets import Charge, Taken
from ratelimit.windows.packing import SHAPES, Batch
from ratelimit.windows.replay import read_reply

Execute = Callable[..., Any]
"""Sends one command to the store and returns its reply as redis-py would: bytes, integers, lists; raises its errors."""

Command = tuple[str | bytes | float, ...]
"""A command and its arguments, as ``Execute`` takes them."""

_TAKE: Final = importlib.resources.files("ratelimit.windows").joinpath("lua/take.lua").read_bytes()
_TAKE_SHA: Final = hashlib.sha1(_TAKE, usedforsecurity=False).hexdigest()  # how the store names scripts


class Question(NamedTuple):
    """One run of the script: the batch it decides, and its keys and arguments behind the script's name."""

    batch: Batch
    arguments: tuple[str | bytes | float, ...]

    @property
    def command(self) -> Command:
        """Run the script by its name; NOSCRIPT, and nothing done, where the store has lost it."""
        return ("EVALSHA", _TAKE_SHA, *self.arguments)

    @property
    def command_with_script(self) -> Command:
        """The same with the script's text, which the store then keeps: it goes where the keys are, in a Cluster too."""
        return ("EVAL", _TAKE, *self.arguments)


class Limiter:
    """Takes units of budgets, for batches of calls, in one cell of one store.

    ``epoch_key`` and ``feed_key`` name the epoch in force and the feed of changes; they carry the cell's hash tag.
    """

    def __init__(self, *, cell: str, epoch_key: str, feed_key: str) -> None:
        self._fence_keys = (feed_key, epoch_key)
        self._ledger_keys = (held_key(cell), due_key(cell))
        self._budget_prefix = budget_prefix(cell)
        self._usage_prefix = usage_prefix(cell)

    def load(self, execute: Execute) -> None:
        """Put the script into the store, on every node of a Cluster, so that the first batch finds it."""
        execute("SCRIPT", "LOAD", _TAKE)

    def take(
        self,
        execute: Execute,
        charges: Sequence[Charge],
        *,
        epoch: str,
        deadline_ms: int = 0,
        now_ms: int | None = None,
        look: bool = False,
    ) -> Taken:
        """Decide the charges one after another and count the admitted ones; a refused charge changes nothing.

        ``epoch``: the one the charges were decided on ("" where none is set); where another is in force,
        charges whose own ``refs`` have changed since are stale, and all where the feed cannot tell: STALE.
        ``deadline_ms``: by the store's clock; past it nothing is taken (0: none).
        ``now_ms``: the time to go by; None is the store's own clock, a number is for tests.
        ``look``: decide and report, write nothing.

        Raises ``ValueError`` for a batch too large or malformed, and what ``execute`` raises. A store that has
        lost the script gets it again: that error proves that nothing ran.
        """
        question = self.question(charges, epoch=epoch, deadline_ms=deadline_ms, now_ms=now_ms, look=look)
        try:
            reply = execute(*question.command)
        except NoScriptError:
            reply = execute(*question.command_with_script)
        return read_reply(question.batch, reply)

    def question(
        self,
        charges: Sequence[Charge],
        *,
        epoch: str,
        deadline_ms: int = 0,
        now_ms: int | None = None,
        look: bool = False,
    ) -> Question:
        """Put what ``take`` asks in the store's words, for whoever sends several at once."""
        batch = Batch(charges)
        numbers = (int(look), deadline_ms, "" if now_ms is None else now_ms, len(batch.values))
        keys = self._keys(batch)
        blobs = (SHAPES, batch.plan_blob, batch.call_blob, batch.hold_blob)
        return Question(batch, (len(keys), *keys, epoch, *numbers, *blobs, *batch.refs()))

    def _keys(self, batch: Batch) -> list[str]:
        keys = [*self._fence_keys]
        keys += [self._budget_prefix + name for name in batch.values]
        keys += [self._usage_prefix + name for name in batch.usages]
        if batch.hold_blob:
            keys += self._ledger_keys
        return keys
