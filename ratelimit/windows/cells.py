"""Batches of several cells in one exchange: one script a cell, all sent before the first reply is read.

What is taken is all or nothing within a draw, which lives in one cell; cells do not wait for one another.
Knows nothing of nodes: where a command goes is the business of whoever gives ``execute_many``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError

from ratelimit.windows.budgets import Draw, Taken
from ratelimit.windows.limiter import Command, Limiter, Question
from ratelimit.windows.reply import read_reply

ExecuteMany = Callable[[Sequence[Command]], list[Any]]
"""Sends commands together and returns a reply for each, in order, an error reply as a ``RedisError`` in its place."""


class Ask(NamedTuple):
    """What one cell is asked; the fields mean what they mean to ``Limiter.take``."""

    limiter: Limiter  # of the cell
    draws: Sequence[Draw]
    epoch: str  # the cell's own
    deadline_ms: int = 0  # by the clock of the cell's node
    look: bool = False
    now_ms: int | None = None  # for tests


def take_cells(execute_many: ExecuteMany, asks: Sequence[Ask]) -> list[Taken | RedisError]:
    """Ask every cell at once; in order what each said, or the error that stands for it.

    A node that has lost the script gets it again, which proves that nothing had run. Raises ``ValueError`` for a
    batch too large or malformed, before anything is sent, and what ``execute_many`` raises.
    """
    questions = [_question(ask) for ask in asks]
    replies = execute_many([question.command for question in questions])
    without = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if without:
        again = execute_many([questions[index].command_with_script for index in without])
        for index, reply in zip(without, again, strict=True):
            replies[index] = reply
    return [_taken(question, reply) for question, reply in zip(questions, replies, strict=True)]


def _question(ask: Ask) -> Question:
    return ask.limiter.question(
        ask.draws,
        epoch=ask.epoch,
        deadline_ms=ask.deadline_ms,
        look=ask.look,
        now_ms=ask.now_ms,
    )


def _taken(question: Question, reply: Any) -> Taken | RedisError:
    return reply if isinstance(reply, RedisError) else read_reply(question.draws, reply)
