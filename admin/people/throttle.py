"""How often something may be tried: at most so many times in any trailing minute, over all admin processes.

The one caller of lua/attempt.lua. An attempt is counted before it is made, so that many at once do not slip
through together; one that turns out harmless is given back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import redis.asyncio
from redis.exceptions import RedisError

from admin import names
from admin.http.problems import too_many_requests
from catalog.store.store import StoreUnavailable
from runtime.addresses import site_of

WINDOW_MS: Final = 60_000
LOGINS_BY_USER_AND_ADDRESS: Final = 5
LOGINS_BY_ADDRESS: Final = 30
VALIDATIONS_BY_ADDRESS: Final = 30
FINDS_BY_USER: Final = 60
FAILURES_KEPT: Final = 50
"""Of one user from everywhere: his delay grows until then."""

AUDITED_LOGINS: Final = 60
"""Logins of one outcome written to the audit stream in a minute, so that nobody floods it."""

FREE_FAILURES: Final = 10
DELAY_STEP_MS: Final = 50
MAX_DELAY_MS: Final = 2_000

_ATTEMPT: Final = files("admin.people").joinpath("lua/attempt.lua").read_text()
_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Throttle:
    """One thing that is counted: its name in the store and the most attempts in any minute."""

    key: str
    most: int  # negative: so many are kept, and none is refused


@dataclass(frozen=True, slots=True)
class Attempt:
    """A counted attempt."""

    id: str
    throttles: tuple[Throttle, ...]


def login_throttles(user: str, address: str) -> tuple[Throttle, ...]:
    """What holds failed logins: the user from this address, and the address."""
    place = site_of(address)
    return (
        Throttle(names.throttle("login", user, place), LOGINS_BY_USER_AND_ADDRESS),
        Throttle(names.throttle("login", place), LOGINS_BY_ADDRESS),
        failures_of(user),
    )


def failures_of(user: str) -> Throttle:
    """What counts a user's failed logins from everywhere. It only delays: nobody can lock somebody out by guessing."""
    return Throttle(names.throttle("failures", user), -FAILURES_KEPT)


def delay_ms(failures: int) -> int:
    """How long a login of a user with so many failures waits: 10 -> 0, 11 -> 50 ms, 50 and more -> 2 s."""
    return min(MAX_DELAY_MS, DELAY_STEP_MS * max(0, failures - FREE_FAILURES))


def audit_throttles(outcome: str) -> tuple[Throttle, ...]:
    """What holds the audit entries of logins."""
    return (Throttle(names.throttle("audit", outcome), AUDITED_LOGINS),)


def find_throttles(user: str) -> tuple[Throttle, ...]:
    """Hold who asks whose keys are; each answer is written into the audit stream."""
    return (Throttle(names.throttle("find", user), FINDS_BY_USER),)


def validate_throttles(address: str) -> tuple[Throttle, ...]:
    """What holds questions whether a key is valid."""
    return (Throttle(names.throttle("validate", site_of(address)), VALIDATIONS_BY_ADDRESS),)


class Throttler:
    """Counts attempts in the store."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._script = client.register_script(_ATTEMPT)

    async def attempt(self, throttles: Sequence[Throttle]) -> Attempt:
        """Count one attempt; raises ``Problem`` TOO_MANY_REQUESTS when there is no room, ``StoreUnavailable``."""
        made = Attempt(os.urandom(_ID_BYTES).hex(), tuple(throttles))
        arguments: list[str | int] = [made.id, WINDOW_MS, *(one.most for one in throttles)]
        try:
            wait_ms = await self._script(keys=[one.key for one in throttles], args=arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store cannot be reached: {error}") from error
        if wait_ms:
            raise too_many_requests(int(wait_ms))
        return made

    async def count(self, throttle: Throttle) -> int:
        """Count the attempts of the last minute, perhaps older ones too; raises ``StoreUnavailable``."""
        try:
            return int(await self._client.zcard(throttle.key))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store cannot be reached: {error}") from error

    async def give_back(self, attempt: Attempt) -> None:
        """Uncount an attempt that was no guess; raises ``StoreUnavailable``."""
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                for one in attempt.throttles:
                    pipe.zrem(one.key, attempt.id)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store cannot be reached: {error}") from error
