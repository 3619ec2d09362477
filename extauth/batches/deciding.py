"""What the open calls of a batch come to: by their lanes where they have one, else by their records, which makes one.

Reads records where the cache has them not; takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from catalog.keys.secrets import Secrets
from catalog.records import ModelType
from extauth.batches.bodies import read_bodies, read_posted
from extauth.batches.trying import Asked, Batch, Decided
from extauth.decide import Admission, Decision, Facts, Refusal, decide, needs_records, present
from extauth.events import UNHEARD, Events
from extauth.facts import Named, Presented, facts_of, first_refs, named_by
from extauth.kserve.telling import asked_by, is_question
from extauth.lanes.lane import Lane, lane_of
from extauth.lanes.openings import is_plain, named_with, usual_endpoint
from extauth.lanes.table import LaneTable
from extauth.reasons import Reason
from extauth.records.allowances import ALLOWED, Allowances
from extauth.records.cache import RecordCache
from extauth.records.gathering import GATHER_ROUNDS, Gatherer, RecordsChangingError
from extauth.request.body import Body, Unread
from extauth.request.call import Asking, Call
from extauth.request.endpoints import endpoint_of
from extauth.reserving import Reserver
from extauth.stores import Stores
from extauth.verdict import Verdict, refused


class Decider:
    """Decides the open calls of batches, all of one batch as of one epoch."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        cache: RecordCache,
        gatherer: Gatherer,
        lanes: LaneTable,
        reserve: Reserver,
        secrets: Secrets,
        *,
        cells: int,
        now_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        allowances: Allowances = ALLOWED,
        on: Events = UNHEARD,
    ) -> None:
        self._cache = cache
        self._gatherer = gatherer
        self._lanes = lanes
        self._reserve = reserve
        self._secrets = secrets
        self._cells = cells
        self._allowances = allowances
        self._now_ms = now_ms  # a lower bound of the store's clock
        self._wall_ms = wall_ms
        self._on = on

    def use_secrets(self, secrets: Secrets) -> None:
        """Decide with these from the next batch on; any thread may say so."""
        self._secrets = secrets
        self._lanes.forget()

    def begin(self, calls: Sequence[Asking], stores: Stores, deadline_ms: float) -> Batch:
        """Begin a batch: all of it goes by the secrets of now, and by none that were put in their place before."""
        self._lanes.begin()
        era = self._lanes.era  # read first: what is decided by secrets that are being replaced is not kept
        return Batch(calls, stores, deadline_ms, self._secrets, era)

    def decide(self, batch: Batch) -> Decided | None:
        """Decide the open calls; ``None`` where none is left. Raises ``RecordsChangingError``, and the store's errors.

        Lanes are looked for after the epoch was read by which they are to be proved, so each is at least as new; what
        is decided on records of another epoch than that is decided once more.
        """
        for _ in range(GATHER_ROUNDS):
            waiting = batch.open_calls()
            if not waiting:
                return None
            now_ms, decided = self._now_ms(), Decided(self._cache.epoch)
            without = self._by_lanes(batch, waiting, decided, now_ms)
            if len(without) < len(waiting):
                self._on.laned(len(waiting) - len(without))
            if without:
                without = self._refuse_locally(batch, without)
            if not without or self._by_records(batch, without, decided, now_ms):
                return decided if decided.by_cell or decided.refusals else None
        raise RecordsChangingError

    # By lanes

    def _by_lanes(self, batch: Batch, waiting: Sequence[int], decided: Decided, now_ms: int) -> list[int]:
        """Ask for the calls that have lanes; returns the others."""
        calls, names, by_cell, find = batch.calls, batch.names, decided.by_cell, self._lanes.find
        without = []
        for index in waiting:
            call = calls[index]
            name = names[index] or self._name(batch, index, call)
            lane = find(name, now_ms) if name else None
            if lane is None:
                without.append(index)
            elif not lane.opens:
                by_cell[lane.cell].append(Asked(index, lane, lane.draw))
            elif (asked := self._opened(batch, index, lane, now_ms)) is not None:
                by_cell[asked.of.cell].append(asked)
            else:
                without.append(index)
        return without

    def _name(self, batch: Batch, index: int, call: Asking) -> bytes:
        """The name of a call's lane; b"" for one that cannot have any."""
        route = call.publication or call.openai_host
        if not call.api_key or not route or call.key_fault is not None:
            return b""
        if call.by_path:
            return self._name_by_path(batch, index, call, route)
        which = f"{'p' if call.publication else 'h'}{route}\0{call.api_key}"
        name = batch.names[index] = self._lanes.name(which)
        return name

    def _name_by_path(self, batch: Batch, index: int, call: Asking, route: str) -> bytes:
        """The same of a call whose path names the model: which, and whether it is a call of it."""
        whole = call.read()
        asked = asked_by(whole)
        if asked is None:
            return b""
        where = f"{'p' if call.publication else 'h'}{route}\0{asked.base}"
        which = f"{where}\0{is_question(asked, whole)}\0{asked.name}"
        name = batch.names[index] = self._lanes.name(f"n{which}\0{call.api_key}")
        return name

    def _opened(self, batch: Batch, index: int, opening: Lane, now_ms: int) -> Asked | None:
        """Ask for a call whose body decides, which is read now if it was not before."""
        call = batch.calls[index]
        posted, path = call.posted(), opening.publication.record.path if call.publication else ""
        endpoint = usual_endpoint(posted, path)
        if endpoint is None:
            return None
        body = call.body
        if body is None and posted.raw:
            body = read_posted(posted, path)
            batch.calls[index] = call.reading(body)
        elif body is None:  # an Envoy of the release before tells what it read
            body = call.read().body
        if not isinstance(body, Body):
            return None
        lane = self._lanes.find(named_with(batch.names[index], endpoint, body), now_ms)
        if lane is None or not is_plain(body, lane):
            return None
        return Asked(index, lane, self._reserve.draw(lane, body, posted.path))

    # By records

    def _refuse_locally(self, batch: Batch, indexes: Sequence[int]) -> list[int]:
        """Answer the calls that no record could admit, once; returns the others.

        Forged, missing and revoked keys never reach the store.
        """
        wall_ms, left = self._wall_ms(), []
        for index in indexes:
            if index in batch.question.calls:
                left.append(index)
                continue
            call = batch.calls[index].read()
            presented = present(call, batch.secrets, now_ms=wall_ms)
            named = named_by(call, presented)
            batch.question.note(index, call, presented, named)
            verdict = batch.verdicts[index] = self._local_refusal(batch, call, presented, named)
            if verdict is None:
                left.append(index)
        return left

    def _local_refusal(self, batch: Batch, call: Call, presented: Presented, named: Named) -> Verdict | None:
        absent = bool(named.key) and self._cache.is_absent(named.key)
        if not absent and named.key and (named.publication or named.host):
            return None
        _, entries = self._cache.look(first_refs(named))
        facts = facts_of(call, named, entries)
        if absent:
            return Verdict(Reason.KEY_UNKNOWN, facts.publication)
        gone = bool(named.publication) and self._cache.is_absent(named.publication)
        if needs_records(call, presented, facts.publication) and not gone:
            return None
        decision = decide(call, presented, facts, batch.secrets, now_ms=0)
        return refused(decision) if isinstance(decision, Refusal) else None

    def _by_records(self, batch: Batch, indexes: Sequence[int], decided: Decided, now_ms: int) -> bool:
        """Decide calls on their records; False where these are of another epoch than what was decided before."""
        question, secrets = batch.question, batch.secrets

        def decide_one(index: int, facts: Facts) -> Decision:
            call, presented = question.calls[index], question.presented[index]
            return decide(
                call, presented, facts, secrets, now_ms=now_ms, cells=self._cells, allowances=self._allowances
            )

        gathered = self._gatherer.gather(question, indexes, batch.stores.records)
        while read_bodies(question.calls, gathered.facts, decide_one):
            gathered = self._gatherer.gather(question, indexes, batch.stores.records)
        for index in indexes:  # as far as they were read
            batch.calls[index] = question.calls[index]
        if not decided.by_cell:
            decided.epoch = gathered.epoch
        if gathered.epoch != decided.epoch:
            return False
        batch.close(gathered.unreadable, Reason.STATE_UNREADABLE)
        for index, facts in gathered.facts.items():
            decision = decide_one(index, facts)
            if isinstance(decision, Admission):
                lane = self._made(batch, index, decision, decided.epoch)
                decided.by_cell[lane.cell].append(Asked(index, lane, self._reserve(lane, question.calls[index])))
            elif isinstance(decision, Refusal):
                _note_refusal(decided, index, decision)
            elif not isinstance(decision, Unread):  # it has none left to be read
                batch.asks_lists = batch.asks_lists or bool(decision.host)
                decided.by_cell[decision.cell].append(Asked(index, decision, decision.draw))
        return True

    def _made(self, batch: Batch, index: int, admission: Admission, epoch: str) -> Lane:
        """Make a lane of what was decided, and keep it where it says all that decides about calls like this one."""
        name, call = batch.names[index], batch.question.calls[index]
        key, record = admission.key, admission.publication.record
        path = record.path if call.publication else ""
        is_anthropic = record.type is ModelType.OPENAI and endpoint_of(call.path, path).is_anthropic
        body = call.body if isinstance(call.body, Body) else None
        endpoint = usual_endpoint(call.posted(), path) if body is not None else None
        lane = lane_of(admission, call.model, names_one=endpoint is not None, is_anthropic=is_anthropic)
        if key is None or not name:  # only a credential that was matched has lanes
            return lane
        keep = partial(self._lanes.keep, epoch=epoch, era=batch.era)
        if record.type is not ModelType.OPENAI:
            if call.publication or call.by_path:  # on a host the body decides, whatever it leads to
                keep(name, lane)
        elif (
            body is not None
            and endpoint is not None
            and is_plain(body, lane)
            and keep(named_with(name, endpoint, body), lane)
        ):
            keep(name, lane.as_opening())
        return lane


def _note_refusal(decided: Decided, index: int, refusal: Refusal) -> None:
    """Take in a refusal; one that is to be counted stands once the limiter was asked."""
    if refusal.draw is None:
        decided.refusals[index] = refused(refusal)
    else:
        decided.by_cell[refusal.cell].append(Asked(index, refusal, refusal.draw))
