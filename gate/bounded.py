"""The policy ``bounded``: while a store cannot be asked, known calls go on under this gate's share of every limit.

A call is decided as ever, by ``extauth.batch`` and the same pure ``decide``, but on what the cache holds and against
budgets held in this process (``ratelimit.windows.local``). What the cache does not hold stays refused. How much may
pass in all is worked out in docs/decisions/0011-store-away.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError

from catalog.keys.secrets import Secrets
from catalog.store.reader import Delta, Snapshot
from extauth.batch import Ask, Checker
from extauth.lanes.table import LaneTable
from extauth.reasons import Reason
from extauth.records.allowances import Allowances
from extauth.records.cache import RecordCache
from extauth.request.call import Asking
from extauth.stores import Budgets, Execute, Stores
from extauth.verdict import Verdict
from gate.heartbeat import Heartbeat
from gate.outage import OutageClock
from gate.troubles import BOUNDED_MODE
from ratelimit.windows.budgets import Answer, Draw, Fence, Grant, Taken
from ratelimit.windows.local import LocalBudgets, NoShareError
from runtime.clock import Clock
from runtime.readiness import Trouble
from runtime.store.link import NotConnectedError
from runtime.store.offset import ClockOffset

AWAY: Final = frozenset({Reason.STORE_AWAY, Reason.STORE_TIMEOUT})
"""Refusals that this policy looks at again. An outcome that is unknown is among them: the store may then count a call
that is counted here too, which refuses others earlier and never lets more through. A store that answered that a call
comes too late is not away (``STORE_LATE``): that is overload, and who goes on by himself adds to it."""


@dataclass(frozen=True, slots=True)
class BoundedPolicy:
    """What the operator allows."""

    longest_ms: float = 600_000  # how long calls may go on without the store, all outages together (gate/outage.py)
    least_gates: int = 1  # limits are divided by at least so many


class Bounded:
    """Decides what the store could not. Calls come from one thread; others may ask how it stands."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        policy: BoundedPolicy,
        *,
        cache: RecordCache,
        lanes: LaneTable,
        secrets: Secrets,
        allowances: Allowances,
        cells: int,
        clock: Clock,
        heartbeat: Heartbeat,
        limiter: LocalLimiter,
        store_is_up: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self.heartbeat = heartbeat
        self._store_is_up = store_is_up
        self._outages = OutageClock(policy.longest_ms)
        self._checker = Checker(
            cache=cache,
            records=_CachedRecords(cache),
            limiter=limiter,
            secrets=secrets,
            cells=cells,
            now_ms=limiter.store_now_ms,
            wall_ms=clock.wall_ms,
            allowances=allowances,
            lanes=lanes,  # those of all calls, so that they are bounded and given back together
        )

    def left_ms(self) -> float:
        """How long calls can still go on without the store, from now; 0: not any more, or not yet."""
        left_ms = self._outages.look(self._clock.monotonic_ms(), is_up=self._store_is_up())
        return 0.0 if self.heartbeat.sharers is None else left_ms

    @property
    def is_deciding(self) -> bool:
        """Whether known calls go on at the moment although a store is away."""
        return not self._store_is_up() and self.left_ms() > 0

    def told(self) -> Trouble | None:
        """Say, while a store is away, how calls go on; ``None`` when they do not."""
        left_ms = self.left_ms()
        if not left_ms:
            return None
        share = f"1/{self.heartbeat.gates} of each limit"
        return BOUNDED_MODE.found(f"a store is away: known keys go on under {share} for {left_ms / 1000:.0f} s more")

    def store_is_back(self) -> None:
        """Take note of a new link; what was admitted meanwhile stays counted here until its windows have passed.

        Were it forgotten, a store that comes and goes would give out a fresh share each time. So would the time.
        """
        self.left_ms()

    def use_secrets(self, secrets: Secrets) -> None:
        """Decide with these from the next call on; any thread may say so."""
        self._checker.use_secrets(secrets)

    def instead(self, calls: Sequence[Asking], verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Decide again what was refused because a store could not be asked; the others stand."""
        return [
            self._decided(call, verdict) if verdict.reason in AWAY else verdict
            for call, verdict in zip(calls, verdicts, strict=True)
        ]

    def _decided(self, call: Asking, refused: Verdict) -> Verdict:
        if not self.left_ms():
            return refused
        (verdict,) = self._checker.check([call], Stores.one(_refuse), float("inf"))
        return refused if verdict.reason in AWAY else verdict


def _refuse(*_command: Any) -> Any:
    raise NotConnectedError("the store is away")


class _CachedRecords:
    """The cache as the only source of records: what it does not hold cannot be read."""

    def __init__(self, cache: RecordCache) -> None:
        self._cache = cache

    def read(self, execute: Execute, refs: Sequence[str]) -> Snapshot:
        """Tell the cache's epoch; any record asked for is one that it does not hold."""
        if refs:
            execute("MGET", *refs)
        return Snapshot(self._cache.epoch, {}, frozenset())

    def catch_up(self, _execute: Execute, epoch: str) -> Delta | None:
        """Tell that nothing is known to have changed."""
        return Delta(epoch, frozenset())

    def knows(self, _execute: Execute, _epoch: str) -> bool:
        """Tell that nothing contradicts the cache."""
        return True


class LocalLimiter:
    """Budgets held here, on the monotonic clock; what it answers is on the store's clock as far as that is known."""

    def __init__(
        self,
        clock: Clock,
        offset: ClockOffset,
        heartbeat: Heartbeat,
        on_taken: Callable[[Sequence[Draw], Taken], None],
    ) -> None:
        self._clock = clock
        self._offset = offset
        self._heartbeat = heartbeat
        self._on_taken = on_taken
        self._budgets = LocalBudgets()

    def store_now_ms(self) -> int:
        """Tell the store's clock, never ahead of it; 0 if it was never learnt."""
        return self._offset.deadline_on_store_ms(self._clock.monotonic_ms())

    def take(self, _budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float) -> dict[int, Taken | RedisError]:
        """Take at once and from here; nothing is ever stale or late."""
        del deadline_ms
        return {cell: self._take(ask) for cell, ask in asks.items()}

    def _take(self, ask: Ask) -> Taken | RedisError:
        local_ms = self._clock.monotonic_ms()
        now_ms = self._offset.deadline_on_store_ms(local_ms)
        try:
            grants = tuple(self._grant(draw, int(local_ms), now_ms) for draw in ask.draws)
        except NoShareError as error:
            return NotConnectedError(f"the store is away and {error}")
        taken = Taken(Fence.PASSED, ask.epoch, now_ms, grants)
        self._on_taken(ask.draws, taken)
        return taken

    def _grant(self, draw: Draw, local_ms: int, now_ms: int) -> Grant:
        if 0 < draw.charge.valid_until_ms <= self._offset.latest_on_store_ms(local_ms):
            return Grant(Answer.EXPIRED, draw)
        sharers = self._heartbeat.sharers
        if sharers is None:
            raise NoShareError("nobody knows among how many gates the budgets are shared")
        return _moved(self._budgets.take(draw, now_ms=local_ms, sharers=sharers), now_ms - local_ms)


def _moved(grant: Grant, by_ms: int) -> Grant:
    """Bring a grant's times from one clock to another; 0 stays 0, it means none."""
    times = [reset_ms + by_ms if reset_ms else 0 for reset_ms in grant.numbers[1::2]]
    numbers = tuple(number for pair in zip(grant.numbers[::2], times, strict=True) for number in pair)
    return grant._replace(numbers=numbers, retry_at_ms=grant.retry_at_ms + by_ms if grant.retry_at_ms else 0)
