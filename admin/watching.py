"""Watches whether this admin can do its job, so that whoever asks costs the store nothing.

One task looks at the store; what it found last is told at once, together with what the other parts know of themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Protocol

from admin.troubles import BUDGETS_UNTOLD, STORE_AWAY
from catalog.store.health import Health
from catalog.store.store import CatalogStore, StoreUnavailable
from catalog.troubles import doubts
from runtime.lifecycle import going_on, rest
from runtime.readiness import Readiness, Trouble

LOOK_S: Final = 1.0
"""Between two looks at the store, in seconds. A look takes ``catalog.store.store.TIMEOUT_S`` for each question at
most."""


class Troubled(Protocol):
    """A part that knows what is wrong with it, without asking anybody."""

    def troubles(self) -> Sequence[Trouble]:
        """Tell what is wrong at the moment."""
        ...


class ReadinessWatch:
    """``keep`` is its one task; ``look`` once before anybody may ask."""

    def __init__(self, store: CatalogStore, parts: Sequence[Troubled]) -> None:
        self._store = store
        self._parts = parts
        self._found: Health | StoreUnavailable = StoreUnavailable("it was not asked yet")

    def readiness(self) -> Readiness:
        """Say whether requests can be answered, and what else is wrong; asks nobody."""
        if isinstance(self._found, StoreUnavailable):
            return Readiness(problems=(STORE_AWAY.found(str(self._found)),), facts={"store": {}})
        return Readiness(warnings=self._warnings(self._found), facts={"store": dataclasses.asdict(self._found)})

    def _warnings(self, health: Health) -> tuple[Trouble, ...]:
        untold = () if self._store.is_told else (BUDGETS_UNTOLD.found("the budgets store misses the latest changes"),)
        return (*untold, *doubts(health), *(trouble for part in self._parts for trouble in part.troubles()))

    async def keep(self) -> None:
        """Look until cancelled."""
        while going_on():
            await self.look()
            await rest(LOOK_S)

    async def look(self) -> None:
        """Look at the store once."""
        try:
            self._found = await self._store.health()
        except StoreUnavailable as away:
            self._found = away
