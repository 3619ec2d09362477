"""Passwords: argon2id, in threads, a bounded number at once.

Knows no user. Verifying costs the same whether there is a hash or not, so an answer's time names no user.
"""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MEMORY_KIB: Final = 64 * 1024  # 64 MiB, t=3, p=4: RFC 9106 section 4, the second recommended option
TIME_COST: Final = 3
PARALLELISM: Final = 4
MAX_AT_ONCE: Final = 2  # 128 MiB of memory at most


class Passwords:
    """Hashes and verifies. ``dummy`` stands in for users that do not exist."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._dummy = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """Hash a password."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether ``password`` has this hash; ``None`` (nobody) takes as long and is never true."""
        async with self._slots:
            matched = await asyncio.to_thread(self._matches, hashed or self._dummy, password)
        return matched and hashed is not None

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False
