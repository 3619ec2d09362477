"""Hosts whose models stand in records of their own: what a call means there, what is read for it, what binds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status
from hypothesis import given
from hypothesis import strategies as st

from catalog.changes import Delete, Put
from catalog.ids import new_id, shard_of
from catalog.records import HostRecord, Kind, ModelType, Protocol, PublicationRecord, RouteRecord
from catalog.routes import route_id, routes_meant
from catalog.store.reader import Snapshot
from extauth.batch import Checker, Verdict
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.records.allowances import PER_MINUTE
from extauth.records.cache import RecordCache
from extauth.request.body import Body
from extauth.request.call import Call
from extauth.stores import Execute, Stores
from extauth.taker import Taker
from gate.assembly import limiter_of
from gate.links import StoreRecords
from runtime.clock import SystemClock
from runtime.store.offset import ClockOffset

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
BOTH = ("tenant-a", "tenant-b")
MANY = 5_000


class CountedRecords:
    """The true reader; it notes what was read."""

    def __init__(self) -> None:
        self._records = StoreRecords()
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def read(self, execute: Any, refs: Sequence[str]) -> Snapshot:
        """Read, and note the names."""
        self.names += refs
        return self._records.read(execute, refs)

    def taken(self) -> list[str]:
        """What was read since the last look."""
        names, self.names = self.names, []
        return names


@pytest.fixture
def wire() -> Wire:
    """One transport: what is answered here is no matter of the wire."""
    return NATIVE_UNIX


class Bench:
    """A checker without a gate around it."""

    def __init__(self, catalog: Catalog, execute: Execute) -> None:
        offset = ClockOffset()
        taker = Taker(limiter_of, clock=SystemClock(), offset_of=lambda _cell: offset)
        self.records = CountedRecords()
        self.cache = RecordCache()
        self._stores = Stores.one(execute)
        self._checker = Checker(cache=self.cache, records=self.records, limiter=taker, secrets=catalog.secrets)

    def begin(self) -> None:
        """Empty the cache, at the present epoch."""
        self.cache.reset(self.records.read(self._stores.records, ()).epoch)
        self.records.taken()

    def ask(self, call: Call) -> Verdict:
        """Have a call decided."""
        (verdict,) = self._checker.check([call], self._stores, SystemClock().monotonic_ms() + 5_000)
        return verdict

    def chat(self, text: str, model: str) -> Verdict:
        """Call a model by the body."""
        body = Body(model)
        return self.ask(Call(text, None, "", HOST, "POST", "application/json", body, path="/v1/chat/completions"))

    def models(self, text: str) -> Verdict:
        """Ask for the host's models."""
        return self.ask(Call(text, None, "", HOST, "GET", path="/v1/models"))


@pytest.fixture
def bench(catalog: Catalog, execute: Execute) -> Bench:
    """A checker."""
    return Bench(catalog, execute)


def strangers(count: int) -> list[RouteRecord]:
    """Routes of models that nobody here asks for."""
    return [
        RouteRecord(route_id(HOST, "tenant-z", f"m{n}"), new_id(shard_of("tenant-z"), os.urandom)) for n in range(count)
    ]


@pytest.mark.parametrize("others", [0, MANY])
def test_a_call_reads_as_little_however_many_models_the_host_has(catalog: Catalog, bench: Bench, others: int) -> None:
    """The key, the host, the tenant, the one route and its publication; nothing at all the second time."""
    catalog.tenant()
    catalog.tenant("tenant-b")
    own = catalog.publication(model="llm", path="/v1/models/llm", **LLM)
    theirs = catalog.publication("tenant-b", "shared", path="/v1/models/s", allowed_tenants=BOTH, **LLM)
    catalog.host(own, theirs, closed=True)
    for start in range(0, others, 1_000):
        catalog.add(*strangers(others)[start : start + 1_000])
    key, text = catalog.key(own, theirs)
    bench.begin()
    assert bench.chat(text, "llm").reason is Reason.OK
    assert sorted(bench.records.taken()) == sorted(
        [f"key:{key.id}", f"host:{HOST}", "tenant:tenant-a", f"route:{HOST}/tenant-a/llm", f"pub:{own.uid}"]
    )
    assert bench.chat(text, "tenant-b/shared").reason is Reason.OK
    assert sorted(bench.records.taken()) == sorted(
        [
            f"route:{route_id(HOST, 'tenant-a', 'tenant-b/shared')}",  # their own could be called so
            *(f"route:{HOST}/tenant-b/shared", f"pub:{theirs.uid}", "tenant:tenant-b"),
        ]
    )
    assert bench.chat(text, "tenant-a/llm").reason is Reason.OK
    assert bench.records.taken() == [f"route:{route_id(HOST, 'tenant-a', 'tenant-a/llm')}"]
    assert {bench.chat(text, name).reason for name in ("llm", "tenant-b/shared", "tenant-a/llm")} == {Reason.OK}
    assert bench.records.taken() == []


def test_an_unknown_model_is_asked_for_once(catalog: Catalog, bench: Bench) -> None:
    """That there is no such route is remembered until something changes, and the next call finds what was published."""
    catalog.tenant()
    llm = catalog.publication(model="llm", **LLM)
    catalog.host(closed=True)
    _, text = catalog.key(llm)
    assert bench.chat(text, "llm").reason is Reason.MODEL_NOT_FOUND
    bench.records.taken()
    assert bench.chat(text, "llm").reason is Reason.MODEL_NOT_FOUND
    assert bench.records.taken() == []
    catalog.add(RouteRecord(route_id(HOST, "tenant-a", "llm"), llm.uid))
    assert bench.chat(text, "llm").reason is Reason.OK


def test_a_route_binds_from_the_answer_of_its_change_on(catalog: Catalog, asker: Asker) -> None:
    """A model published again, taken from the host, or moved from table to route and back: no call goes by the old."""
    catalog.tenant()
    old, new = (catalog.publication(model="llm", path=f"/v1/models/{n}", **LLM) for n in "ab")
    _, text = catalog.key(old)
    _, other = catalog.key(new)
    host = catalog.host(old, closed=True)
    route = RouteRecord(route_id(HOST, "tenant-a", "llm"), old.uid)

    def codes() -> tuple[int, int]:
        asked = (question(key=one, openai_host=HOST, model="llm") for one in (text, other))
        first, second = (status(asker.ask(one)) for one in asked)
        return first, second

    assert codes() == (200, 403)
    for _ in range(10):
        route = catalog.change(route, publication=new.uid)
        assert codes() == (403, 200)
        host = catalog.change(host, paths={}, models={"tenant-a/llm": old.uid})
        assert codes() == (200, 403)  # a table counts where there is one
        host = catalog.change(host, paths=None, models=None)
        assert codes() == (403, 200)
        route = catalog.change(route, publication=old.uid)
        assert codes() == (200, 403)
    catalog.commit(Delete(Kind.ROUTE, route.id, route.version))
    assert codes() == (404, 404)


def test_a_damaged_route_refuses_its_model_alone(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """What cannot be read decides nothing: 503, and its neighbours are served."""
    catalog.tenant()
    llm, other = (catalog.publication(model=name, path=f"/v1/models/{name}", **LLM) for name in ("llm", "other"))
    catalog.host(llm, other, closed=True)
    _, text = catalog.key(llm, other)
    store.set(f"tk:rec:route:{HOST}/tenant-a/llm", b"{broken")
    asked = [question(key=text, openai_host=HOST, model=name) for name in ("llm", "other")]
    assert [status(asker.ask(one)) for one in asked] == [503, 200]


@pytest.mark.parametrize(
    "model",
    ["", " ", " llm", "llm ", "llm\n", "\x00", "\u200b", "\ud800", "x" * 257, "tenant-b/" + "x" * 257, "x" * 10**6],
)
def test_what_no_model_can_be_named_is_not_asked_for(catalog: Catalog, bench: Bench, model: str) -> None:
    """A caller's text becomes a name in the store only where a model can have it."""
    catalog.tenant()
    catalog.host(closed=True)
    key, text = catalog.key()
    assert bench.chat(text, model).reason in {Reason.MODEL_NOT_FOUND, Reason.MODEL_MISSING}
    assert set(bench.records.taken()) <= {f"key:{key.id}", f"host:{HOST}", "tenant:tenant-a"}


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)
TENANTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(TENANTS, TENANTS, NAMES)
def test_every_model_has_a_route(own: str, other: str, model: str) -> None:
    """Its own tenant's keys mean it by its name, all by tenant and name."""
    assert [*routes_meant(HOST, own, model)] == [f"{HOST}/{own}/{model}"]
    assert [*routes_meant(HOST, other, f"{own}/{model}")][1] == f"{HOST}/{own}/{model}"


@pytest.mark.parametrize("others", [0, MANY])
def test_a_list_reads_the_keys_publications_once_it_is_admitted(catalog: Catalog, bench: Bench, others: int) -> None:
    """However many models the host has; a question that is refused reads none."""
    catalog.tenant()
    mine = [catalog.publication(model=f"mine-{n}", path=f"/v1/models/mine-{n}", **LLM) for n in range(3)]
    catalog.host(*mine, closed=True)
    for start in range(0, others, 1_000):
        catalog.add(*strangers(others)[start : start + 1_000])
    key, text = catalog.key(*mine)
    bench.begin()
    told = bench.models(text)
    assert told.reason is Reason.MODELS_TOLD
    assert isinstance(told.asked, Telling)
    assert len(told.asked.models) == 3
    assert sorted(bench.records.taken()) == sorted(
        [f"key:{key.id}", f"host:{HOST}", "tenant:tenant-a", *(f"pub:{one.uid}" for one in mine)]
    )
    assert {bench.models(text).reason for _ in range(PER_MINUTE - 1)} == {Reason.MODELS_TOLD}
    bench.begin()
    assert bench.models(text).reason is Reason.LIMITED
    assert not [name for name in bench.records.taken() if name.startswith("pub:")]


def test_questions_are_bounded_whatever_the_key_may_do(catalog: Catalog, bench: Bench) -> None:
    """A key without limits has its questions a minute; the others cost no reading."""
    catalog.tenant()
    catalog.host(closed=True)
    _, text = catalog.key()
    reasons = [bench.models(text).reason for _ in range(PER_MINUTE + 2)]
    assert reasons.count(Reason.MODELS_TOLD) == PER_MINUTE


def test_a_host_of_none_is_told_apart(catalog: Catalog, bench: Bench) -> None:
    """A closed host that serves another's model only: a list of nothing, and no host at all: 404."""
    catalog.tenant()
    publication: PublicationRecord = catalog.publication(model="llm", host="other.test", **LLM)
    _, text = catalog.key(publication)
    assert bench.models(text).reason is Reason.MODEL_NOT_FOUND
    catalog.commit(Put(HostRecord(HOST, None, None), 0))
    told = bench.models(text)
    assert told.reason is Reason.MODELS_TOLD
    assert isinstance(told.asked, Telling)
    assert told.asked.models == ()
