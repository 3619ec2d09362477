"""Logging in: throttled, the same cost and the same answer for every way of failing.

Many failures of one user, wherever they come from, delay every attempt of his a little. Who waits so holds no place
in the line before the hashes, so that guessing at one user holds up no other.

Attempts of one user from one address take turns, so that the throttle counts failures and not the
right passwords that are still being verified.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from admin.http.problems import Code, Problem
from admin.people.passwords import Passwords
from admin.people.throttle import Throttler, delay_ms, failures_of, login_throttles
from catalog.records import Kind, UserRecord
from catalog.store.store import CatalogStore
from runtime.addresses import site_of

MAX_WAITING: Final = 32
MAX_DELAYED: Final = 256
"""Logins that are delayed at once; any more are not, and the throttles by address alone hold them."""


class Logins:
    """Tells who has a password."""

    def __init__(self, store: CatalogStore, passwords: Passwords, throttler: Throttler) -> None:
        self._store = store
        self._passwords = passwords
        self._throttler = throttler
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._waiting = 0
        self._delayed = 0

    async def login(self, name: str, password: str, address: str) -> UserRecord:
        """Return the user; raises ``Problem`` LOGIN_FAILED, TOO_MANY_REQUESTS or OVERLOADED, ``StoreUnavailable``."""
        await self._delay(name)
        if self._waiting >= MAX_WAITING:
            raise Problem(Code.OVERLOADED, "too many logins at once", headers={"Retry-After": "1"})
        self._waiting += 1
        turn = self._turns.setdefault((name, site_of(address)), asyncio.Lock())
        try:
            async with turn:
                return await self._attempt(name, password, address)
        finally:
            self._waiting -= 1

    async def _delay(self, name: str) -> None:
        wait_ms = delay_ms(await self._throttler.count(failures_of(name)))
        if not wait_ms or self._delayed >= MAX_DELAYED:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(wait_ms / 1000)
        finally:
            self._delayed -= 1

    async def _attempt(self, name: str, password: str, address: str) -> UserRecord:
        attempt = await self._throttler.attempt(login_throttles(name, address))
        user = await self._store.get(Kind.USER, name)
        known = user if isinstance(user, UserRecord) and not (user.disabled or user.service) else None
        if not await self._passwords.verify(known.password_hash if known else None, password) or known is None:
            raise Problem(Code.LOGIN_FAILED)
        await self._throttler.give_back(attempt)
        return known
