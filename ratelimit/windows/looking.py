"""Looks at a subject's budgets as they stand now, over an asyncio client: for showing them, never for admitting.

Asks ``take.lua`` through the limiter, which decides a call that costs nothing and writes nothing.
"""

from __future__ import annotations

from typing import Any, Final

import redis.asyncio
from redis.exceptions import NoScriptError

from ratelimit.windows.budgets import BudgetState, Charge, Draw, Fence, Subject, Taken
from ratelimit.windows.limiter import Limiter, Question
from ratelimit.windows.reply import read_reply

_TRIES: Final = 5
"""The epoch is only known from a reply, and may move before the next question."""


class MovingError(OSError):
    """The epoch moved at every try."""


async def look(client: redis.asyncio.Redis, limiter: Limiter, subject: Subject) -> tuple[BudgetState, ...]:
    """Return the state of each budget, in order; none where the stored value cannot be read.

    Raises what the client raises, and ``MovingError``.
    """
    epoch, charge = "", Charge((subject,))
    for _ in range(_TRIES):
        taken = await _ask(client, limiter.question([Draw(charge, hits=0)], epoch=epoch, look=True))
        if taken.fence is not Fence.STALE:
            return taken.grants[0].states
        epoch = taken.epoch
    raise MovingError("the epoch moves faster than budgets can be looked at")


async def _ask(client: redis.asyncio.Redis, question: Question) -> Taken:
    execute: Any = client.execute_command
    try:
        reply = await execute(*question.command)
    except NoScriptError:  # proves that nothing ran
        reply = await execute(*question.command_with_script)
    return read_reply(question.draws, reply)
