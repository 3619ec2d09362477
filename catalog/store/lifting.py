"""Sees to it that the records' store has what the budgets' store was told of, where the two are apart.

A records' store that lost answered changes, by a failover or an older backup, is behind what the budgets' store was
told of, and gates take no record of it for current. Whoever may write then lifts its epoch above, in the audit too, and
tells the budgets' store of that. It does so only after a while, and on new connections that find the primary again: a
connection may lead to one that was deposed, which must never rise again. The one caller of lua/lift.lua.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from catalog.store import names
from catalog.store.announcing import EPOCH_BYTES, Announcer
from catalog.store.reader import counter_of
from catalog.store.store import AUDIT_AGE_MS
from runtime.lifecycle import going_on, rest

LOOK_S: Final = 0.5
"""Between two looks; what two in a row find is mended."""
PATIENCE_S: Final = 2.0
"""Longest time for one look."""
CELL: Final = "0"

_LIFT: Final = files("catalog.store").joinpath("lua/lift.lua").read_bytes()
_ACTOR: Final = "tollkeeper admin"
_log: Final = logging.getLogger(__name__)

Client = AbstractAsyncContextManager[redis.asyncio.Redis]


async def records_epoch(client: redis.asyncio.Redis) -> str:
    """Read the epoch of the records' store."""
    return _text(await client.get(names.epoch(CELL)))


async def lift(client: redis.asyncio.Redis, lost: str) -> str:
    """Set an epoch above ``lost``, unless it is above already, and note it in the audit; returns the one in force."""
    return await _rise(client, str(counter_of(lost)), (_ACTOR, "records.lift", "epoch"), {"lost": lost})


async def bump(client: redis.asyncio.Redis, actor: str, action: str, target: str, detail: Mapping[str, str]) -> str:
    """Set another epoch, which says that all may have changed, and note why in the audit; returns it."""
    return await _rise(client, "", (actor, action, target), detail)


async def _rise(client: redis.asyncio.Redis, floor: str, act: tuple[str, str, str], detail: Mapping[str, str]) -> str:
    keys = (names.epoch(CELL), names.feed(CELL), names.AUDIT)
    note = (*act, "", "", json.dumps(dict(detail)))
    arguments = (os.urandom(EPOCH_BYTES).hex(), floor, AUDIT_AGE_MS, *note)
    reply: Any = await client.execute_command("EVAL", _LIFT, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]  # as they are
    return _text(reply)


class Lifter:
    """Looks every half second. ``run`` is its one task.

    ``connect`` makes a client of the records' store with connections of its own; ``budgets`` is the other store's.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        budgets: redis.asyncio.Redis,
        announcer: Announcer,
        cells: int,
        *,
        on_error: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect = connect
        self._budgets = budgets
        self._announcer = announcer
        self._cells = cells
        self._on_error = on_error
        self._found: frozenset[str] = frozenset()  # what the last look found to be missing

    async def run(self) -> None:
        """Look and mend, until cancelled."""
        while going_on():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.look()
            except (RedisError, OSError) as error:
                self._on_error()
                _log.debug("records and budgets cannot be compared: %s", error)
            await rest(LOOK_S)

    async def look(self) -> None:
        """Compare the stores; mend what the look before has found as well."""
        told = await self._told()
        async with self._connect() as records:
            missing = frozenset([epoch for epoch in {*told} - {""} if not await _knows(records, epoch)])
            current = await records_epoch(records)
            if missing and missing == self._found and await _is_primary(records):
                await self._mend(records, max(missing, key=counter_of))
            elif not missing and current and "" in told:  # the budgets' store is new, or has lost what it was told
                self._announcer.owe()
        self._found = missing

    async def _mend(self, records: redis.asyncio.Redis, lost: str) -> None:
        epoch = await lift(records, lost)
        _log.warning("the records store does not have change %s, which was answered: it goes on from %s", lost, epoch)
        self._announcer.owe()

    async def _told(self) -> Sequence[str]:
        """The records' epoch that each cell was told of."""
        async with self._budgets.pipeline(transaction=False) as pipeline:
            for cell in range(self._cells):
                pipeline.get(names.records(str(cell)))
            return [_text(reply) for reply in await pipeline.execute()]


async def _knows(client: redis.asyncio.Redis, epoch: str) -> bool:
    """Whether an epoch was in force there, within the time that the feed tells of."""
    name = f"{counter_of(epoch)}-0"
    entries: Any = await client.xrange(names.feed(CELL), name, name)
    return any(_text(fields.get(b"epoch")) == epoch for _, fields in entries)


async def _is_primary(client: redis.asyncio.Redis) -> bool:
    try:
        role: Any = await client.execute_command("ROLE")  # type: ignore[no-untyped-call]
    except ResponseError:  # some managed stores do not tell; a replica refuses the script anyway
        return True
    return _text(role[0]) == "master"


def _text(raw: Any) -> str:
    return "" if raw is None else raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
