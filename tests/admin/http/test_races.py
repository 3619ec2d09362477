"""Writers that meet: nothing is lost, nothing is claimed twice, nothing is half-written."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from catalog.changes import Audit, Committed
from catalog.records import HostRecord, Kind, ModelRecord
from catalog.routes import place_id
from catalog.store.store import CatalogStore, Conflict, OutcomeUnknown, StoreUnavailable

pytestmark = pytest.mark.usefixtures("hosts")

LIMITS = ("requestsPerMinute", "requestsPerHour", "tokensPerHour", "burstLimit")


class Faulty(CatalogStore):
    """The true store with one fault: chosen acts fail before or after they are written."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.before: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}

    async def commit(self, changes: Any, *, audit: Audit, forget_usage: Any = ()) -> Committed:
        if fault := self.before.get(audit.action):
            raise fault
        done = await super().commit(changes, audit=audit, forget_usage=forget_usage)
        if fault := self.after.get(audit.action):
            raise fault
        return done


async def test_no_update_is_lost(api: Any, kserve: str) -> None:
    """Updates of different fields at the same time are all in the publication afterwards."""
    await api.model("my-model", kserve)
    await api.publish("my-model")
    for round_ in range(1, 4):
        changes = [{"rateLimiting": {name: 100 * round_ + n}} for n, name in enumerate(LIMITS)]
        changes += [{"metadata": {"round": str(round_)}}, {"authentication": {"allowedTenants": ["tenant-b"]}}]
        answers = await asyncio.gather(*(api.update("my-model", **change) for change in changes))
        assert {answer.status for answer in answers} == {200}
        shown = (await api.show("my-model")).body
        assert shown["rateLimiting"] == {name: 100 * round_ + n for n, name in enumerate(LIMITS)}
        assert shown["metadata"] == {"round": str(round_)}
        assert shown["authentication"]["allowedTenants"] == ["tenant-a", "tenant-b"]


async def test_one_of_many_publishings_wins(api: Any, kserve: str, store: Any) -> None:
    """A model published many times at once is published once; the others hear ALREADY_PUBLISHED."""
    await api.model("my-model", kserve)
    answers = await asyncio.gather(*(api.publish("my-model") for _ in range(6)))
    told = Counter(answer.body.get("code", "published") for answer in answers)
    assert told == {"published": 1, "ALREADY_PUBLISHED": 5}
    assert [store.zcard(f"tk:index:{kind}") for kind in ("pub", "key")] == [1, 1]


async def test_a_path_is_claimed_once(api: Any, kserve: str) -> None:
    """Models of two tenants that want the same path at once: one has it."""
    for number in range(4):
        await api.model(f"model-{number}", kserve, ("tenant-a", "tenant-b")[number % 2])
    answers = await asyncio.gather(*(api.publish(f"model-{n}", externalPath="/models/wanted") for n in range(4)))
    told = Counter(answer.body.get("code", "published") for answer in answers)
    assert told == {"published": 1, "PATH_TAKEN": 3}


async def test_neighbours_published_at_once_all_stand_on_the_host(api: Any, kserve: str, hosts: str) -> None:
    """Publishings that meet at one host lose nothing of each other."""
    names = [f"model-{number}" for number in range(8)]
    for name in names:
        await api.model(name, kserve)
    answers = await asyncio.gather(*(api.publish(name) for name in names))
    assert {answer.status for answer in answers} == {201}
    host = "api.router.inference-in-a-box"
    table = await api.services.store.get(Kind.HOST, host)
    assert isinstance(table, HostRecord)
    assert table.is_closed == (hosts == "routes")
    places = [place_id(host, path) for path in table.paths or {}] or await api.services.store.ids(Kind.PLACE)
    assert sorted(places) == sorted(f"{host}/models/{name}" for name in names)


async def test_publishing_and_deleting_a_model_at_once(api: Any, kserve: str) -> None:
    """A model is either published or gone, never a publication without its model."""
    for number in range(4):
        name = f"model-{number}"
        await api.model(name, kserve)
        published, deleted = await asyncio.gather(api.publish(name), api.ask("DELETE", f"/api/models/{name}"))
        assert (published.status, deleted.status) in {(201, 409), (404, 204)}, (published.text, deleted.text)
        assert (await api.show(name)).status == (200 if published.status == 201 else 404)


async def test_unpublishing_and_updating_at_once(api: Any, kserve: str, store: Any) -> None:
    """An update never brings back what was unpublished, nor leaves a claim behind."""
    await api.model("my-model", kserve)
    for _ in range(4):
        await api.publish("my-model")
        await asyncio.gather(
            api.ask("DELETE", "/api/models/my-model/publish"),
            api.update("my-model", publicHostname="other.example", externalPath="/x"),
        )
        assert (await api.show("my-model")).code == "NOT_PUBLISHED"
        assert [store.zcard(f"tk:index:{kind}") for kind in ("pub", "key", "place", "route")] == [0, 0, 0, 0]
        assert not await api.services.store.get(Kind.HOST, "api.router.inference-in-a-box")


ACTS = [
    ("publication.create", "POST", "/api/models/my-model/publish", {"config": {}}),
    ("publication.update", "PUT", "/api/models/old/publish", {"config": {"publicHostname": "new.example"}}),
    ("publication.delete", "DELETE", "/api/models/old/publish", None),
    ("key.rotate", "POST", "/api/models/old/publish/rotate-key", None),
    ("tenant.create", "POST", "/api/tenants", {"tenantId": "new"}),
    ("tenant.change", "PATCH", "/api/tenants/tenant-a", {"disabled": True}),
    ("model.delete", "DELETE", "/api/models/my-model", None),
]


@pytest.mark.parametrize(("action", "method", "path", "body"), ACTS, ids=[act[0] for act in ACTS])
async def test_an_act_that_fails_leaves_nothing_behind(
    start_api: Any, redis_client: Any, kserve: str, store: Any, action: str, method: str, path: str, body: Any
) -> None:
    """A store that is gone at the commit: 503 STORE_UNAVAILABLE, and every value is as before."""
    faulty = Faulty(redis_client)
    api = await start_api(faulty)
    await api.tenant("tenant-a")
    for name in ("my-model", "old"):
        await api.model(name, kserve)
    await api.publish("old")
    before = {name: store.dump(name) for name in store.keys("*")}
    faulty.before[action] = StoreUnavailable("gone")
    answer = await api.ask(method, path, body)
    assert (answer.status, answer.code) == (503, "STORE_UNAVAILABLE")
    assert {name: store.dump(name) for name in store.keys("*")} == before


async def test_an_unknown_outcome_says_so(start_api: Any, redis_client: Any, kserve: str) -> None:
    """Written, but the answer is lost: 503 OUTCOME_UNKNOWN without a key text; GET tells, rotate gives a new text."""
    faulty = Faulty(redis_client)
    api = await start_api(faulty)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    faulty.after["publication.create"] = OutcomeUnknown("no answer")
    pokes = api.publisher.pokes
    lost = await api.publish("my-model")
    assert (lost.status, lost.code) == (503, "OUTCOME_UNKNOWN")
    assert "tk_" not in lost.text
    assert api.publisher.pokes == pokes + 1
    assert (await api.show("my-model")).status == 200
    text = (await api.ask("POST", "/api/models/my-model/publish/rotate-key")).body["apiKey"]
    assert (await api.validate(text))["valid"] is True


async def test_endless_conflicts_end_in_409(start_api: Any, redis_client: Any, kserve: str) -> None:
    """A writer that never gets through is told after a bounded number of tries."""
    faulty = Faulty(redis_client)
    api = await start_api(faulty)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    await api.publish("my-model")
    faulty.before["publication.update"] = Conflict("pub:x", 7)
    refused = await api.update("my-model", rateLimiting={"burstLimit": 1})
    assert (refused.status, refused.code) == (409, "CONFLICT")


async def test_a_model_registered_anew_meanwhile_is_not_published(start_api: Any, kserve: str, store: Any) -> None:
    """What was asked about readiness is what is published: a model of the same name but another life is not."""
    api = await start_api()
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    true_ask = api.services.prober.ask

    async def ask(*asked: Any) -> Any:
        finding = await true_ask(*asked)
        api.services.prober.ask = true_ask
        await api.ask("DELETE", "/api/models/my-model")
        await api.model("my-model", kserve)
        return finding

    api.services.prober.ask = ask
    assert (await api.publish("my-model")).code == "MODEL_NOT_FOUND"
    found = await api.services.store.get(Kind.MODEL, "tenant-a/my-model")
    assert isinstance(found, ModelRecord)
    assert found.publication is None
    assert store.zcard("tk:index:pub") == 0
