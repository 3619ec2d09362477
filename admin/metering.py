"""Watches whether the proxy tells how calls end, of all openai publications: without it, tokens fall to presumption.

Nobody waits for it. What it found last is told in ``troubles`` and counted; a publication's own page is always current.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from prometheus_client import Gauge

from admin.troubles import METERING_MISSING
from catalog.records import Kind, ModelType, PublicationRecord
from catalog.store import PAGE, CatalogStore, StoreUnavailable
from ratelimit.usage import Metering
from runtime.lifecycle import going_on
from runtime.readiness import Trouble

LOOK_S: Final = 10.0
"""How often it is looked at. It takes minutes for anything to be missing."""

MeteringReader = Callable[[Sequence[str]], Awaitable[list[Metering]]]
"""Reads of subjects (``p:<uid>``) whether it is told how their calls end; raises ``StoreUnavailable``."""


class MeteringWatch:
    """``keep`` is its one task."""

    def __init__(
        self, store: CatalogStore, read: MeteringReader, gauge: Gauge, *, failed: Callable[[], object]
    ) -> None:
        """``gauge`` has the label ``metering``; ``failed`` is called when the store cannot be read."""
        self._store = store
        self._read = read
        self._gauge = gauge
        self._failed = failed
        self._missing = 0

    def troubles(self) -> tuple[Trouble, ...]:
        """Tell of publications whose calls end untold."""
        if not self._missing:
            return ()
        return (METERING_MISSING.found(f"of {self._missing} publications nobody tells how calls end"),)

    async def keep(self) -> None:
        """Look until cancelled. A store that is away is told elsewhere: what was found last stays."""
        while going_on():
            try:
                await self.look()
            except StoreUnavailable:
                self._failed()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look at all publications once; raises ``StoreUnavailable``."""
        found: Counter[Metering] = Counter()
        after = ""
        while page := await self._store.ids(Kind.PUBLICATION, after=after):
            found += Counter(await self._read(await self._openai(page)))
            after = page[-1]
            if len(page) < PAGE:
                break
        for metering in Metering:
            self._gauge.labels(metering.value).set(found[metering])
        self._missing = found[Metering.MISSING]

    async def _openai(self, ids: Sequence[str]) -> list[str]:
        records = (await self._store.get_many(Kind.PUBLICATION, ids)).values()
        return [
            f"p:{one.uid}" for one in records if isinstance(one, PublicationRecord) and one.type is ModelType.OPENAI
        ]
