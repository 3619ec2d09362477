"""The limiter: asks ``lua/take.lua`` whether a batch of calls fits its budgets. The script's only caller.

Knows subjects, budgets and the epoch's text; not keys, tenants or where the epoch comes from.
Waiting, retrying and the store's absence are the business of whoever gives ``execute``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from ratelimit.names import budget_prefix, due_key, held_key, usage_prefix
from ratelimit.windows.budgets import MAX_UNITS, OFFERED, Answer, Budget, Charge, Draw, Fence, Subject, Taken
from ratelimit.windows.packing import Batch
from ratelimit.windows.reply import read_reply

Execute = Callable[..., Any]
"""Sends one command to the store and returns its reply as redis-py would: bytes, integers, lists; raises its errors."""

Command = tuple[str | bytes | float, ...]
"""A command and its arguments, as ``Execute`` takes them."""

_PART: Final = re.compile(rb"^--: (\w+\.lua)$", re.MULTILINE)
"""A line of the script that stands for another file."""


def _script(name: str) -> bytes:
    text = importlib.resources.files("ratelimit.windows").joinpath(name).read_bytes()
    return _PART.sub(lambda part: _script(f"lua/{part[1].decode()}"), text)


_TAKE: Final = _script("lua/take.lua")
_TAKE_SHA: Final = hashlib.sha1(_TAKE, usedforsecurity=False).hexdigest()  # how the store names scripts
_HEAD: Final = struct.Struct("<BBHdd").pack
_STORE_CLOCK: Final = -1
_TAKE_UNITS, _LOOK, _REWRITE = 0, 1, 2  # what the script is to do
FORMAT: Final = 1
"""The stored format that is written where nobody says otherwise: what gates of the release before can read."""


class Question(NamedTuple):
    """One run of the script: the draws it decides, and its keys and arguments behind the script's name."""

    draws: Sequence[Draw]
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

    def __init__(
        self, *, cell: str, epoch_key: str, feed_key: str, writes_format: Callable[[], int] = lambda: FORMAT
    ) -> None:
        """``writes_format``: in which stored format, 1 or 2, values are written from now on; both are read."""
        self._fence_keys = (feed_key, epoch_key)
        self._ledger_keys = (held_key(cell), due_key(cell))
        self._budget_prefix = budget_prefix(cell)
        self._usage_prefix = usage_prefix(cell)
        self._writes_format = writes_format

    def load(self, execute: Execute) -> None:
        """Put the script into the store, on every node of a Cluster, so that the first batch finds it."""
        execute("SCRIPT", "LOAD", _TAKE)

    def take(
        self,
        execute: Execute,
        draws: Sequence[Draw],
        *,
        epoch: str,
        deadline_ms: int = 0,
        now_ms: int | None = None,
        look: bool = False,
    ) -> Taken:
        """Decide the draws one after another and count the admitted ones; a refused one changes nothing.

        ``epoch``: the one the charges were decided on ("" where none is set); where another is in force,
        draws on charges whose own ``refs`` have changed since are stale, and all where the feed cannot tell: STALE.
        ``deadline_ms``: by the store's clock; past it nothing is taken (0: none).
        ``now_ms``: the time to go by; None is the store's own clock, a number is for tests.
        ``look``: decide and report, write nothing.

        Raises ``ValueError`` for a batch too large or malformed, and what ``execute`` raises. A store that has
        lost the script gets it again: that error proves that nothing ran.
        """
        return self._run(execute, self.question(draws, epoch=epoch, deadline_ms=deadline_ms, now_ms=now_ms, look=look))

    def rewrite(self, execute: Execute, names: Sequence[str], *, epoch: str, now_ms: int | None = None) -> int | None:
        """Write the values of these subjects anew, in the format to be written, whether or not they change.

        How many were, or never were there; those that cannot be read stand. ``None``: another epoch is in force.
        Only what users are offered is kept: no other window can have counted anything.
        """
        budgets = tuple(Budget(window, MAX_UNITS) for window in OFFERED)
        draws = [Draw(Charge((Subject(name, budgets),)), hits=0) for name in names]
        taken = self._run(execute, self._question(draws, _REWRITE, epoch, 0, now_ms))
        if taken.fence is not Fence.PASSED:
            return None
        return sum(grant.answer is Answer.ADMITTED for grant in taken.grants)

    def _run(self, execute: Execute, question: Question) -> Taken:
        try:
            reply = execute(*question.command)
        except NoScriptError:
            reply = execute(*question.command_with_script)
        return read_reply(question.draws, reply)

    def question(
        self,
        draws: Sequence[Draw],
        *,
        epoch: str,
        deadline_ms: int = 0,
        now_ms: int | None = None,
        look: bool = False,
    ) -> Question:
        """Put what ``take`` asks in the store's words, for whoever sends several at once."""
        return self._question(draws, _LOOK if look else _TAKE_UNITS, epoch, deadline_ms, now_ms)

    def _question(self, draws: Sequence[Draw], mode: int, epoch: str, deadline_ms: int, now_ms: int | None) -> Question:
        batch = Batch(draws)
        clock_ms = _STORE_CLOCK if now_ms is None else now_ms
        head = _HEAD(mode, self._writes_format(), len(batch.values), deadline_ms, clock_ms)
        keys = [*self._fence_keys, *[self._budget_prefix + name for name in batch.values]]
        blobs = [b"".join(batch.plan_blobs), b"".join(batch.charge_blobs), b"".join(batch.draw_blobs)]
        if not batch.hold_blobs:
            return Question(draws, (len(keys), *keys, epoch, head, *blobs, b"", batch.refs()))
        keys += self._ledger_keys
        holds = (b"".join(batch.hold_blobs), batch.refs(), self._usage_prefix)
        return Question(draws, (len(keys), *keys, epoch, head, *blobs, *holds))
