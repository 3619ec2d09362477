"""The lease that elects one publishing process among several. The one caller of lua/lease.lua.

A holder counts its time by its own clock from before it asked, less a margin, so it has stopped before the store could
give the lease to anybody else. Who is not the holder hears what the holder says of the publications.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import redis.asyncio

from publisher.turns import names
from publisher.turns.board import Board, read_board

LIFE_MS: Final = 3_000
"""How long a lease lasts unless it is renewed: the longest pause after a holder was killed."""

MARGIN_MS: Final = 500
"""How long before its end a holder stops: for what it is in the middle of."""

BOARD_LIFE_MS: Final = 24 * 3_600_000

_LEASE: Final = files("publisher.turns").joinpath("lua/lease.lua").read_bytes()


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the lease is the asker's."""

    held: bool
    board: bytes  # what another holder says; empty where there is none


async def lease(
    client: redis.asyncio.Redis,
    act: str,
    holder: str,
    *,
    life_ms: int = LIFE_MS,
    name: str = names.LEASE,
    board: bytes = b"",
    now_ms: int | None = None,
) -> Answer:
    """Ask for the lease or renew it (``hold``), or give it back (``release``); raises what the client raises.

    ``holder``: a text without spaces, of this process alone. ``board``: what the holder says, empty to leave it.
    ``now_ms``: None is the store's own clock, a number is for tests.
    """
    now = "" if now_ms is None else now_ms
    arguments = (name, names.BOARD, act, holder, now, life_ms, BOARD_LIFE_MS, board)
    reply: Any = await client.execute_command("EVAL", _LEASE, 2, *arguments)  # type: ignore[no-untyped-call]  # as they are
    return Answer(reply[0] == 1, reply[1])


class Lease:
    """One process's claim to a lease: ``name`` is what there is one of."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        holder: str,
        *,
        name: str = names.LEASE,
        life_ms: int = LIFE_MS,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._holder = holder
        self._name = name
        self._life_ms = life_ms
        self._monotonic_s = monotonic_s
        self._until_s = 0.0
        self.board = Board()  # what whoever holds it said last, as far as it was heard here

    @property
    def renewal_s(self) -> float:
        """After how many seconds a held lease is to be renewed: a third of its life."""
        return self._life_ms / 3000

    @property
    def left_s(self) -> float:
        """For how many seconds it is surely held; not positive when it is not."""
        return self._until_s - self._monotonic_s()

    def held(self) -> bool:
        """Whether this process may publish at this moment."""
        return self.left_s > 0

    async def hold(self, board: Board | None = None) -> bool:
        """Ask for it or renew it, and say how publications stand; returns whether it is held."""
        asked_s = self._monotonic_s()
        said = b"" if board is None else board.written()
        answer = await lease(self._client, "hold", self._holder, name=self._name, life_ms=self._life_ms, board=said)
        if answer.held:
            self._until_s = asked_s + (self._life_ms - min(MARGIN_MS, self._life_ms // 4)) / 1000
            self.board = board or self.board
        else:
            self._until_s = 0.0
            self.board = read_board(answer.board)
        return answer.held

    async def release(self) -> None:
        """Give it back, so that another process has it at once."""
        self._until_s = 0.0
        await lease(self._client, "release", self._holder, name=self._name, life_ms=self._life_ms)
