"""What the API tells of metering: whether the proxy says how a publication's calls end; a warning where it stopped."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from admin.metrics import AdminMetrics
from admin.models.metering import MeteringWatch
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.ids import new_id
from catalog.records import Kind
from catalog.store.store import StoreUnavailable
from ratelimit.usage.facts import Metering, Signs
from runtime.lifecycle import running

LLM = "my-llm"


@pytest.fixture
async def both(api: Any, kserve: str, openai: str) -> Any:
    """tenant-a has published a model of each type."""
    for name, server in (("my-model", kserve), (LLM, openai)):
        await api.model(name, server)
        made = await api.publish(name)
        assert made.status == 201
        assert made.body["metering"] == (None if name == "my-model" else "unproved")
    return api


def note(store: Any, publication: Any, **fields: int | str) -> None:
    """Write what the settling script would."""
    store.hset(f"tk:usage:{{0}}:p:{publication['uid']}", mapping=fields)


async def told(api: Any) -> list[str | None]:
    """What each answer that shows the openai publication says, and each that shows the other one."""
    shown = [(await api.show(LLM)).body, (await api.update(LLM, metadata={"a": "b"})).body]
    listed = {one["modelName"]: one for one in (await api.ask("GET", "/api/published-models?usage=true")).body["items"]}
    assert (await api.show("my-model")).body["metering"] is listed["my-model"]["metering"] is None
    return [one["metering"] for one in (*shown, listed[LLM])]


async def test_every_answer_tells_it_of_openai_publications(both: Any, store: Any) -> None:
    """POST, GET, PUT and the list say the same; of a traditional one nothing is told, whatever was counted."""
    publication = (await both.show(LLM)).body
    note(store, (await both.show("my-model")).body, settled_ms=1, unsettled=99)
    assert await told(both) == ["unproved"] * 3
    note(store, publication, settled_ms=1, unsettled=19)
    assert await told(both) == ["seen"] * 3
    note(store, publication, unsettled=20)
    assert await told(both) == ["missing"] * 3


async def test_published_anew_it_begins_anew(both: Any, store: Any) -> None:
    """Another uid: nothing was told of it."""
    note(store, (await both.show(LLM)).body, settled_ms=1, unsettled=20)
    await both.ask("DELETE", f"/api/models/{LLM}/publish")
    assert (await both.publish(LLM)).body["metering"] == "unproved"
    assert (await both.show(LLM)).body["metering"] == "unproved"


async def test_what_is_missing_is_a_warning(both: Any, store: Any) -> None:
    """As long as it is, in /readyz and counted; the process stays ready. A traditional one is never missing."""
    publication = (await both.show(LLM)).body
    note(store, (await both.show("my-model")).body, unsettled=99)
    assert await warned(both) == []
    note(store, publication, unsettled=20)
    (warning,) = await warned(both)
    assert warning["problem"] == "of 1 publications nobody tells how calls end"
    assert gauge(both, "missing") == 1
    note(store, publication, settled_ms=1, unsettled=0)
    assert await warned(both) == []
    assert (gauge(both, "missing"), gauge(both, "seen"), gauge(both, "unproved")) == (0, 1, 0)


async def test_a_store_that_is_away_is_counted_and_what_was_found_stays(both: Any, store: Any) -> None:
    """The watch goes on, and its warning with it."""
    note(store, (await both.show(LLM)).body, unsettled=20)
    counted, is_away = asyncio.Event(), False

    async def read(subjects: Sequence[str]) -> list[Signs | None]:
        if is_away:
            raise StoreUnavailable("away")
        return [Signs(Metering.MISSING) for _ in subjects]

    metrics = AdminMetrics(CollectorRegistry())
    watch = MeteringWatch(both.services.store, read, metrics.metering, metrics.above_hold, failed=counted.set)
    await watch.look()
    is_away = True
    async with running(watch.keep(), name="metering"), asyncio.timeout(20):
        await counted.wait()
        assert [one.code for one in watch.troubles()] == ["endings_missing"]


COUNT: Final = 1_300


@pytest.fixture
async def many(both: Any) -> Callable[..., Awaitable[list[str]]]:
    """What publishes many more like one of the two, by the store's own commits; gives their uids."""

    async def publish(name: str, count: int) -> list[str]:
        one = await both.services.store.get(Kind.PUBLICATION, (await both.show(name)).body["uid"])
        uids = [new_id(number % 4096, os.urandom) for number in range(count)]
        audit = Audit(Recordless.START, "publication.create", name, "tenant-a", "")
        for start in range(0, count, 500):
            made = [Put(structs.replace(one, uid=uid), 0) for uid in uids[start : start + 500]]
            await both.services.store.commit(made, audit=audit)
        return uids

    return publish


async def looks(api: Any, store: Any) -> dict[str, int]:
    """What one look of the watch asks of the store."""
    store.config_resetstat()
    await api.services.metering.look()
    run = {name.removeprefix("cmdstat_"): one["calls"] for name, one in store.info("commandstats").items()}
    return {name: calls for name, calls in run.items() if name not in {"info", "config|resetstat"}}


async def test_a_catalog_that_did_not_change_costs_a_look_one_read(both: Any, store: Any, many: Any) -> None:
    """Of many publications that are no openai's: the epoch, and the counters of the one that is; no record is read."""
    await many("my-model", COUNT)
    assert (await looks(both, store))["mget"] > 1
    assert await looks(both, store) == {"get": 1, "hmget": 1}
    await both.update("my-model", metadata={"a": "b"})
    assert await looks(both, store) == {"get": 1, "xrange": 1, "mget": 1, "hmget": 1}
    assert await looks(both, store) == {"get": 1, "hmget": 1}


async def test_many_openai_publications_are_looked_at_in_turns(both: Any, store: Any, many: Any) -> None:
    """A sixth at a look and all in a minute; those that are missing at each, so that it ends at once."""
    uids = await many(LLM, COUNT)
    assert (await looks(both, store))["hmget"] == COUNT + 1
    note(store, {"uid": uids[0]}, unsettled=20)
    note(store, {"uid": uids[-1]}, settled_ms=5)
    asked = [(await looks(both, store)).get("hmget", 0) for _ in range(6)]
    assert max(asked) <= COUNT // 6 + 2
    assert (gauge(both, "missing"), gauge(both, "seen")) == (1, 1)
    note(store, {"uid": uids[0]}, settled_ms=7, unsettled=0)
    await looks(both, store)
    assert (gauge(both, "missing"), gauge(both, "seen"), gauge(both, "unproved")) == (0, 2, COUNT - 1)


@pytest.mark.parametrize("is_hash", [True, False])
async def test_damaged_counters_are_nobody_elses(both: Any, store: Any, many: Any, *, is_hash: bool) -> None:
    """Counters that somebody wrote by hand neither end the watch nor hide what is missing of others."""
    broken = (await both.show(LLM)).body
    (other,) = await many(LLM, 1)
    note(store, {"uid": other}, unsettled=20)
    if is_hash:
        store.hset(f"tk:usage:{{0}}:p:{broken['uid']}", "unsettled", "many")
    else:
        store.set(f"tk:usage:{{0}}:p:{broken['uid']}", "many")
    await both.services.metering.look()
    assert (gauge(both, "missing"), gauge(both, "seen"), gauge(both, "unproved")) == (1, 0, 0)
    store.delete(f"tk:usage:{{0}}:p:{broken['uid']}")
    await both.services.metering.look()
    assert (gauge(both, "missing"), gauge(both, "seen"), gauge(both, "unproved")) == (1, 0, 1)


async def test_what_is_published_changed_and_taken_back_is_noticed(both: Any, store: Any) -> None:
    """By the next look: a new one, one whose type changes, one that goes, and all after the feed was lost."""
    note(store, (await both.show("my-model")).body, unsettled=20)
    note(store, (await both.show(LLM)).body, unsettled=20)
    for change, missing in (
        (None, 1),
        (both.update("my-model", modelType="openai"), 2),
        (both.update("my-model", modelType="traditional"), 1),
        (both.ask("DELETE", f"/api/models/{LLM}/publish"), 0),
        (both.update("my-model", modelType="openai"), 1),
    ):
        if change is not None:
            assert (await change).status in {200, 204}
        await both.services.metering.look()
        assert gauge(both, "missing") == missing
    store.delete("tk:feed:{0}")
    await both.update("my-model", modelType="traditional")
    await both.services.metering.look()
    assert gauge(both, "missing") == 0


async def warned(api: Any, code: str = "endings_missing") -> list[Any]:
    """The warnings about metering once it was looked at."""
    await api.services.metering.look()
    ready = await api.told("/readyz")
    assert (ready.status, ready.body["ready"]) == (200, True)
    return [one for one in ready.body["warnings"] if one["code"] == code]


async def test_calls_dearer_than_held_are_shown_and_many_are_a_warning(both: Any, store: Any) -> None:
    """Of this clock hour and the one before; a few are told of their publication only, and in time none is."""
    publication, hour = (await both.show(LLM)).body, int(time.time()) // 3600
    assert publication["aboveHold"] == {"calls": 0, "tokens": 0}
    assert (await both.show("my-model")).body["aboveHold"] is None
    note(store, publication, above=f"{hour} 12 4000", above_before=f"{hour - 1} 7 500")
    assert (await both.show(LLM)).body["aboveHold"] == {"calls": 19, "tokens": 4_500}
    assert await warned(both, "told_above_hold") == []
    note(store, publication, above=f"{hour} 13 4000")
    (warning,) = await warned(both, "told_above_hold")
    assert warning["problem"] == "calls of 1 publications cost more tokens than they held"
    assert both.services.metrics.registry.get_sample_value("tollkeeper_publications_above_hold") == 1
    (listed,) = [
        one
        for one in (await both.ask("GET", "/api/published-models?usage=true")).body["items"]
        if one["modelName"] == LLM
    ]
    assert listed["aboveHold"] == {"calls": 20, "tokens": 4_500}
    note(store, publication, above=f"{hour - 2} 99 9", above_before=f"{hour - 3} 99 9")
    assert await warned(both, "told_above_hold") == []
    note(store, publication, above="what is this", above_before="7")
    assert (await both.show(LLM)).body["aboveHold"] == {"calls": 0, "tokens": 0}


def gauge(api: Any, metering: str) -> float | None:
    """How many publications are counted so."""
    labels = {"metering": metering}
    found: float | None = api.services.metrics.registry.get_sample_value("tollkeeper_publications_metering", labels)
    return found
