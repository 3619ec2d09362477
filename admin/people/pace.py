"""How fast the API may be used: so many calls a minute by a user, so many writes a minute in a tenant.

Calls are counted in this process, exactly and without asking anybody: a call that only reads must not cost the store
more for being counted, and of several admins each lets its own number through. Writes of a tenant are counted in the
store (``admin.people.throttle``), over all admins: each of them costs the store, and every gate, far more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from admin import names
from admin.http.problems import Problem, too_many_requests
from admin.people.throttle import Attempt, Throttle, Throttler

WINDOW_S: Final = 60
USER_CALLS: Final = 600
"""Calls of a user in any minute, at each admin."""
TENANT_WRITES: Final = 300
"""Writes in a tenant in any minute, by all who are no admins, at all admins."""

_USER: Final = '"user-minute"'
_TENANT: Final = '"tenant-writes-minute"'


@dataclass(frozen=True, slots=True)
class Paces:
    """What the operator lets be."""

    user_calls: int = USER_CALLS
    tenant_writes: int = TENANT_WRITES

    def policy(self) -> str:
        """``RateLimit-Policy`` as draft-ietf-httpapi-ratelimit-headers-10 has it."""
        return f"{_USER};q={self.user_calls};w={WINDOW_S}, {_TENANT};q={self.tenant_writes};w={WINDOW_S}"


DEFAULT_PACES: Final = Paces()


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of a call."""

    remaining: int  # calls that fit now: 599 after the first of 600
    reset_s: int  # seconds until all of them fit again, rounded up
    wait_ms: int  # 0: it was counted; else it was not, and fits then

    def header(self) -> str:
        """``RateLimit`` of the same draft."""
        return f"{_USER};r={self.remaining};t={self.reset_s}"


class UserCalls:
    """Counts each user's calls of the last minute. Remembers those who called in it, nobody else."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()  # by user, whoever called last at the end

    def __len__(self) -> int:
        return len(self._calls)

    def count(self, user: str, now_ms: float) -> Counted:
        """Count a call if it fits; ``now_ms`` by a clock that only grows."""
        begin_ms = now_ms - WINDOW_S * 1000
        self._forget(begin_ms)
        calls = self._calls.setdefault(user, deque())
        while calls and calls[0] <= begin_ms:
            calls.popleft()
        fits = len(calls) < self._most
        if fits:
            calls.append(now_ms)
            self._calls.move_to_end(user)
        return Counted(
            remaining=self._most - len(calls),
            reset_s=_ceil_s(calls[-1] - begin_ms),
            wait_ms=0 if fits else max(1, int(calls[0] - begin_ms)),
        )

    def _forget(self, begin_ms: float) -> None:
        """Drop those whose last call is over."""
        while self._calls:
            user, calls = next(iter(self._calls.items()))
            if calls and calls[-1] > begin_ms:
                return
            del self._calls[user]


class TenantWrites:
    """Counts the writes in each tenant."""

    def __init__(self, throttler: Throttler, most: int) -> None:
        self._throttler = throttler
        self._most = most

    async def count(self, tenant: str) -> Attempt:
        """Count a write; raises ``Problem`` TOO_MANY_REQUESTS where it does not fit, ``StoreUnavailable``."""
        try:
            return await self._throttler.attempt((Throttle(names.throttle("writes", tenant), self._most),))
        except Problem as full:
            wait_s = full.headers["Retry-After"]
            detail = f"{tenant} has had its {self._most} writes of this minute: {full.detail}"
            raise Problem(full.code, detail, headers={**full.headers, "RateLimit": _full(_TENANT, wait_s)}) from None

    async def give_back(self, attempt: Attempt) -> None:
        """Uncount a write that did not happen; raises ``StoreUnavailable``."""
        await self._throttler.give_back(attempt)


def refusal(counted: Counted, most: int) -> Problem:
    """Refuse a call that does not fit."""
    full = too_many_requests(counted.wait_ms)
    return Problem(full.code, f"you have had your {most} calls of this minute: {full.detail}", headers=full.headers)


def told(paces: Paces, counted: Counted) -> Mapping[str, str]:
    """The headers of an answer."""
    return {"RateLimit-Policy": paces.policy(), "RateLimit": counted.header()}


def _full(name: str, wait_s: str) -> str:
    return f"{name};r=0;t={wait_s}"


def _ceil_s(duration_ms: float) -> int:
    return max(0, -(-int(duration_ms) // 1000))
