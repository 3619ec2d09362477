"""The gate: every part of the Check service put together, with its threads. Knows settings only as plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from catalog.ids import cell_of
from catalog.keys.secrets import Secrets
from catalog.records import Kind, ref
from catalog.store import names, reader
from extauth.answers import probing
from extauth.answers.refusal_log import RefusalLog
from extauth.batch import Checker
from extauth.credentials.carriers import KEY_HEADERS
from extauth.denials import Denials
from extauth.edge import CHECK_PATH, AnswerEncoder, CheckService, masked_key
from extauth.events import Events
from extauth.metrics import CheckMetrics
from extauth.question import read_question
from extauth.reasons import Reason
from extauth.records.allowances import ALLOWED, Allowances
from extauth.records.cache import RecordCache
from extauth.records.entries import PublicationEntry
from extauth.records.follower import FeedFollower
from extauth.request.call import Asking
from extauth.reserving import Reserver
from extauth.taker import Offsets, Taker
from extauth.verdict import Verdict
from gate import troubles
from gate.agreed import require_agreed, told_of
from gate.bounded import Bounded, BoundedPolicy, LocalLimiter
from gate.endings import Endings, Shortfall
from gate.formats import NEWEST, OLDEST, WrittenFormat
from gate.links import RECORDS_CELL, StoreLinks, StoreRecords, StoreUrls
from gate.sharing import heartbeat_of
from gate.unknown_peppers import UnknownPeppers
from gate.usage import Usage, count_admitted
from ratelimit.descriptors.asking import Asked
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.telling import Said
from ratelimit.service.edge import RATE_LIMIT_PATH, RateLimitService
from ratelimit.service.stream_done import StreamDone
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.meter import OWN_METER, Meter
from ratelimit.tokens.settling.metrics import SettlementMetrics
from ratelimit.tokens.settling.settler import BEHIND_S, Settler
from ratelimit.windows.budgets import Answer, Draw, Taken
from ratelimit.windows.limiter import Limiter
from runtime.clock import Clock
from runtime.grpc.front import BatchService, FrontFactory
from runtime.grpc.health import HEALTH_PATH, HealthService
from runtime.readiness import Readiness, Trouble
from runtime.store.faults import fault_of
from runtime.version import is_compiled

if TYPE_CHECKING:
    from gate.endings import ReceiverFactory

SERVICES: Final = {"check": CHECK_PATH, "ratelimit": RATE_LIMIT_PATH}
"""What a gate can serve, by the names that settings use."""
STOP_S: Final = 2.0

OnTaken = Callable[[Sequence[Draw], Taken], None]


class Gate:
    """Answers Check and ShouldRateLimit, hears endings at another address; ``start`` and ``stop`` own every thread."""

    def __init__(  # noqa: PLR0913  a gate is put together from its parts, all by name
        self,
        *,
        front: FrontFactory,
        stores: StoreUrls,
        secrets: Secrets,
        clock: Clock,
        registry: CollectorRegistry,
        on_fault: Callable[[], object],
        on_taken: OnTaken | None = None,
        bounded: BoundedPolicy | None = None,
        serves: Collection[str] = tuple(SERVICES),
        gateway_namespace: str = "",
        key_headers: Sequence[str] = KEY_HEADERS,
        endings: ReceiverFactory | None = None,
        meter: Meter = OWN_METER,
        allowances: Allowances = ALLOWED,
        newest_format: int = NEWEST,
    ) -> None:
        """``endings``: makes what hears at an address of its own how calls ended; ``None``: another gate does.

        ``serves``: names out of ``SERVICES``; calls of another service are answered UNIMPLEMENTED.

        ``newest_format``: the newest format of stored values that may be written.

        ``gateway_namespace``: of the HTTPRoutes of Envoy Gateway whose rules' names are believed; "" for none.
        ``key_headers``: by which a key may come, in this order and in lower case.
        ``allowances``: what a caller may do beside its calls.
        """
        self._clock = clock
        self.formats = WrittenFormat(newest_format, clock.monotonic_ms)
        self.ordinary = Ordinary(cells=stores.cells, metrics=OrdinaryMetrics(registry), writes_format=self.formats)
        self._metrics = CheckMetrics(registry)
        self._secrets = secrets
        self._allowances = allowances
        self._admission_log = on_taken
        self._draining = False
        self._unknown_peppers = UnknownPeppers()
        offsets = Offsets(per_cell=stores.budgets_are_a_cluster)
        self._offset = offsets.of(0)
        self._taker = Taker(
            partial(limiter_of, writes_format=self.formats),
            clock=clock,
            offset_of=offsets.of,
            on_taken=self._taken,
            on_unheard=self._unheard,
        )
        self._links = StoreLinks(
            stores,
            self._taker,
            clock,
            on_proved=self._link_proved,
            on_error=self._store_failed,
            on_fault=on_fault,
        )
        self._usage = Usage(
            registry,
            make=self._links.new_budgets_link,
            cells=stores.cells,
            on_fault=on_fault,
            now_ms=clock.monotonic_ms,
        )
        self._records = StoreRecords()
        self._lessons = LessonBook()
        self.cache = RecordCache(now_ms=clock.monotonic_ms)
        self._checker = self._make_checker(secrets, stores.cells, Denials(clock.monotonic_ms, offsets.of))
        self._follower = FeedFollower(
            self.cache,
            make=self._links.new_records_link,
            follow=lambda execute, epoch, block_ms: reader.follow(execute, epoch, block_ms, cell=RECORDS_CELL),
            read_epoch=lambda execute: self._records.read(execute, ()),
            on_error=self._metrics.feed_errors.inc,
            on_fault=on_fault,
            now_ms=clock.monotonic_ms,
        )
        refusals = RefusalLog(clock.monotonic_ms, masked_key, self._metrics.line_left_out)
        self._shortfall = Shortfall(clock.monotonic_ms)
        self._settler = self._make_settler(registry, stores, on_fault)
        self._endings = Endings(registry, clock, self._settler.note_all, shortfall=self._shortfall, meter=meter)
        if endings:
            self._endings.listen(endings, lambda: self.readiness().ready)
        check = CheckService(
            self._check,
            self._metrics.batch,
            lambda: self._taker.sizer.calls,
            clock,
            refusals=refusals,
            release=self._settler.release,
            encoder=AnswerEncoder(lambda call: probing.answered(call, self._secrets), key_headers),
            read=partial(read_question, gateway_namespace=gateway_namespace, key_headers=key_headers),
        )
        rate_limit = RateLimitService(
            StreamDone(self._endings.by_stream_done, self._settlements.unreadable),
            partial(self._decide_ordinary, offsets),
            self._settlements.unreadable,
            on_fault=partial(self._descriptors_failed, refusals),
            denies_undecided=lambda: self.ordinary.denies_undecided,
        )
        made: dict[str, BatchService] = {CHECK_PATH: check, RATE_LIMIT_PATH: rate_limit}
        served = {path: made[path] for name, path in SERVICES.items() if name in serves}
        health = HealthService(lambda: self.readiness().ready, [path.split("/")[1] for path in served])
        self._front = front({**served, HEALTH_PATH: health})
        self._metrics.cache_entries.set_function(lambda: len(self.cache))
        self._metrics.lanes.set_function(lambda: len(self._checker.lanes))
        self._metrics.lane_bytes.set_function(lambda: self._checker.lanes.size_bytes)
        self._metrics.feed_lag_s.set_function(self._follower.lag_s)
        self._metrics.in_flight.set_function(lambda: self._front.in_flight)
        self._metrics.store_up.set_function(lambda: float(self._links.ready))
        self._heartbeat = heartbeat_of(
            self._links,
            stores,
            self.formats,
            least=bounded.least_gates if bounded else 1,
            on_error=self._store_failed,
            on_fault=on_fault,
            now_ms=clock.monotonic_ms,
        )
        self._metrics.gates.set_function(lambda: self._heartbeat.gates)
        self._metrics.store_format.set_function(self.formats)
        self._bounded = self._make_bounded(bounded, secrets, stores.cells) if bounded else None

    def _make_checker(self, secrets: Secrets, cells: int, denials: Denials) -> Checker:
        return Checker(
            cache=self.cache,
            records=self._records,
            limiter=self._taker,
            secrets=secrets,
            cells=cells,
            told_of=partial(told_of, cells),
            on_new_history=partial(require_agreed, cells),
            reserve=Reserver(os.urandom, self._lessons.of),
            denials=denials,
            allowances=self._allowances,
            now_ms=lambda: self._offset.deadline_on_store_ms(self._clock.monotonic_ms()),
            wall_ms=self._clock.wall_ms,
            on=Events(
                stale=self._metrics.stale.add,
                gathered=self._metrics.gathered,
                laned=self._metrics.lane_calls.add,
                denied=self._metrics.denied.add,
                unknown_outcome=self._metrics.unknown_outcomes.add,
                store_error=self._call_failed,
            ),
        )

    def _make_settler(self, registry: CollectorRegistry, stores: StoreUrls, on_fault: Callable[[], object]) -> Settler:
        self._settlements = SettlementMetrics(registry, on_presumed=self._shortfall.presumed)
        return Settler(
            make=self._links.new_budgets_link,
            cells=stores.cells,
            cell_of=cell_of,
            rests_with=str if stores.budgets_are_a_cluster else lambda _cell: "0",
            metrics=self._settlements,
            lessons=self._lessons,
            usage=self._usage.book,
            name_of=self._name_of,
            on_fault=on_fault,
            now_ms=self._clock.monotonic_ms,
            writes_format=self.formats,
        )

    def _name_of(self, publication: str) -> str:
        """A publication's name, as far as the cache still knows it."""
        reference = ref(Kind.PUBLICATION, publication)
        entry = self.cache.look((reference,))[1].get(reference)
        return f"{entry.record.tenant}/{entry.record.model}" if isinstance(entry, PublicationEntry) else ""

    def _make_bounded(self, policy: BoundedPolicy, secrets: Secrets, cells: int) -> Bounded:
        heartbeat = self._heartbeat
        bounded = Bounded(
            policy,
            cache=self.cache,
            lanes=self._checker.lanes,
            secrets=secrets,
            allowances=self._allowances,
            cells=cells,
            clock=self._clock,
            heartbeat=heartbeat,
            limiter=LocalLimiter(self._clock, self._offset, heartbeat, self._taken_here),
            store_is_up=lambda: self._links.ready,
        )
        self._metrics.bounded_mode.set_function(lambda: float(bounded.is_deciding))
        return bounded

    # Life

    def start(self) -> None:
        """Bind, connect and begin to answer; calls are refused until the store has been proved."""
        self._front.start()
        self._links.start()
        self._follower.start()
        self._settler.start()
        self._usage.writer.start()
        self._endings.start()
        self._heartbeat.start()

    @property
    def address(self) -> str:
        """What clients dial."""
        return self._front.address

    @property
    def endings_address(self) -> str:
        """Where endings are received; "" where none are."""
        return self._endings.address

    def drain(self) -> None:
        """Say that we are going: health and readiness turn, calls are still answered."""
        self._draining = True
        self._endings.drain()

    def stop(self) -> None:
        """Answer what was taken, then end every thread. Bounded."""
        self._draining = True
        self._front.stop(STOP_S)
        self._follower.stop(STOP_S)
        self._endings.stop()
        self._settler.stop(STOP_S)
        self._usage.writer.stop(STOP_S)
        self._heartbeat.stop(STOP_S)
        self._links.stop(STOP_S)

    def use_secrets(self, secrets: Secrets) -> None:
        """Decide with these from the next batch on; any thread may say so."""
        self._secrets = secrets
        self._checker.use_secrets(secrets)
        if self._bounded:
            self._bounded.use_secrets(secrets)
        self._unknown_peppers.renew()

    def readiness(self) -> Readiness:
        """Say whether calls can be decided, and if not, what is wrong and what to do."""
        facts = {
            "grpc": self.address,
            "endings": self.endings_address,
            "epoch": self.cache.epoch,
            "compiled": is_compiled(),
            "storeFormat": self.formats(),
            "storeFormatKeptBy": self.formats.kept_by,
        }
        away, warnings = self._links.troubles(), [*self._links.warnings(), *self._own_warnings()]
        if away and self._bounded and not self._links.differ and (mode := self._bounded.told()):
            away, warnings = [], [mode, *away, *warnings]
        return Readiness((*self._own_problems(), *away), tuple(warnings), facts)

    def _own_problems(self) -> Iterator[Trouble]:
        if self._draining:
            yield troubles.DRAINING.found("this gate is about to stop")

    def _own_warnings(self) -> Iterator[Trouble]:
        if calls := self._unknown_peppers.calls:
            yield troubles.PEPPER_UNKNOWN.found(
                f"the secrets file lacks a pepper of keys in use: {calls} calls refused"
            )

        if (behind_s := self._settler.behind_s) > BEHIND_S:
            yield troubles.SETTLEMENT_BEHIND.found(
                f"ended calls are not settled, or overdue ones not swept, for {behind_s:.0f} s; "
                f"{self._settler.waiting} calls wait"
            )

        if missing := self._shortfall.found():
            where = "here" if self.endings_address else "here, without --endings-listen"
            yield troubles.ENDINGS_MISSING.found(
                f"nobody told how {missing[0]} calls ended, while {missing[1]} endings were heard {where}"
            )

    # The way of a batch

    def _decide_ordinary(self, offsets: Offsets, asked: Sequence[Asked], deadline_ms: float) -> list[Said]:
        offset, sent_ms = offsets.of(self.ordinary.cell), self._clock.monotonic_ms()

        def hear(store_ms: int) -> None:
            offset.learn(sent_ms=sent_ms, store_ms=store_ms, received_ms=self._clock.monotonic_ms())

        execute = self._links.until(deadline_ms).budgets.execute
        return self.ordinary.decide(asked, execute, offset.deadline_on_store_ms(deadline_ms), hear)

    def _descriptors_failed(self, refusals: RefusalLog, calls: int) -> None:
        self.ordinary.metrics.failed(calls)
        refusals.note(Reason.FAULT, lambda: None)  # with the traceback

    def _check(self, calls: Sequence[Asking], deadline_ms: float) -> list[Verdict]:
        count_unknown = self._unknown_peppers.counter()
        verdicts = self._checker.check(calls, self._links.until(deadline_ms), deadline_ms)
        count_unknown(sum(verdict.reason is Reason.PEPPER_UNKNOWN for verdict in verdicts))
        if self._bounded and not self._links.differ:
            return self._bounded.instead(calls, verdicts)
        return verdicts

    def _taken(self, draws: Sequence[Draw], taken: Taken) -> None:
        if taken.clock_steps:
            self._metrics.clock_steps.inc(taken.clock_steps)
        count_admitted(self._usage.book, taken)
        self._endings.made(_holding(draws, taken))
        self._log_admissions(draws, taken)

    def _unheard(self, draws: Sequence[Draw], until_ms: int) -> None:
        """Have given back what calls may hold that are refused because the store's answer did not come."""
        for draw in draws:
            if draw.hold is not None:
                self._settler.give_back(draw.hold.id, until_ms)

    def _taken_here(self, draws: Sequence[Draw], taken: Taken) -> None:
        """Count what was taken from this gate's own share."""
        grants = [grant for grant in taken.grants if grant.answer is Answer.ADMITTED]
        admitted = sum(bool(grant.draw.charge.usage) for grant in grants)  # not lists, nor bad calls
        self._metrics.bounded_admissions.inc(admitted)
        self._log_admissions(draws, taken)

    def _log_admissions(self, draws: Sequence[Draw], taken: Taken) -> None:
        if self._admission_log is not None:
            self._admission_log(draws, taken)

    def _link_proved(self) -> None:
        self._metrics.store_links.inc()
        if self._bounded and self._links.ready:
            self._bounded.store_is_back()

    def _store_failed(self, error: Exception) -> None:
        self._metrics.store_errors.labels(fault_of(error).value).inc()

    def _call_failed(self, error: Exception) -> None:
        """Count it and have new links proved."""
        self._store_failed(error)
        self._links.doubt(error)
        self._links.renew()


def _holding(draws: Sequence[Draw], taken: Taken) -> int:
    """How many of the admitted calls hold tokens."""
    pairs = zip(draws, taken.grants, strict=False)  # no grants where the fence refused all
    return sum(draw.hold is not None and grant.answer is Answer.ADMITTED for draw, grant in pairs)


def limiter_of(cell: int, writes_format: Callable[[], int] = lambda: OLDEST) -> Limiter:
    """Make the limiter of a cell, fenced by the catalog's epoch there."""
    name = str(cell)
    return Limiter(cell=name, epoch_key=names.epoch(name), feed_key=names.feed(name), writes_format=writes_format)
