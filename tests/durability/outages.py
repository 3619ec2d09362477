"""What the machine of a store can do to it, drawn at random: power cuts, cuts during a rewrite, one after another."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gate.links import StoreUrls
from tests.durability.store import PoweredStore

REWRITES: Final = 0.3
"""Share of outages in which the store of records rewrites its file at the moment of the cut."""
TWICE: Final = 0.1
"""Share of outages in which the power goes again just after it is back."""
EMPTIED: Final = 0.2
"""Share of outages of a budgets store after which it is a new, empty one."""


@dataclass(slots=True)
class Taken:
    """What all outages took."""

    cuts: int = 0
    worst: int = 0  # cuts that took all that a cut may take
    emptied: int = 0
    lost_bytes: int = 0
    lost_names: int = 0

    def __str__(self) -> str:
        emptied = f", {self.emptied} emptied" if self.emptied else ""
        return (
            f"{self.cuts} cuts ({self.worst} the worst{emptied}) took {self.lost_bytes} bytes, {self.lost_names} names"
        )


@dataclass(frozen=True, slots=True)
class PoweredStores:
    """Records and budgets: one store for both, or two."""

    records: PoweredStore
    budgets: PoweredStore | None = None  # None: the records' store keeps both

    @property
    def urls(self) -> StoreUrls:
        """What a gate in this process is given."""
        return StoreUrls(self.records.url, (self.budgets or self.records).url)

    @property
    def options(self) -> tuple[str, ...]:
        """What admin and gate are given."""
        if self.budgets is None:
            return ("--redis-url", self.records.url)
        return ("--records-url", self.records.url, "--budgets-url", self.budgets.url)


@dataclass(slots=True)
class Outages:
    """Draws outages."""

    stores: PoweredStores
    chance: random.Random
    taken: Taken = field(default_factory=Taken)

    def strike(self, on_dead: Callable[[], None]) -> None:
        """Let one store, or both, lose power and have it again; ``on_dead`` comes before anything is back."""
        struck = self._draw()
        if self.stores.records in struck and self.chance.random() < REWRITES:
            self.stores.records.ask("BGREWRITEAOF")
            time.sleep(self.chance.uniform(0, 0.05))  # somewhere in the rewrite
        for store in struck:
            store.kill()
        on_dead()
        self._cut_and_start(struck)
        if self.chance.random() < TWICE:
            self._cut_and_start(struck)

    def _draw(self) -> list[PoweredStore]:
        records, budgets = self.stores.records, self.stores.budgets
        if budgets is None:
            return [records]
        return self.chance.choice(([records], [budgets], [records, budgets]))

    def _cut_and_start(self, struck: list[PoweredStore]) -> None:
        for store in struck:
            store.kill()
        for store in struck:
            self._cut(store)
            time.sleep(self.chance.choice((0, 0.1)))  # how long the machine is away
            store.start()

    def _cut(self, store: PoweredStore) -> None:
        self.taken.cuts += 1
        if store is self.stores.budgets and self.chance.random() < EMPTIED:
            self.taken.emptied += 1
            store.disk.empty()
            return
        worst = self.chance.random() < 0.5
        cut = store.power_cut(None if worst else self.chance)
        self.taken.worst += worst
        self.taken.lost_bytes += cut.lost_bytes
        self.taken.lost_names += cut.lost_names
