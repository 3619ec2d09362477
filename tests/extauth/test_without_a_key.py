"""Calls without a key, and keys that are not there: who may pass, what it costs the store."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import pytest
import redis
from gatebench import Asker, Catalog, question, status, wait_until

from catalog.ids import new_id, shard_of
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import Kind, Limits, ModelType, PublicationRecord
from extauth.records.cache import ABSENT_MS, MAX_ABSENT, RecordCache
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckRequest

ADDRESS = "x-envoy-external-address"


def keyless(publication: PublicationRecord, address: str = "192.0.2.1", **more: Any) -> CheckRequest:
    """A call without a key from an address."""
    return question(publication=publication, headers={ADDRESS: address}, **more)


@pytest.fixture
def open_publication(catalog: Catalog) -> PublicationRecord:
    """A publication that asks for no key: three calls a minute for each address, five for all."""
    catalog.tenant()
    return catalog.publication(require_api_key=False, anonymous_per_minute=3, limits=Limits(per_minute=5))


def test_a_call_without_a_key_passes_only_where_none_is_asked(
    catalog: Catalog, asker: Asker, open_publication: PublicationRecord
) -> None:
    """The upstream is told no key and no tenant; the publication next to it stays closed."""
    closed = catalog.publication(model="closed")
    answer = asker.ask(keyless(open_publication))
    assert status(answer) == 200
    assert not answer.ok_response.headers
    assert dict(answer.dynamic_metadata) == {"publication": open_publication.uid}
    assert status(asker.ask(keyless(closed))) == 401


def test_each_address_has_a_budget_and_all_share_the_publications(
    asker: Asker, open_publication: PublicationRecord
) -> None:
    """The refusal names the level; all of an IPv6 site count as one."""
    first = [asker.ask(keyless(open_publication, "2001:db8::1")) for _ in range(2)]
    first += [asker.ask(keyless(open_publication, f"2001:db8::ffff:{n}")) for n in range(2)]
    assert [status(answer) for answer in first] == [200, 200, 200, 429]
    told = json.loads(first[-1].denied_response.body)["error"]
    assert (told["level"], told["limit"], told["budget"]) == ("address", 3, "address-minute")
    others = [asker.ask(keyless(open_publication, f"192.0.2.{n}")) for n in range(3)]
    assert [status(answer) for answer in others] == [200, 200, 429]
    assert json.loads(others[-1].denied_response.body)["error"]["level"] == "publication"


def test_a_bad_key_is_refused_where_none_is_asked(asker: Asker, open_publication: PublicationRecord) -> None:
    """Who shows a key is held to it: a mistake must not turn into somebody else's budget."""
    asks = [
        keyless(open_publication, key="tk_wrong"),
        question(publication=open_publication, headers={ADDRESS: "192.0.2.1", "authorization": "Bearer nonsense"}),
    ]
    assert [status(asker.ask(ask)) for ask in asks] == [401, 401]


def test_a_good_key_is_counted_as_itself(catalog: Catalog, asker: Asker, open_publication: PublicationRecord) -> None:
    """A key does not fall under its address's budget."""
    _, text = catalog.key(open_publication)
    answers = [asker.ask(keyless(open_publication, key=text)) for _ in range(4)]
    assert [status(answer) for answer in answers] == [200] * 4


def test_closing_an_open_publication_binds_the_next_call(
    catalog: Catalog, asker: Asker, open_publication: PublicationRecord
) -> None:
    """From the answer on, by the fence."""
    assert status(asker.ask(keyless(open_publication))) == 200
    catalog.change(open_publication, require_api_key=True)
    assert status(asker.ask(keyless(open_publication))) == 401


def test_an_openai_body_of_a_keyless_call_is_held_to_the_same_rules(catalog: Catalog, asker: Asker) -> None:
    """Another model than the published one is not found, key or not."""
    catalog.tenant()
    publication = catalog.publication(require_api_key=False, type=ModelType.OPENAI)
    assert status(asker.ask(keyless(publication, model="my-model"))) == 200
    assert status(asker.ask(keyless(publication, model="another"))) == 404


@pytest.fixture
def settled(gate: Gate) -> Gate:
    """A gate that has made its spare link: it asks the store for nothing but its looks."""
    keepers = gate._links._keepers.values()
    wait_until(lambda: all(keeper._spare.ready for keeper in keepers))
    return gate


@pytest.mark.usefixtures("settled")
def test_keys_without_a_record_cost_the_store_nothing_more(
    asker: Asker, store: redis.Redis, secrets: Secrets, publication_of_a: PublicationRecord
) -> None:
    """A revoked key's text is asked for once; then 200 calls with it reach the store with no command."""
    text = mint(new_id(shard_of("tenant-a"), os.urandom), secrets, os.urandom).reveal()
    ask = question(key=text, publication=publication_of_a)
    assert status(asker.ask(ask)) == 401
    before = evalsha_and_mget(store)
    assert {status(answer) for answer in asker.ask_many([ask] * 200)} == {401}
    wait_until(lambda: evalsha_and_mget(store) == before)  # a look may have asked for the role only


@pytest.mark.usefixtures("settled")
def test_missing_keys_cost_the_store_nothing_more(
    asker: Asker, store: redis.Redis, publication_of_a: PublicationRecord
) -> None:
    """Once the publication is known to ask for a key."""
    ask = keyless(publication_of_a)
    assert status(asker.ask(ask)) == 401
    before = evalsha_and_mget(store)
    assert {status(answer) for answer in asker.ask_many([ask] * 200)} == {401}
    wait_until(lambda: evalsha_and_mget(store) == before)  # a look may have asked for the role only


@pytest.fixture
def publication_of_a(catalog: Catalog) -> PublicationRecord:
    """A publication that asks for a key."""
    catalog.tenant()
    return catalog.publication()


def evalsha_and_mget(store: redis.Redis) -> tuple[int, int]:
    """How often the store was asked for records or to take (the feed's own commands are others).

    Each look at a link asks the store for its role before it asks it to decide, which reads the epoch.
    """
    seen = store.info("commandstats")
    taken, role, read = (seen.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "role", "mget"))
    return taken - role, read - role


def test_a_key_that_comes_into_being_is_found_when_the_feed_moves(
    catalog: Catalog, asker: Asker, publication_of_a: PublicationRecord
) -> None:
    """What is known to be absent is forgotten at any change."""
    record, text = catalog.key(publication_of_a)
    ask = question(key=text, publication=publication_of_a)
    assert status(asker.ask(ask)) == 200
    catalog.remove(Kind.KEY, record)
    assert status(asker.ask(ask)) == 401
    catalog.add(record)
    wait_for(lambda: status(asker.ask(ask)) == 200)


def wait_for(condition: Any) -> None:
    """Await what the feed brings; a minute at most."""
    tick = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        tick.wait(0.02)
    pytest.fail("the change was not noticed")


class TestAbsentNames:
    """The names known to have no record, on a clock that stands still."""

    def setup_method(self) -> None:
        """Begin at time zero."""
        self.now_ms = 0.0
        self.cache = RecordCache(max_absent=2, now_ms=lambda: self.now_ms)
        self.cache.reset("1-a")

    def test_they_are_believed_for_five_seconds(self) -> None:
        """Exactly."""
        self.cache.insert("1-a", {}, absent=["key:x"])
        self.now_ms = ABSENT_MS - 1
        assert self.cache.is_absent("key:x")
        self.now_ms = ABSENT_MS
        assert not self.cache.is_absent("key:x")

    def test_they_are_forgotten_when_the_epoch_moves_or_the_cache_is_dropped(self) -> None:
        """Any change may have made them."""
        for forget in (lambda: self.cache.advance("1-a", "2-b", ()), lambda: self.cache.reset("1-a")):
            self.cache.reset("1-a")
            self.cache.insert("1-a", {}, absent=["key:x"])
            forget()
            assert not self.cache.is_absent("key:x")

    def test_what_was_read_at_another_epoch_is_not_noted(self) -> None:
        """A late reader's news is old."""
        assert not self.cache.insert("0-z", {}, absent=["key:x"])
        assert not self.cache.is_absent("key:x")

    def test_the_first_noted_go_first(self) -> None:
        """There is room for so many and no more."""
        for name in ("key:x", "key:y", "key:x", "key:z"):
            self.cache.insert("1-a", {}, absent=[name])
        assert [self.cache.is_absent(name) for name in ("key:x", "key:y", "key:z")] == [True, False, True]
        assert MAX_ABSENT == 10_000
