"""Records in a store that was deposed, or has lost what was answered: no gate takes its records for current."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis
from gatebench import Asker, Catalog, question, status, wait_until

from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Kind, Limits, PublicationRecord
from catalog.store import names
from catalog.store.announcing import Announcer, announce
from catalog.store.lifting import Lifter, records_epoch
from gate.links import StoreUrls
from runtime.clock import SystemClock
from runtime.store.clients import client_of
from runtime.store.link import StoreLink
from tests.gate.test_two_stores import drop_links, gate_without_feed, restore

CELLS = 2
TRIALS = 20


@pytest.fixture
def stores(redis_url: str, another_redis_url: str) -> StoreUrls:
    """Two empty stores."""
    return StoreUrls(redis_url, another_redis_url, CELLS)


@pytest.fixture
def catalog(stores: StoreUrls, secrets: Secrets) -> Catalog:
    """A writer that tells the budgets store before it is done, as the admin does."""
    return Catalog(stores.records, secrets, stores)


@pytest.fixture
def budgets(stores: StoreUrls) -> Iterator[redis.Redis]:
    """A plain client of the budgets store."""
    with redis.Redis.from_url(stores.budgets) as client:
        yield client


@pytest.fixture
def promoted_url(redis_url: str) -> Iterator[str]:
    """URL of an empty database that becomes the primary."""
    url = redis_url.partition("?db=")[0] + "?db=4095"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def copy(store: redis.Redis) -> dict[bytes, object]:
    """All that a store holds."""
    return {name: store.dump(name) for name in store.scan_iter()}


def many_keys(catalog: Catalog) -> tuple[PublicationRecord, list[tuple[KeyRecord, str]]]:
    """A publication and keys of it."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    return publication, [catalog.key(publication) for _ in range(TRIALS)]


def asked(asker: Asker, publication: PublicationRecord, text: str) -> int:
    """What a call with this key is told."""
    return status(asker.ask(question(key=text, publication=publication)))


@contextmanager
def lifting(stores: StoreUrls) -> Iterator[None]:
    """An admin's part that mends a records store that lost changes, while the body runs."""
    stop, loop = threading.Event(), asyncio.new_event_loop()

    async def work() -> None:
        connect = partial(client_of, stores.records, connect_s=3, answer_s=3)
        async with connect() as records, client_of(stores.budgets, connect_s=3, answer_s=3) as budgets:
            announcer = Announcer(budgets, CELLS, owes=False, records_epoch=partial(records_epoch, records))
            tasks = [
                asyncio.create_task(announcer.run()),
                asyncio.create_task(Lifter(connect, budgets, announcer, CELLS).run()),
            ]
            await asyncio.to_thread(stop.wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(work()), name="lifter")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        loop.close()


@pytest.mark.parametrize("follows", ["nobody", "the promoted one"])
def test_a_deposed_primary_proves_nothing(
    catalog: Catalog, stores: StoreUrls, store: redis.Redis, secrets: Secrets, promoted_url: str, follows: str
) -> None:
    """A gate whose link leads to a primary that was replaced admits no key that was revoked since; twenty of them.

    Not even where its follower hears of the new primary, whose epochs the cache then has.
    """
    publication, keys = many_keys(catalog)
    _, kept = catalog.key(publication)
    with gate_without_feed(stores, secrets) as (gate, asker):
        assert [asked(asker, publication, text) for _, text in keys] == [200] * TRIALS
        with redis.Redis.from_url(promoted_url) as new:
            restore(new, copy(store))
        promoted = Catalog(promoted_url, secrets, StoreUrls(promoted_url, stores.budgets, CELLS))
        for record, text in keys:
            promoted.remove(Kind.KEY, record)
            if follows != "nobody":
                link = StoreLink(promoted_url, SystemClock())
                link.connect()
                gate._follower._step(link)
                link.close()
            assert {asked(asker, publication, one) for one in (text, kept, text)} <= {503, 401}
        (trouble,) = [one for one in gate.readiness().problems if one.code == "records_behind"]
        assert "does not have change" in trouble.problem
        assert "admin" in trouble.advice


def test_a_failover_that_lost_changes_serves_again(
    catalog: Catalog, stores: StoreUrls, store: redis.Redis, budgets: redis.Redis, secrets: Secrets
) -> None:
    """Three answered commits are lost: without an admin calls are 503, with one they are served within 5 seconds."""
    publication, keys = many_keys(catalog)
    (record, text), (_, other) = keys[:2]
    with gate_without_feed(stores, secrets) as (gate, asker):
        assert asked(asker, publication, other) == 200
        before = copy(store)
        for number in range(3):
            record = catalog.change(record, name=f"name-{number}")
        assert asked(asker, publication, text) == 200
        restore(store, before)
        drop_links(store)
        drop_links(budgets)
        wait_until(lambda: any(one.code == "records_behind" for one in gate.readiness().problems))
        assert {asked(asker, publication, one) for one in (text, other) for _ in range(20)} == {503}
        began_s = time.monotonic()
        with lifting(stores):
            wait_until(lambda: asked(asker, publication, text) == asked(asker, publication, other) == 200)
            wait_until(lambda: gate.readiness().ready)
            assert time.monotonic() - began_s < 5
            changed = catalog.change(keys[1][0], disabled=True)
            assert asked(asker, publication, other) == 401
            assert changed.disabled
    ((_, entry),) = [one for one in store.xrevrange(names.AUDIT, count=5) if one[1][b"action"] == b"records.lift"]
    assert "lost" in json.loads(entry[b"detail"])


def test_a_budgets_store_that_lost_all_is_told_again(
    catalog: Catalog, stores: StoreUrls, store: redis.Redis, budgets: redis.Redis
) -> None:
    """What a new or emptied budgets store was not told of it learns from an admin; the records stay where they are."""
    catalog.tenant()
    epoch = store.get(names.epoch("0"))
    budgets.flushdb()
    with lifting(stores):
        wait_until(lambda: {budgets.get(names.records(str(cell))) for cell in range(CELLS)} == {epoch})
    assert store.get(names.epoch("0")) == epoch


def test_an_admin_on_a_deposed_primary_lifts_nothing(
    catalog: Catalog, stores: StoreUrls, store: redis.Redis, secrets: Secrets, promoted_url: str
) -> None:
    """It looks by new connections, which find the new primary; the deposed one stays behind for good."""
    _, ((record, _), *_) = many_keys(catalog)
    with redis.Redis.from_url(promoted_url) as new:
        restore(new, copy(store))
    Catalog(promoted_url, secrets, StoreUrls(promoted_url, stores.budgets, CELLS)).remove(Kind.KEY, record)
    deposed = store.get(names.epoch("0"))

    async def look() -> None:
        connect = partial(client_of, promoted_url, connect_s=3, answer_s=3)
        async with client_of(stores.budgets, connect_s=3, answer_s=3) as client:
            lifter = Lifter(connect, client, Announcer(client, CELLS, owes=False), CELLS)
            for _ in range(4):
                await lifter.look()

    asyncio.run(look())
    assert store.get(names.epoch("0")) == deposed
    with redis.Redis.from_url(promoted_url) as new:
        assert not [one for one in new.xrevrange(names.AUDIT, count=3) if one[1][b"action"] == b"records.lift"]


def test_of_announcements_in_any_order_the_newest_stays(budgets: redis.Redis) -> None:
    """Two admins' tellings may cross; each raises the cell's own epoch, and the largest counter stays told."""
    epochs = [f"{counter}-{'a' * 16}" for counter in (9, 10, 8, 100, 99)]
    made = [budgets.execute_command(*announce(0, ["key:a"], epoch)) for epoch in [*epochs, ""]]
    assert len(set(made)) == len(made)
    assert budgets.get(names.records("0")) == epochs[3].encode()


def test_what_was_proved_by_the_primary_is_worth_nothing_on_a_deposed_one(
    catalog: Catalog, stores: StoreUrls, store: redis.Redis, secrets: Secrets, promoted_url: str
) -> None:
    """A spare link may be older than the failover: cells that were proved before it came into use are proved again."""
    publication, [(record, text), (_, other), *_] = many_keys(catalog)
    _, unread = catalog.key(publication)
    with redis.Redis.from_url(promoted_url) as deposed:
        restore(deposed, copy(store))
    with gate_without_feed(stores, secrets) as (gate, asker):
        assert [asked(asker, publication, one) for one in (text, other)] == [200, 200]
        catalog.remove(Kind.KEY, record)
        assert [asked(asker, publication, one) for one in (text, other)] == [401, 200]
        link = StoreLink(promoted_url, SystemClock())
        link.connect()
        gate._links._records._link = link
        assert 200 not in [asked(asker, publication, one) for one in (unread, text, text, text)][1:]
        wait_until(lambda: asked(asker, publication, other) == 200)  # by a new link to the primary
        assert asked(asker, publication, text) == 401
