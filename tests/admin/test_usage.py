"""What is told of usage: calls and tokens in all and over time, and what is left of budgets."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from countinglimiter import CountingLimiter
from msgspec import structs

from admin.acts.limits import shown
from admin.http import paging
from admin.views.records import BUDGETS
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.ids import new_id, shard_of
from catalog.records import Kind, Limits
from catalog.store.names import epoch, feed
from extauth.records.entries import subject_of
from ratelimit.tokens.learning import Sample, learn
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import Budget, Hold, Subject, Window
from ratelimit.windows.levels import Level
from tests.support.draws import draw
from tests.support.settlements import settle

KEYS = "/api/keys"


@pytest.fixture
async def shared(api: Any, kserve: str) -> Any:
    """tenant-a has my-model."""
    await api.model("my-model", kserve)
    await api.publish("my-model")
    return api


async def make(api: Any, **more: Any) -> Any:
    """Make a key."""
    return await api.ask("POST", KEYS, {"tenantId": "tenant-a", "name": "ci", "publications": ["my-model"], **more})


async def test_usage_over_time_of_keys_and_models(shared: Any, store: Any) -> None:
    """What the gate counted, in all, today, by hour and by minute; nothing for what nobody called."""
    made, uid = (await make(shared)).body, (await shared.show("my-model")).body["keyId"]
    hour, now_s = divmod(await shared.services.store.now_ms() // 1000, 3600)
    last_ms, minute = 1000 * (hour * 3600 + now_s), now_s // 60
    store.hset(f"tk:usage:{{0}}:k:{made['id']}", mapping={"total": 9, "last_ms": last_ms, "tokens": 5_000})
    store.hset(f"tk:usage:{{0}}:k:{made['id']}:{hour}", mapping={str(minute): 4, f"t{minute}": 70})
    shown = (await shared.ask("GET", f"{KEYS}/{made['id']}/usage")).body
    assert (shown["totalRequests"], shown["tokensUsed"]) == (9, 5_000)
    assert (4, 70) in {(bucket["requests"], bucket["tokens"]) for bucket in shown["lastHour"][-2:]}
    assert sum(bucket["tokens"] for bucket in shown["lastDay"]) == 70
    assert (len(shown["lastHour"]), len(shown["lastDay"])) == (60, 24)
    model = (await shared.ask("GET", "/api/models/my-model/usage")).body
    assert (model["totalRequests"], sum(bucket["requests"] for bucket in model["lastDay"])) == (0, 0)
    assert (model["tokensUsed"], sum(bucket["tokens"] for bucket in model["lastDay"])) == (0, 0)
    assert (await shared.ask("GET", f"{KEYS}/{uid}/usage")).status == 200
    assert (await shared.ask("GET", "/api/models/none/usage")).code == "MODEL_NOT_FOUND"


async def test_usage_tells_what_is_left_of_budgets(shared: Any, store: Any) -> None:
    """Each limit that a key has, with what is left of it now; what was taken and held back is gone, looking is free."""
    limits = {"requestsPerMinute": 10, "requestsPerHour": None, "tokensPerHour": 5_000}
    made = (await make(shared, rateLimiting=limits)).body
    told = (await shared.ask("GET", f"{KEYS}/{made['id']}/usage")).body["budgets"]
    whole = {"requestsPerMinute": (10, 10, None), "tokensPerHour": (5_000, 5_000, None)}
    assert {one["budget"]: (one["limit"], one["remaining"], one["resetsAt"]) for one in told} == whole
    subject = Subject(f"k:{made['id']}", (Budget(Window.MINUTE, 10), Budget(Window.TOKENS_HOUR, 5_000)))
    limiter = CountingLimiter(cell="0", epoch_key=epoch("0"), feed_key=feed("0"))
    hold = Hold("abc" * 10, ceiling=2_000, presumed=100, timeout_ms=60_000, terms=b"")
    charge = draw((subject,), tokens=1_500, hold=hold)
    limiter.take(store.execute_command, [charge], epoch=store.get(epoch("0")).decode())
    for _ in range(2):
        told = (await shared.ask("GET", f"{KEYS}/{made['id']}/usage")).body["budgets"]
        left = {one["budget"]: one["remaining"] for one in told}
        assert left == {"requestsPerMinute": 9, "tokensPerHour": 3_500}
        assert all(one["resetsAt"] for one in told)
    settle(store.execute_command, Ledger("0"), [Settlement(hold.id, 200)])
    told = (await shared.ask("GET", f"{KEYS}/{made['id']}/usage")).body["budgets"]
    assert {one["budget"]: one["remaining"] for one in told}["tokensPerHour"] == 4_800


async def test_tokens_left_are_told_of_openai_models_only(api: Any, kserve: str, openai: str) -> None:
    """A traditional model's tokensPerHour holds nobody, so nothing is told of it."""
    for name, server in (("my-model", kserve), ("my-llm", openai)):
        await api.model(name, server)
        await api.publish(name, rateLimiting={"tokensPerHour": 7_000, "burstLimit": None})
    told = {
        name: (await api.ask("GET", f"/api/models/{name}/usage")).body["budgets"] for name in ("my-model", "my-llm")
    }
    calls = {"requestsPerMinute": 100, "requestsPerHour": 5_000}
    assert {one["budget"]: one["remaining"] for one in told["my-model"]} == calls
    assert {one["budget"]: one["remaining"] for one in told["my-llm"]} == {**calls, "tokensPerHour": 7_000}


def test_every_limit_of_a_record_has_its_name_in_the_api() -> None:
    """No budget that is held is missing in what usage tells."""
    limits = Limits(burst=1, per_minute=1, per_hour=1, tokens_per_hour=1)
    named = shown(limits).model_dump()
    held = {budget.window for budget in subject_of(Level.KEY, "key", limits).budgets}
    assert {BUDGETS[window] for window in held} == set(named) == set(BUDGETS.values())


async def test_a_models_usage_tells_what_was_learnt_of_its_calls(shared: Any, store: Any) -> None:
    """By which adaptive reserves: ratios and how many calls they rest on; nothing before enough of them."""
    uid = (await shared.show("my-model")).body["uid"]
    before = (await shared.ask("GET", "/api/models/my-model/usage")).body["learned"]
    assert (before["calls"], before["promptTokensPerByte"]) == (0, None)
    learn(store.execute_command, "0", f"p:{uid}", {"a": [Sample(0.25, 0.5, 0.125)] * 200})
    told = (await shared.ask("GET", "/api/models/my-model/usage")).body["learned"]
    ratios = {"promptTokensPerByte": 0.25, "completionShare": 0.5, "completionTokensPerByte": 0.125}
    streams = {"tokensPerEvent": None, "tokensPerStreamByte": None}
    assert told == {"calls": 200, **ratios, **streams, "unboundedCompletionTokens": None, "tokensPerSecond": None}
    made = (await make(shared)).body
    assert (await shared.ask("GET", f"{KEYS}/{made['id']}/usage")).body["learned"] is None


async def test_usage_of_what_is_no_more_is_still_told(shared: Any, store: Any) -> None:
    """Of a deleted key and an unpublished publication, by their ids: to those whose it was and to admins."""
    made, publication = (await make(shared)).body, (await shared.show("my-model")).body
    key_path, path = f"{KEYS}/{made['id']}/usage", f"/api/published-models/{publication['uid']}/usage"
    limiter = CountingLimiter(cell="0", epoch_key=epoch("0"), feed_key=feed("0"))
    charge = draw((), usage=(f"k:{made['id']}", f"p:{publication['uid']}"))
    limiter.take(store.execute_command, [charge] * 3, epoch=store.get(epoch("0")).decode())
    for name, tenant in (("olga", "tenant-a"), ("boris", "tenant-b")):
        await shared.user(name, "operator", tenant)
    live = [(await shared.ask("GET", one)).body for one in (key_path, path)]
    assert live[1] == (await shared.ask("GET", "/api/models/my-model/usage")).body
    assert (await shared.ask("DELETE", f"{KEYS}/{made['id']}")).status == 204
    assert (await shared.ask("DELETE", "/api/models/my-model/publish")).status == 204
    for user in ("admin", "olga"):
        await shared.become(user)
        for before, one in zip(live, (key_path, path), strict=True):
            answer = await shared.ask("GET", one)
            assert (answer.status, answer.body["days"]) == (200, before["days"]), answer.text
            assert [day["requests"] for day in answer.body["days"]] == [3]
    await shared.become("boris")
    assert (await shared.ask("GET", key_path)).code == "KEY_NOT_FOUND"
    assert (await shared.ask("GET", path)).code == "NOT_PUBLISHED"
    await shared.become("admin")
    assert (await shared.publish("my-model")).body["uid"] != publication["uid"]
    assert (await shared.show("my-model")).body["usage"]["totalRequests"] == 0
    never = f"{KEYS}/{made['id'][:3]}{'a' * 16}/usage"
    assert (await shared.ask("GET", never)).code == "KEY_NOT_FOUND"


MANY: Final = 500


async def many_keys(api: Any, count: int) -> None:
    """Give tenant-a so many keys, by one commit."""
    own = await api.services.store.get(Kind.KEY, (await api.show("my-model")).body["keyId"])
    keys = [structs.replace(own, id=new_id(shard_of("tenant-a"), os.urandom)) for _ in range(count)]
    audit = Audit(Recordless.START, "key.create", "many", "tenant-a", "")
    await api.services.store.commit([Put(key, 0) for key in keys], audit=audit)


def commands(store: Any) -> dict[str, int]:
    """How often each command was run since the last reset, those of the test's own aside."""
    stats = store.info("commandstats")
    ours = {"info", "config|resetstat", "client|setinfo", "hello", "select"}
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()} | dict.fromkeys(ours, 0)


@pytest.mark.parametrize("query", ["", "tenantId=tenant-a", "model=tenant-a/my-model"])
@pytest.mark.parametrize("with_usage", [False, True])
async def test_a_page_of_keys_is_a_few_reads(shared: Any, store: Any, query: str, *, with_usage: bool) -> None:
    """Usage only where it is asked for: a command a key, in one round trip, and one look at the clock."""
    await many_keys(shared, MANY - 1)
    store.config_resetstat()
    page = await shared.ask("GET", f"{KEYS}?limit=500&{query}{'&usage=true' if with_usage else ''}")
    assert (page.status, len(page.body["items"])) == (200, MANY)
    assert all((one["usage"] is not None) is with_usage for one in page.body["items"])
    run = commands(store)
    assert (run.pop("hmget", 0), run.pop("time", 0)) == ((MANY, 1) if with_usage else (0, 0))
    assert sum(run.values()) <= 9, run


async def test_other_tenants_keys_cost_a_list_nothing(
    shared: Any, store: Any, kserve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant's list reads its own group alone, however many keys others of its shard or of any have."""
    monkeypatch.setattr(paging, "PAGE", 10)
    await many_keys(shared, MANY - 1)
    await shared.model("mine", kserve, "tenant-b")
    await shared.ask("POST", "/api/models/mine/publish", {"config": {}})
    for query in ("tenantId=tenant-b", "model=tenant-b/mine"):
        store.config_resetstat()
        assert len((await shared.ask("GET", f"{KEYS}?{query}")).body["items"]) == 1
        assert sum(commands(store).values()) <= 12
