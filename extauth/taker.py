"""The limiter on the hot path: deadlines on the store's clock, batches sized by measured store time.

Knows the limiter and the clocks; nothing of keys or records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from redis.exceptions import RedisError

from extauth.batch import Ask
from extauth.stores import UNPROVED, Budgets, Execute, ExecuteMany
from ratelimit.windows import cells
from ratelimit.windows.budgets import Charge, Draw, Fence, Taken
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.sizing import BatchSizer
from runtime.clock import Clock
from runtime.store.faults import surely_not_run
from runtime.store.offset import ClockOffset

FIRST_BATCH: Final = 32
LARGEST_BATCH: Final = 256


class Offsets:
    """The clocks of the budgets store: one, or where it is a Cluster one for each cell, which may be on any server."""

    def __init__(self, *, per_cell: bool) -> None:
        self._per_cell = per_cell
        self._offsets: defaultdict[int, ClockOffset] = defaultdict(ClockOffset)

    def of(self, cell: int) -> ClockOffset:
        """How far the clock that a cell goes by is from ours."""
        return self._offsets[cell if self._per_cell else 0]


class Reading(NamedTuple):
    """One look at the clock that a cell goes by, in milliseconds: ours before and after it, the store's in between."""

    cell: int
    sent_ms: float
    store_ms: int
    received_ms: float


class Taker:
    """``ratelimit.windows.limiter`` for every cell, bound to the store's clock, as ``extauth.batch`` wants it."""

    def __init__(
        self,
        make_limiter: Callable[[int], Limiter],
        *,
        clock: Clock,
        offset_of: Callable[[int], ClockOffset],
        on_taken: Callable[[Sequence[Draw], Taken], None] = lambda _draws, _taken: None,
        on_unheard: Callable[[Sequence[Draw], int], None] = lambda _draws, _until_ms: None,
    ) -> None:
        """``on_unheard``: whose answer did not come, and until when by its clock the store may still take them."""
        self._make_limiter = make_limiter
        self._limiters: dict[int, Limiter] = {}
        self._clock = clock
        self._offset_of = offset_of
        self._on_taken = on_taken
        self._on_unheard = on_unheard
        self.sizer = BatchSizer(first=FIRST_BATCH, largest=LARGEST_BATCH)

    def limiter(self, cell: int) -> Limiter:
        """The limiter of a cell."""
        if cell not in self._limiters:
            self._limiters[cell] = self._make_limiter(cell)
        return self._limiters[cell]

    def read_clocks(self, execute_many: ExecuteMany, among: int) -> list[Reading]:
        """Decide once in every cell, by looking: proves that the script runs there, and reads the store's clock.

        Raises ``RedisError`` where not even one cell answers.
        """
        looks = [cells.Ask(self.limiter(cell), [Draw(Charge(()))], UNPROVED, look=True) for cell in range(among)]
        sent_ms = self._clock.monotonic_ms()
        answers = cells.take_cells(execute_many, looks)
        received_ms = self._clock.monotonic_ms()
        errors = [answer for answer in answers if isinstance(answer, RedisError)]
        if len(errors) == among:
            raise errors[0]
        return [
            Reading(cell, sent_ms, answer.now_ms, received_ms)
            for cell, answer in enumerate(answers)
            if isinstance(answer, Taken)
        ]

    def learn_clocks(self, readings: Iterable[Reading]) -> None:
        """Go by these; called when the link that they were read on comes into use."""
        for reading in readings:
            self._offset_of(reading.cell).learn(
                sent_ms=reading.sent_ms, store_ms=reading.store_ms, received_ms=reading.received_ms
            )

    def take(self, budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float) -> dict[int, Taken | RedisError]:
        """Take before ``deadline_ms`` (monotonic clock): a script itself gives up when it comes too late."""
        questions = [self._question(cell, ask, deadline_ms) for cell, ask in asks.items()]
        sent_ms = self._clock.monotonic_ms()
        answers = _ask_one(budgets.execute, *questions) if len(asks) == 1 else _ask_all(budgets, questions)
        received_ms = self._clock.monotonic_ms()
        for (cell, ask), question, answer in zip(asks.items(), questions, answers, strict=True):
            if isinstance(answer, Taken):
                self._offset_of(cell).learn(sent_ms=sent_ms, store_ms=answer.now_ms, received_ms=received_ms)
                self._learn(ask, answer)
            elif not surely_not_run(answer):
                self._on_unheard(ask.draws, question.deadline_ms)
        return dict(zip(asks, answers, strict=True))

    def _question(self, cell: int, ask: Ask, deadline_ms: float) -> cells.Ask:
        return cells.Ask(
            self.limiter(cell),
            ask.draws,
            ask.epoch,
            deadline_ms=self._offset_of(cell).deadline_on_store_ms(deadline_ms),
        )

    def _learn(self, ask: Ask, taken: Taken) -> None:
        if taken.fence is Fence.PASSED:  # the others end before the work begins
            self.sizer.learn(len(ask.draws), taken.spent_us)
        self._on_taken(ask.draws, taken)


def _ask_one(execute: Execute, ask: cells.Ask) -> list[Taken | RedisError]:
    try:
        taken = ask.limiter.take(execute, ask.draws, epoch=ask.epoch, deadline_ms=ask.deadline_ms)
    except RedisError as error:
        return [error]
    return [taken]


def _ask_all(budgets: Budgets, asks: list[cells.Ask]) -> list[Taken | RedisError]:
    try:
        return cells.take_cells(budgets.execute_many, asks)
    except RedisError as error:
        return [error] * len(asks)
