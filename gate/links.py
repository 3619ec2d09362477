"""The gate's links to its stores: kept good, proved before use, handed to each batch with its deadline.

Owns which store is asked for what, and what each link has proved. Decides nothing about calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError, ResponseError

from catalog.cell_number import CellsDifferError, require
from catalog.store import names, reader
from catalog.store.health import read_health
from catalog.store.reader import Delta, Snapshot
from catalog.troubles import doubts
from extauth.stores import Budgets, Execute, ExecuteMany, ProvedEpochs, RecordsBehindError, Stores
from extauth.taker import Taker
from gate.troubles import AILMENT_OF, STORE_AWAY, evictions
from runtime.clock import Clock
from runtime.readiness import Trouble
from runtime.store.cluster import AnyLink, ClusterLink
from runtime.store.faults import StoreFault
from runtime.store.keeper import StoreKeeper
from runtime.store.link import Command, NotConnectedError, StoreLink
from runtime.store.spare import TakeUp
from runtime.store.urls import is_cluster

_log: Final = logging.getLogger(__name__)

RECORDS_CELL: Final = "0"
"""Records are of one piece; only budgets are split into cells."""
PREPARE_MS: Final = 1_000
"""Longest time for proving a new link: load the script, learn the clock, decide once."""


@dataclass(frozen=True, slots=True)
class StoreUrls:
    """Where records and budgets are kept, and into how many cells the budgets are split."""

    records: str
    budgets: str
    cells: int = 1
    wait_ms: float = 50  # longest that a call waits for one: a store that takes longer is not used

    @property
    def budgets_are_a_cluster(self) -> bool:
        """Whether the budgets' cells may be on several servers."""
        return is_cluster(self.budgets)

    @property
    def are_one(self) -> bool:
        """Whether one store keeps both."""
        return self.records == self.budgets


class StoreRecords:
    """``catalog.store.reader`` for the records' store, as ``extauth.records.gathering`` wants it."""

    def read(self, execute: Execute, refs: Sequence[str]) -> Snapshot:
        """Read records together with the epoch."""
        return reader.read(execute, refs, cell=RECORDS_CELL)

    def catch_up(self, execute: Execute, epoch: str) -> Delta | None:
        """Tell what changed since ``epoch``."""
        return reader.catch_up(execute, epoch, cell=RECORDS_CELL)

    def knows(self, execute: Execute, epoch: str) -> bool:
        """Whether an epoch was ever in force there."""
        return reader.knows(execute, epoch, cell=RECORDS_CELL)


class ReplicaError(ResponseError):
    """A replica may lag behind: what it says of records proves nothing."""


class StoreLinks:
    """Owns the threads that keep the links."""

    def __init__(
        self,
        urls: StoreUrls,
        taker: Taker,
        clock: Clock,
        *,
        on_proved: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_fault: Callable[[], object],
    ) -> None:
        self._urls = urls
        self._taker = taker
        self._clock = clock
        self._on_error = on_error
        self._differs = False
        self._doubts: dict[str, tuple[Trouble, ...]] = {"records": (), "budgets": ()}  # what may cost what was answered
        self._proved_by: AnyLink | None = None
        self._proved = ProvedEpochs()  # by that link; worth nothing on any other
        keeper = partial(StoreKeeper, clock=clock, on_proved=on_proved, on_error=on_error, on_fault=on_fault)
        self._budgets: StoreKeeper[AnyLink] = keeper(
            self.new_budgets_link, self._prove_budgets, look=self._look_at_budgets, name="budgets-keeper"
        )
        self._records: StoreKeeper[StoreLink] | None = None
        if not urls.are_one:
            self._records = keeper(
                self.new_records_link, self._prove_records, look=self._look_at_records, name="records-keeper"
            )

    def new_records_link(self) -> StoreLink:
        """Make a link to the records' store, not connected."""
        return StoreLink(self._urls.records, self._clock)

    def new_budgets_link(self) -> AnyLink:
        """Make a link to the budgets' store, not connected."""
        make = ClusterLink if self._urls.budgets_are_a_cluster else StoreLink
        return make(self._urls.budgets, self._clock)

    @property
    def _keepers(self) -> Mapping[str, StoreKeeper[Any]]:
        if self._records is None:
            return {"store": self._budgets}
        return {"budgets store": self._budgets, "records store": self._records}

    def start(self) -> None:
        """Begin to connect."""
        for keeper in self._keepers.values():
            keeper.start()

    def stop(self, timeout_s: float) -> None:
        """End the threads and close the links."""
        for keeper in self._keepers.values():
            keeper.stop(timeout_s)

    def troubles(self) -> list[Trouble]:
        """Say what is wrong with each store that cannot be asked, and what to do; nothing when all is well."""
        return [
            AILMENT_OF.get(keeper.fault, STORE_AWAY).found(
                keeper.trouble or f"the link to the {name} broke; a new one is being made"
            )
            for name, keeper in self._keepers.items()
            if not keeper.ready
        ]

    def warnings(self) -> list[Trouble]:
        """Say what is not as it should be in stores that work, as of their newest links."""
        return list(dict.fromkeys(doubt for found in self._doubts.values() for doubt in found))

    @property
    def ready(self) -> bool:
        """Whether every store can be asked."""
        return all(keeper.ready for keeper in self._keepers.values())

    def current(self) -> AnyLink | None:
        """The link to the budgets store, where it is good."""
        return self._budgets.current(self._clock.monotonic_ms())

    def renew(self) -> None:
        """Have new links made where one is broken; returns at once."""
        for keeper in self._keepers.values():
            keeper.renew()

    def doubt(self, error: Exception) -> None:
        """Give up a link by which nothing may be decided: new ones are held to the same before they are used.

        To a records store that lacks what others know, perhaps a deposed primary; to any with other cells than ours.
        """
        if isinstance(error, RecordsBehindError) and self._records is not None:
            self._records.discard()
        if isinstance(error, CellsDifferError):
            self._differs = True
            for keeper in self._keepers.values():
                keeper.discard()

    @property
    def differ(self) -> bool:
        """Whether a store was found to have agreed on another number of cells than ours."""
        refused = (keeper.fault is StoreFault.CELLS and not keeper.ready for keeper in self._keepers.values())
        return self._differs or any(refused)

    def until(self, deadline_ms: float) -> Stores:
        """Return the stores for one batch; no wait on them outlasts the deadline (monotonic clock)."""
        link = self._budgets.current(deadline_ms)
        budgets = self._budgets_until(link, deadline_ms)
        if self._records is None:
            return Stores(budgets.execute, budgets, None)
        records = _execute(self._records, self._records.current(deadline_ms), deadline_ms)
        if link is None or link is not self._proved_by:
            self._proved_by, self._proved = link, ProvedEpochs()
        return Stores(records, budgets, self._proved)

    def _budgets_until(self, link: AnyLink | None, deadline_ms: float) -> Budgets:
        if link is None:
            return Budgets(_refuse, _refuse)

        def execute_many(commands: Sequence[Command]) -> list[Any]:
            replies = link.execute_many(deadline_ms, commands)
            if not self._urls.budgets_are_a_cluster and any(_is_refusal(reply) for reply in replies):
                self._budgets.discard()  # one server of a Cluster is no reason to leave the others
            return replies

        return Budgets(_execute(self._budgets, link, deadline_ms), execute_many)

    # Proving a link

    def _prove_budgets(self, link: AnyLink) -> TakeUp:
        """Load the script and decide once, by looking, within the time that a call would wait for it."""
        execute = self._for_proof(link)
        health = read_health(execute)
        if self._urls.are_one:
            _refuse_replica(execute)
            self._note("records", doubts(health))
        self._note("budgets", evictions(health))
        self._require_cells(partial(link.execute_many, self._clock.monotonic_ms() + PREPARE_MS))
        self._taker.limiter(0).load(execute)
        return self._decide_by(link, self._in_time())

    def _look_at_budgets(self, link: AnyLink) -> TakeUp:
        """See that a link proved before still leads to a store that decides, all within the time of a call."""
        deadline_ms = self._in_time()
        if self._urls.are_one:
            _refuse_replica(partial(link.execute, deadline_ms))
        return self._decide_by(link, deadline_ms)

    def _decide_by(self, link: AnyLink, deadline_ms: float) -> TakeUp:
        """Decide once; the store's clock is learnt when the link comes into use, since this one may be another's."""
        readings = self._taker.read_clocks(partial(link.execute_many, deadline_ms), self._urls.cells)
        return partial(self._taker.learn_clocks, readings)

    def _prove_records(self, link: StoreLink) -> TakeUp:
        """See that it is the store that is written to, that records can be read, and that they are the newest."""
        execute = self._for_proof(link)
        take_up = _read_by(execute)
        require([execute("GET", names.cells(RECORDS_CELL))], self._urls.cells)
        for epoch in self._told():
            if not reader.knows(execute, epoch, cell=RECORDS_CELL):
                raise RecordsBehindError(epoch)
        self._note("records", doubts(read_health(execute)))
        return take_up

    def _require_cells(self, execute_many: ExecuteMany) -> None:
        """Hold every cell to our number; one that has none says nothing."""
        found = execute_many([("GET", names.cells(str(cell))) for cell in range(self._urls.cells)])
        for refused in filter(_is_refusal, found):
            raise refused
        require(found, self._urls.cells)
        self._differs = False

    def _told(self) -> set[str]:
        """Read the records' epochs that the budgets store was told of; none where it cannot be asked: calls ask too."""
        link = self.new_budgets_link()
        questions = [("GET", names.records(str(cell))) for cell in range(self._urls.cells)]
        try:
            link.connect()
            replies = link.execute_many(self._clock.monotonic_ms() + PREPARE_MS, questions)
        except (RedisError, OSError, UnicodeError) as error:
            self._on_error(error)
            return set()
        finally:
            link.close()
        return {reply.decode() for reply in replies if isinstance(reply, bytes)}

    def _look_at_records(self, link: StoreLink) -> TakeUp:
        """See the same of a link proved before, within the time of a call."""
        return _read_by(partial(link.execute, self._in_time()))

    def _note(self, store: str, found: Iterable[Trouble]) -> None:
        """Remember what is to be said about a store, and log what was not said before."""
        before, self._doubts[store] = self._doubts[store], tuple(found)
        for doubt in self._doubts[store]:
            if doubt not in before:
                _log.warning("the store of %s: %s", store, doubt.problem)

    def _for_proof(self, link: AnyLink) -> Execute:
        return partial(link.execute, self._clock.monotonic_ms() + PREPARE_MS)

    def _in_time(self) -> float:
        return self._clock.monotonic_ms() + self._urls.wait_ms


def _execute(keeper: StoreKeeper[Any], link: AnyLink | None, deadline_ms: float) -> Execute:
    if link is None:
        return _refuse

    def execute(*command: Any) -> Any:
        try:
            return link.execute(deadline_ms, *command)
        except ResponseError as error:
            if _is_refusal(error) and isinstance(link, StoreLink):
                keeper.discard()
            raise

    return execute


def _is_refusal(reply: object) -> bool:
    """Whether a store says no: read-only, no memory. It is not one to stay with; one without the script is."""
    return isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError)


def _refuse_replica(execute: Execute) -> None:
    try:
        role = execute("ROLE")
    except ResponseError:  # some managed stores do not tell; the taking script would be refused by a replica anyway
        return
    if role[0] != b"master":
        raise ReplicaError("READONLY it is a read-only replica; name the primary")


def _read_by(execute: Execute) -> TakeUp:
    _refuse_replica(execute)
    reader.read(execute, (), cell=RECORDS_CELL)
    return _nothing


def _nothing() -> None:
    """Reading records teaches nothing that a link keeps."""


def _refuse(*_command: Any) -> Any:
    raise NotConnectedError("there is no link to the store")
