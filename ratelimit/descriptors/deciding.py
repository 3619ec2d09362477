"""Ordinary descriptors of the rate-limit service: what is said of each call. Free of protobuf.

A call is counted in all the limits that it meets or in none, in one step; a limit in shadow mode is counted with them
where the call fits it, and refuses nobody. A batch is cut so that no script keeps the store longer than it should. The
budgets are windows like all others (``ratelimit.windows.limiter``), in the cell of the file's domain; nothing fences
them, because no record stands behind them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from ratelimit.descriptors.asking import Asked, Planner
from ratelimit.descriptors.file import Descriptors
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.telling import Outcome, Said
from ratelimit.names import UNFENCED
from ratelimit.windows.budgets import Answer, Draw, Fence, Taken
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.packing import MAX_CHARGES, MAX_NAMES
from ratelimit.windows.sizing import BatchSizer

FIRST_LIMITS: Final = 64
"""So many limits are asked of the store at once before anything is known of what they cost it."""

Execute = Callable[..., Any]
"""Sends one command to the store and returns its reply; raises redis-py's errors."""

Hear = Callable[[int], object]
"""Is told the store's clock, in milliseconds, as soon as a script has told it."""


def _unheard(_store_ms: int) -> None:
    """Nobody wants to know."""


class _InForce:
    """A file of limits with what follows from it for every call."""

    def __init__(self, file: Descriptors | None, cells: int, writes_format: Callable[[], int]) -> None:
        domain = file.domain if file else ""
        self.planner = Planner(file)
        self.cell = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:4]) % cells
        unfenced = UNFENCED.format(self.cell)
        self.limiter = Limiter(cell=str(self.cell), epoch_key=unfenced, feed_key=unfenced, writes_format=writes_format)


class Ordinary:
    """Decides batches; used by one thread. ``use`` may come from any."""

    def __init__(self, *, cells: int, metrics: OrdinaryMetrics, writes_format: Callable[[], int] = lambda: 1) -> None:
        """``writes_format``: the stored format that is written from now on."""
        self._cells = cells
        self._writes_format = writes_format
        self.metrics = metrics
        self._in_force = _InForce(None, cells, writes_format)
        self._sizer = BatchSizer(first=FIRST_LIMITS, largest=MAX_NAMES)
        self.denies_undecided = True
        """Whether callers are refused while the store cannot be asked; to be set before the start."""

    def use(self, file: Descriptors | None) -> None:
        """Decide by these limits from the next batch on."""
        self._in_force = _InForce(file, self._cells, self._writes_format)

    @property
    def cell(self) -> int:
        """The cell that all of the file's limits are counted in."""
        return self._in_force.cell

    def decide(self, asked: Sequence[Asked], execute: Execute, deadline_ms: int, hear: Hear = _unheard) -> list[Said]:
        """Answer every call, in order. ``deadline_ms``: by the store's clock, past which nothing is taken.

        ``hear``: of its clock, also where all came too late: whoever has a wrong idea of it learns better.
        """
        in_force = self._in_force
        plans = [in_force.planner.plan_of(one) for one in asked]
        said = [Said(Outcome.OVER_LIMIT if plan.is_banned else Outcome.OK, plan) for plan in plans]
        self._take_all(in_force.limiter, said, execute, deadline_ms, hear)
        self.metrics.decided(said, is_measured=in_force.planner.is_measured)
        return said

    def _take_all(self, limiter: Limiter, said: Sequence[Said], execute: Execute, deadline_ms: int, hear: Hear) -> None:
        """Take what has to be asked of the store, in as many scripts as it needs."""
        counted: list[Said] = []
        draws: list[Draw] = []
        for one in said:
            if one.plan.draw is not None:
                counted.append(one)
                draws.append(one.plan.draw)
            elif one.plan.fault:
                one.outcome = Outcome.INVALID
        first = 0
        while first < len(draws):
            part = self._part(draws, first)
            taken = self._take(limiter, part, execute, deadline_ms)
            if taken is not None:
                hear(taken.now_ms)
            _tell(counted[first : first + len(part)], taken)
            first += len(part)

    def _part(self, draws: Sequence[Draw], first: int) -> Sequence[Draw]:
        """The next draws that fit one script, by their limits: each of them costs the store about the same."""
        end, limits = first, 0
        last, most = min(len(draws), first + MAX_CHARGES), self._sizer.calls
        while end < last:
            limits += len(draws[end].charge.subjects)
            if limits > most and end > first:
                break
            end += 1
        return draws[first:end]

    def _take(self, limiter: Limiter, draws: Sequence[Draw], execute: Execute, deadline_ms: int) -> Taken | None:
        try:
            taken = limiter.take(execute, draws, epoch="", deadline_ms=deadline_ms)
        except RedisError:  # counted as undecided
            return None
        if taken.fence is Fence.PASSED:
            self._sizer.learn(sum([len(one.charge.subjects) for one in draws]), taken.spent_us)
        return taken


def _tell(said: Sequence[Said], taken: Taken | None) -> None:
    """Put in what the store said; the calls of a script that failed or came too late stay undecided."""
    if taken is None or taken.fence is not Fence.PASSED:
        for one in said:
            one.outcome = Outcome.UNDECIDED
        return
    admitted, corrupt, now_ms = Answer.ADMITTED, Answer.CORRUPT, taken.now_ms
    for one, grant in zip(said, taken.grants, strict=True):
        one.grant, one.now_ms = grant, now_ms
        if grant.answer is not admitted:
            one.outcome = Outcome.UNDECIDED if grant.answer is corrupt else Outcome.OVER_LIMIT
