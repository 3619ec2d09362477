"""What the API tells of metering: whether the proxy says how a publication's calls end; a warning where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from admin.metering import MeteringWatch
from admin.metrics import AdminMetrics
from catalog.store import StoreUnavailable
from ratelimit.usage import Metering
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


def note(store: Any, publication: Any, **fields: int) -> None:
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

    async def read(subjects: Sequence[str]) -> list[Metering]:
        if is_away:
            raise StoreUnavailable("away")
        return [Metering.MISSING for _ in subjects]

    metrics = AdminMetrics(CollectorRegistry())
    watch = MeteringWatch(both.services.store, read, metrics.metering, failed=counted.set)
    await watch.look()
    is_away = True
    async with running(watch.keep(), name="metering"), asyncio.timeout(20):
        await counted.wait()
        assert [one.code for one in watch.troubles()] == ["metering_missing"]


async def warned(api: Any) -> list[Any]:
    """The warnings about metering once it was looked at."""
    await api.services.metering.look()
    ready = await api.told("/readyz")
    assert (ready.status, ready.body["ready"]) == (200, True)
    return [one for one in ready.body["warnings"] if one["code"] == "metering_missing"]


def gauge(api: Any, metering: str) -> float | None:
    """How many publications are counted so."""
    labels = {"metering": metering}
    found: float | None = api.services.metrics.registry.get_sample_value("tollkeeper_publications_metering", labels)
    return found
