"""Keeps the proxy in step with the catalog: reads all publications, plans, hands the plan to a sink, knows who is live.

Owns when to do it (at every change, again after a failure) and which publication is to blame when the proxy says no.
Knows no Envoy: a sink does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from redis.exceptions import RedisError

from catalog.records import PublicationRecord
from catalog.status import State, Status
from catalog.store.store import CatalogStore, StoreUnavailable
from publisher.metrics import PublisherMetrics
from publisher.plan import Plan
from publisher.planning import Planner
from publisher.reading import all_publications
from publisher.sink import NotServed, Refused, Sink
from publisher.troubles import BEHIND, REFUSED
from publisher.turns.board import Board, Failure
from publisher.workshop import Workshop
from runtime.lifecycle import going_on, rest
from runtime.readiness import Trouble

FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 5.0
"""The wait after a failure doubles from the first to the last, in seconds."""

_log: Final = logging.getLogger(__name__)


class Feed(Protocol):
    """Tells of changes."""

    async def changed(self) -> bool:
        """Wait a bounded time for news; says whether a publication may have changed."""
        ...


_Records = dict[str, PublicationRecord]  # by uid


class Publisher:
    """Follows the catalog. ``run`` is its one task; the rest may be called at any time from the same loop."""

    def __init__(
        self,
        store: CatalogStore,
        feed: Feed,
        sink: Sink,
        metrics: PublisherMetrics,
        *,
        workshop: Workshop | None = None,
    ) -> None:
        """``workshop``: where plans are laid out, by default one of its own."""
        self._store = store
        self._workshop = workshop or Workshop()
        self._planner = Planner()
        self._feed = feed
        self._sink = sink
        self._metrics = metrics
        self._due = asyncio.Event()
        self._live: _Records = {}  # as the proxy took them last; not_live says which of them it does not serve yet
        self._knows_live = False  # not before the first plan of this process is in force
        self._unfit: dict[str, Failure] = {}  # no proxy could be given these
        self._refused: dict[str, Failure] = {}  # the proxy said no to these
        self._not_live: Mapping[str, str] = {}  # of those in force by the last plan: uid -> why not
        self._board = Board()
        self._news = asyncio.Event()

    @property
    def most(self) -> int:
        """How many publications the proxy takes."""
        return self._sink.most

    @property
    def rewrites(self) -> bool:
        """Whether the proxy writes the name that a model's server knows into bodies that say another."""
        return self._sink.rewrites

    @property
    def speaks_grpc(self) -> bool:
        """Whether the proxy serves models by gRPC."""
        return self._sink.speaks_grpc

    @property
    def injects_values(self) -> bool:
        """Whether the proxy gives servers a header whose value was sent to the API."""
        return self._sink.injects_values

    @property
    def injects_secrets(self) -> bool:
        """Whether the proxy gives servers a header whose value a Secret has."""
        return self._sink.injects_secrets

    @property
    def board(self) -> Board:
        """Where publications stand, as far as is known, and what is waited for at this moment."""
        return replace(self._board, waiting=self._sink.waiting)

    async def news(self) -> None:
        """Wait until the board says something else."""
        await self._news.wait()
        self._news.clear()

    def begin(self, known: Board) -> None:
        """Take over from another process, which said this last: what was live is, until the first plan is in force."""
        self._live, self._not_live, self._knows_live = {}, {}, False
        self._unfit, self._refused = {}, {}
        self._board = known
        self._due.set()

    def poke(self) -> None:
        """Say that something was committed, so that nobody waits for the feed."""
        self._due.set()

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands."""
        return self.board.status(uid, version)

    def troubles(self) -> Sequence[Trouble]:
        """Tell what keeps publications from being served; empty when nothing does."""
        found = []
        if self._board.trouble:
            found.append(BEHIND.found(f"publications are not brought into force: {self._board.trouble}"))
        if failed := self._board.failed:
            found.append(REFUSED.found(f"{len(failed)} publications are not served as they are"))
        return found

    async def run(self) -> None:
        """Keep in step until cancelled. Failures are counted, told in ``status`` and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="publication-feed")
            group.create_task(self._keep_in_step(), name="publication-plan")
            group.create_task(self._sink.follow(self._due.set), name="publication-drift")

    async def _follow(self) -> None:
        retry_s = FIRST_RETRY_S
        while going_on():
            try:
                if await self._feed.changed():
                    self._due.set()
                retry_s = FIRST_RETRY_S
            except (RedisError, OSError) as error:
                self._note("store", error)
                await rest(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
                self._due.set()  # what was missed meanwhile is read anew

    async def _keep_in_step(self) -> None:
        retry_s = FIRST_RETRY_S
        while going_on():
            await self._due.wait()
            self._due.clear()
            if await self._try_to_apply():
                retry_s = FIRST_RETRY_S
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s):
                    await self._due.wait()
            retry_s = min(2 * retry_s, LAST_RETRY_S)
            self._due.set()

    async def _try_to_apply(self) -> bool:
        """Bring the catalog's publications into force; False when it has to be tried again."""
        try:
            with self._metrics.seconds.time():
                await self._apply(await all_publications(self._store))
        except StoreUnavailable as error:
            return self._note("store", error)
        except NotServed as error:
            return self._note("proxy", error)
        except Refused as error:
            return self._note("refused", error)
        if self._not_live:
            self._metrics.errors.labels("not_live").inc()
        return not self._not_live

    def _note(self, cause: str, error: Exception) -> bool:
        self._say(replace(self._board, trouble=str(error)))
        self._metrics.errors.labels(cause).inc()
        _log.warning("publications are not brought into force (%s): %s", cause, error)
        return False

    async def _apply(self, records: Sequence[PublicationRecord]) -> None:
        """Serve all that can be served; what the proxy refused is left as it was until it changes."""
        versions = {record.uid: record.version for record in records}
        refused = {uid: failure for uid, failure in self._refused.items() if versions.get(uid) == failure.version}
        tried = [record for record in records if record.uid not in refused]
        unfit = (await self._plan(tried)).refused
        fit = [record for record in tried if record.uid not in unfit]
        stay = versions.keys() - unfit.keys()
        served, newly_refused = await self._serve_fit(
            fit, {uid: live for uid, live in self._live.items() if uid in stay}
        )
        unfit = {
            **unfit,
            **(await self._plan(served.values())).refused,
        }  # one may stand where a refused change did not make way
        self._live = {uid: record for uid, record in served.items() if uid not in unfit}
        self._knows_live = True
        self._refused = refused | newly_refused
        self._unfit = {uid: Failure(versions[uid], reason) for uid, reason in unfit.items()}
        self._tell()

    async def _serve_fit(self, fit: Sequence[PublicationRecord], live: _Records) -> tuple[_Records, dict[str, Failure]]:
        """Serve these on top of what is live; a process that has just begun takes the sink's word for who that is."""
        if self._knows_live:
            return await self._serve(live, [record for record in fit if live.get(record.uid) != record])
        uids = await self._sink.served()
        presumed = _by_uid(record for record in fit if record.uid in uids)
        new = [record for record in fit if record.uid not in uids]
        try:
            return await self._serve(presumed, new)
        except Refused:
            good = await self._without_one(presumed)
            return await self._serve(good, [record for record in fit if record.uid not in good])

    async def _without_one(self, presumed: _Records) -> _Records:
        """All but the one that changed for the worse while nobody looked; none where it is more than one."""
        for uid in presumed:
            others = {other: record for other, record in presumed.items() if other != uid}
            with suppress(Refused):
                await self._put(others)
                return others
        return {}

    async def _serve(
        self, good: _Records, suspects: Sequence[PublicationRecord]
    ) -> tuple[_Records, dict[str, Failure]]:
        """Serve the good ones and as many of the suspects as the proxy takes, halving them to find who is refused.

        A suspect stands for the good one of its uid; every plan that is tried has all the good ones.
        """
        wanted = good | _by_uid(suspects)
        try:
            await self._put(wanted)
        except Refused as error:
            if not suspects:
                raise
            if len(suspects) == 1:
                await self._put(good)
                self._metrics.errors.labels("refused").inc()
                return good, {suspects[0].uid: Failure(suspects[0].version, str(error))}
        else:
            return wanted, {}
        half = len(suspects) // 2
        good, refused = await self._serve(good, suspects[:half])
        good, others = await self._serve(good, suspects[half:])
        return good, refused | others

    async def _put(self, records: _Records) -> None:
        self._not_live = await self._sink.apply(await self._plan(records.values()))

    async def _plan(self, records: Iterable[PublicationRecord]) -> Plan:
        return await self._workshop.do(self._planner.plan, list(records))

    def _tell(self) -> None:
        live = {uid: record.version for uid, record in self._live.items() if uid not in self._not_live}
        failed = self._unproved() | self._unfit | self._refused
        for uid, failure in failed.items():
            if failure != self._board.failed.get(uid):
                _log.warning("publication %s is not served: %s", uid, failure.reason)
        self._say(Board(live, failed))
        self._metrics.publications.labels(State.LIVE.value).set(len(live.keys() - failed.keys()))
        self._metrics.publications.labels(State.FAILED.value).set(len(failed))

    def _unproved(self) -> dict[str, Failure]:
        """Those in force that nobody can reach yet."""
        return {
            uid: Failure(self._live[uid].version, reason) for uid, reason in self._not_live.items() if uid in self._live
        }

    def _say(self, board: Board) -> None:
        if board != self._board:
            self._board = board
            self._news.set()


def _by_uid(records: Iterable[PublicationRecord]) -> _Records:
    return {record.uid: record for record in records}
