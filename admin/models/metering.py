"""Watches what is told of openai publications' calls: whether their ends are, and whether many were dearer than held.

Without ends, tokens fall to presumption. It follows the change feed, so that a look costs what changed: one command for
a catalog that did not, and a pipeline of counters for openai publications. Nobody waits for it. What it found last is
told in ``troubles`` and counted; a publication's own page is always current.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import Gauge

from admin.troubles import ENDINGS_MISSING, TOLD_ABOVE_HOLD
from catalog.records import Kind, ModelType, PublicationRecord
from catalog.store.store import PAGE, CatalogStore, StoreUnavailable
from ratelimit.usage.facts import ABOVE_AFTER, Metering, Signs
from runtime.lifecycle import going_on, rest
from runtime.readiness import Trouble

LOOK_S: Final = 10.0
"""How often it is looked at. It takes minutes for anything to be missing."""

TURNS: Final = 6
"""Where there are many, each is looked at in one of so many looks: a minute."""

LOOKS_AFRESH: Final = 360
"""After so many looks, an hour, all publications are read again, though no change was told."""

_REF: Final = f"{Kind.PUBLICATION.value}:"
MeteringReader = Callable[[Sequence[str]], Awaitable[list[Signs | None]]]
"""Reads of subjects (``p:<uid>``) what is told of their calls, ``None`` where the counters are damaged; raises
``StoreUnavailable``."""


class MeteringWatch:
    """``keep`` is its one task."""

    def __init__(
        self, store: CatalogStore, read: MeteringReader, gauge: Gauge, above: Gauge, *, failed: Callable[[], object]
    ) -> None:
        """``gauge`` has the label ``metering``, ``above`` none; ``failed``: called when the store cannot be read."""
        self._store = store
        self._read = read
        self._gauge = gauge
        self._above_gauge = above
        self._failed = failed
        self._missing = 0
        self._above = 0
        self._known: dict[str, Signs | None] = {}  # openai publications by uid; None: not known
        self._epoch: str | None = None  # up to which they are known; None: not at all
        self._looks = 0  # since all were read
        self._turn = 0

    def troubles(self) -> tuple[Trouble, ...]:
        """Tell of publications whose calls end untold, or cost more than they held."""
        found: tuple[Trouble, ...] = ()
        if self._missing:
            found += (ENDINGS_MISSING.found(f"of {self._missing} publications nobody tells how calls end"),)
        if self._above:
            found += (TOLD_ABOVE_HOLD.found(f"calls of {self._above} publications cost more tokens than they held"),)
        return found

    async def keep(self) -> None:
        """Look until cancelled. A store that is away is told elsewhere: what was found last stays."""
        while going_on():
            try:
                await self.look()
            except StoreUnavailable:
                self._failed()
            await rest(LOOK_S)

    async def look(self) -> None:
        """Take up what changed and look at those whose turn it is; raises ``StoreUnavailable``."""
        await self._follow()
        due = self._due()
        for start in range(0, len(due), PAGE):
            page = due[start : start + PAGE]
            self._known |= zip(page, await self._read([f"p:{uid}" for uid in page]), strict=True)
        known = [told for told in self._known.values() if told is not None]
        found = Counter(told.metering for told in known)
        for metering in Metering:
            self._gauge.labels(metering.value).set(found[metering])
        self._missing = found[Metering.MISSING]
        self._above = sum(told.above >= ABOVE_AFTER for told in known)
        self._above_gauge.set(self._above)

    async def _follow(self) -> None:
        """Know the openai publications: by what the feed says changed, or all again where it cannot say."""
        delta = None
        if self._epoch is not None and self._looks % LOOKS_AFRESH:
            delta = await self._store.changes_since(self._epoch)
        if delta is None:
            await self._begin()
            return
        self._looks += 1
        changed = [one.partition(":")[2] for one in delta.refs if one.startswith(_REF)]
        for start in range(0, len(changed), PAGE):
            await self._take_up(changed[start : start + PAGE])
        self._epoch = delta.epoch

    async def _begin(self) -> None:
        """Read all publications. The epoch is read before them, so that no change after it is missed."""
        epoch, after = await self._store.epoch(), ""
        there: list[str] = []
        while page := await self._store.ids(Kind.PUBLICATION, after=after):
            await self._take_up(page)
            there += page
            after = page[-1]
            if len(page) < PAGE:
                break
        for gone in self._known.keys() - there:
            del self._known[gone]
        self._epoch, self._looks = epoch, 1

    async def _take_up(self, uids: Sequence[str]) -> None:
        """Read publications, of which those that are openai's are known from now on and the others are not."""
        records = await self._store.get_many(Kind.PUBLICATION, uids)
        for uid in uids:
            record = records.get(uid)
            if isinstance(record, PublicationRecord) and record.type is ModelType.OPENAI:
                self._known.setdefault(uid, None)
            else:
                self._known.pop(uid, None)

    def _due(self) -> list[str]:
        """Say whose counters are read now: all where they are few, else the new, the missing and a part of the rest."""
        uids = list(self._known)
        if len(uids) <= PAGE:
            return uids
        self._turn = (self._turn + 1) % TURNS
        part = uids[self._turn * len(uids) // TURNS : (self._turn + 1) * len(uids) // TURNS]
        urgent = [uid for uid, told in self._known.items() if told is None or _is_wrong(told)]
        return list(dict.fromkeys([*urgent, *part]))


def _is_wrong(told: Signs) -> bool:
    return told.metering is Metering.MISSING or told.above >= ABOVE_AFTER
