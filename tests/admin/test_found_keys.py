"""Keys with words about them: described, labelled, listed by name and label, and found by their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from catalog.ids import shard_of, shard_prefix
from catalog.records import Credential, KeyRecord, Kind, encode
from catalog.store.store import CatalogStore

KEYS = "/api/keys"
FIND = f"{KEYS}/find"
WORDS = {
    "description": "nightly batch",
    "owner": "Ann <ann@example.com>",
    "labels": {"team": "red", "example.com/env": ""},
}
MANY = [f"k{number:02d}{'x' * 42}" for number in range(35)]  # with values of 63 characters: 4,060 bytes as JSON


@pytest.fixture
async def shared(api: Any, kserve: str) -> Any:
    """tenant-a and tenant-b have a model each."""
    for name, tenant in (("my-model", "tenant-a"), ("its-model", "tenant-b")):
        await api.model(name, kserve, tenant)
        await api.publish(name)
    return api


async def make(api: Any, tenant: str = "tenant-a", **more: Any) -> Any:
    """Ask for a key."""
    model = "my-model" if tenant == "tenant-a" else "its-model"
    return await api.ask("POST", KEYS, {"tenantId": tenant, "name": "ci", "publications": [model], **more})


async def found(api: Any, text: str) -> Any:
    """Ask whose a text is."""
    return await api.ask("POST", FIND, {"apiKey": text})


async def test_a_key_is_described_and_changed(shared: Any) -> None:
    """What is said is shown, kept by other changes, replaced, and taken away again; the audit stream has it."""
    made = (await make(shared, **WORDS)).body
    path = f"{KEYS}/{made['id']}"
    assert WORDS.items() <= made.items()
    assert WORDS.items() <= (await shared.ask("PATCH", path, {"disabled": True})).body.items()
    assert WORDS.items() <= (await shared.ask("POST", f"{path}/rotate")).body.items()
    changed = (await shared.ask("PATCH", path, {"owner": "Bob", "labels": {"team": "blue"}})).body
    assert (changed["owner"], changed["labels"], changed["description"]) == ("Bob", {"team": "blue"}, "nightly batch")
    emptied = (await shared.ask("PATCH", path, {"owner": "", "labels": {}, "description": ""})).body
    assert (emptied["owner"], emptied["labels"], emptied["description"]) == ("", {}, "")
    acts = (await shared.ask("GET", "/api/audit?action=key.change")).body["items"]
    assert acts[1]["detail"]["owner"] == "Ann <ann@example.com> -> Bob"
    assert acts[1]["detail"]["labels"] == "example.com/env=,team=red -> team=blue"


async def test_a_key_of_which_nothing_is_said_is_written_as_before(shared: Any) -> None:
    """Releases before read and write the same record; one with words is read by them without."""
    plain = await shared.services.store.get(Kind.KEY, (await make(shared)).body["id"])
    assert isinstance(plain, KeyRecord)
    assert not any(word in encode(plain) for word in (b"description", b"owner", b"labels"))
    emptied = (await make(shared, **WORDS)).body["id"]
    await shared.ask("PATCH", f"{KEYS}/{emptied}", {"owner": "", "labels": {}, "description": ""})
    again = await shared.services.store.get(Kind.KEY, emptied)
    assert isinstance(again, KeyRecord)
    assert not any(word in encode(again) for word in (b"description", b"owner", b"labels"))


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        ({"owner": "x" * 256}, {}),
        ({"owner": "x" * 257}, {"owner": "length"}),
        ({"owner": "a\nb"}, {"owner": "format"}),
        ({"description": "x" * 1_024}, {}),
        ({"description": "x" * 1_025}, {"description": "length"}),
        ({"labels": {"k": "v" * 63}}, {}),
        ({"labels": {"k": "v" * 64}}, {"labels": "format"}),
        ({"labels": {"k" * 64: "v"}}, {"labels": "format"}),
        ({"labels": {"a b": "v"}}, {"labels": "format"}),
        ({"labels": {"k": 1}}, {"labels.k": "type"}),
        ({"labels": {f"k{n}": "" for n in range(64)}}, {}),
        ({"labels": {f"k{n}": "" for n in range(65)}}, {"labels": "length"}),
        ({"labels": {**dict.fromkeys(MANY, "v" * 63), "k": "v" * 27}}, {}),
        ({"labels": {**dict.fromkeys(MANY, "v" * 63), "k": "v" * 28}}, {"labels": "length"}),
        ({"owner": None}, {"owner": "type"}),
    ],
)
async def test_words_have_bounds(shared: Any, words: Any, faults: Any) -> None:
    """Up to the last good value; what is beyond names field and rule, and makes no key."""
    made = await make(shared, **words)
    assert (made.status, made.faults) == ((400, faults) if faults else (201, {})), made.text


async def test_a_list_is_narrowed_by_name_and_labels(shared: Any) -> None:
    """By either and both, with other parameters too; what is no selector is refused."""
    ids = {}
    for name, labels in (("one", {"team": "red"}), ("two", {"team": "blue", "old": ""}), ("two", {})):
        ids[name, labels.get("team")] = (await make(shared, name=name, labels=labels)).body["id"]

    async def listed(**query: str) -> set[str]:
        answer = await shared.ask("GET", KEYS, params={"tenantId": "tenant-a", **query})
        return {one["id"] for one in answer.body["items"]}

    assert await listed(name="two") == {ids["two", "blue"], ids["two", None]}
    assert await listed(name="tw") == set()
    assert await listed(labelSelector="team in (red,blue)") == {ids["one", "red"], ids["two", "blue"]}
    assert await listed(labelSelector="team,!old") == {ids["one", "red"]}
    assert await listed(labelSelector="team!=red", name="two") == {ids["two", "blue"], ids["two", None]}
    assert ids["one", "red"] in await listed(labelSelector="")
    for text in ("team=red=x", "x" * 2_000, "team in (red", ",".join(["team"] * 33)):
        refused = await shared.ask("GET", KEYS, params={"labelSelector": text})
        assert (refused.status, refused.faults) == (400, {"labelSelector": "format"})


async def test_whose_a_key_is_is_told_by_its_text(shared: Any) -> None:
    """Now, in its grace, replaced, and masked; a text that nobody minted is nobody's."""
    made = (await make(shared, owner="Ann")).body
    first = made["apiKey"]
    path = f"{KEYS}/{made['id']}/rotate"

    async def state(text: str) -> tuple[str, str, str]:
        (one,) = (await found(shared, text)).body["items"]
        assert len(text) < 75 or text.strip() not in str(one)
        return one["text"], one["key"]["id"], one["key"]["owner"]

    assert await state(first) == ("current", made["id"], "Ann")
    assert await state(f" {first}\n") == ("current", made["id"], "Ann")
    second = (await shared.ask("POST", path, {"gracePeriodSeconds": 60})).body["apiKey"]
    assert (await state(first), await state(second)) == (
        ("previous", made["id"], "Ann"),
        ("current", made["id"], "Ann"),
    )
    await shared.ask("POST", path)
    assert await state(first) == ("former", made["id"], "Ann")
    shown = (await shared.ask("GET", f"{KEYS}/{made['id']}")).body["apiKey"]
    for masked in (shown, shown.rstrip("…"), shown.replace("…", "..."), f"tk_{made['id']}", first[:40]):
        assert await state(masked) == ("masked", made["id"], "Ann"), masked
    forged = first[:-1] + ("a" if first[-1] != "a" else "b")
    for text in (forged, "tk_", "tk_…", "tk_abc", "*", "x" * 1_024, "tk_000aaa…", made["id"]):
        assert (await found(shared, text)).code == "KEY_NOT_FOUND", text
    assert (await found(shared, "x" * 1_025)).faults == {"apiKey": "length"}
    assert (await found(shared, "")).faults == {"apiKey": "length"}


async def test_anothers_key_is_nobodys(shared: Any) -> None:
    """An operator hears of own tenants' keys only, a viewer of none; an admin of all."""
    foreign, own = (await make(shared)).body, (await make(shared, "tenant-b")).body
    await shared.user("op", "operator", "tenant-b")
    await shared.user("eve", "viewer", "tenant-b")
    assert (await found(shared, foreign["apiKey"])).status == 200
    await shared.become("op")
    absent = await found(shared, "tk_000aaaa…")
    for text in (foreign["apiKey"], foreign["apiKey"][:9]):
        answer = await found(shared, text)
        assert (answer.status, answer.body["detail"]) == (404, absent.body["detail"])
    assert (await found(shared, own["apiKey"])).status == 200
    await shared.become("eve")
    assert (await found(shared, own["apiKey"])).status == 403
    assert (await shared.ask("GET", f"{FIND}?apiKey={own['apiKey']}")).status == 400


async def test_every_question_is_written_down_and_no_text_is(shared: Any, store: Any) -> None:
    """Who asked for what, masked, under the tenant whose it is; of foreign and unknown ones too."""
    made, own = (await make(shared)).body, (await make(shared, "tenant-b")).body
    await shared.user("op", "operator", "tenant-b")
    await shared.become("op")
    for text in (own["apiKey"], own["apiKey"][:9], made["apiKey"], "no key"):
        await found(shared, text)
    await shared.become("admin")
    acts = (await shared.ask("GET", "/api/audit?action=key.find")).body["items"][::-1]
    told = [(one["actor"], one["target"], one["tenantId"], one["detail"]) for one in acts]
    mask = own["apiKey"][:9] + "…"
    assert told == [
        ("op", own["id"], "tenant-b", {"apiKey": mask, "found": "1", "text": "current"}),
        ("op", own["id"], "tenant-b", {"apiKey": mask, "found": "1", "text": "masked"}),
        ("op", made["apiKey"][:9] + "…", "", {"apiKey": made["apiKey"][:9] + "…", "found": "0"}),
        ("op", "tk_…", "", {"apiKey": "tk_…", "found": "0"}),
    ]
    written = str(store.xrange("tk:audit"))
    assert made["apiKey"] not in written
    assert own["apiKey"] not in written


async def test_a_damaged_key_is_told_to_admins_alone(shared: Any, store: Any) -> None:
    """As what it is, so that they can delete it; whose it was is not known, so to others it is none."""
    made = (await make(shared)).body
    await shared.user("op", "operator", "tenant-a")
    store.set(f"tk:rec:key:{made['id']}", b"{")
    answer = await found(shared, made["apiKey"])
    assert (answer.status, answer.code) == (500, "CORRUPT_RECORD")
    (act,) = (await shared.ask("GET", "/api/audit?action=key.find")).body["items"]
    assert act["detail"] == {"apiKey": made["apiKey"][:9] + "…", "found": "0"}
    await shared.become("op")
    assert (await found(shared, made["apiKey"])).code == "KEY_NOT_FOUND"


async def test_a_damaged_key_is_found_by_its_masked_text(shared: Any, store: Any) -> None:
    """By admins, with how to remove it, beside those that begin alike and can be read; to others it is none."""
    made = (await make(shared)).body
    await shared.user("op", "operator", "tenant-a")
    masked = made["apiKey"][:9] + "…"
    record = f"tk:rec:key:{made['id']}"
    whole = store.get(record)
    for damage in (b"{", None):
        if damage is None:
            store.delete(record)
            store.lpush(record, "x")
        else:
            store.set(record, damage)
        answer = await found(shared, masked)
        assert (answer.status, answer.body["items"]) == (200, [])
        assert answer.body["damaged"][0]["id"] == made["id"]
        assert answer.body["damaged"][0]["remove"] == f"DELETE /api/keys/{made['id']}"
    await shared.become("op")
    assert (await found(shared, masked)).code == "KEY_NOT_FOUND"
    store.delete(record)
    store.set(record, whole)
    assert (await found(shared, masked)).body["damaged"] == []


async def test_nobody_fills_the_audit_stream_with_questions(shared: Any, store: Any) -> None:
    """Sixty a minute of a user; what is more is refused, and nothing is written for it."""
    await shared.user("op", "operator", "tenant-b")
    admin = shared.token
    await shared.become("op")
    assert {(await found(shared, "no key")).status for _ in range(60)} == {404}
    written = store.xlen("tk:audit")
    refused = await found(shared, "no key")
    assert (refused.status, refused.code, store.xlen("tk:audit")) == (429, "TOO_MANY_REQUESTS", written)
    assert int(refused.headers["Retry-After"]) <= 60
    shared.token = admin
    assert (await found(shared, "no key")).status == 404


class CountingStore:
    """A store that counts how many records were read."""

    def __init__(self, store: CatalogStore) -> None:
        self.read = 0
        self._page, self._many = store.read_page, store.get_many
        store.read_page, store.get_many = self.read_page, self.get_many  # type: ignore[method-assign]

    async def read_page(self, kind: Kind, ids: Sequence[str]) -> Any:
        """Count a page."""
        self.read += len(ids)
        return await self._page(kind, ids)

    async def get_many(self, kind: Kind, ids: Sequence[str]) -> Any:
        """Pages are counted beneath."""
        return await self._many(kind, ids)


def plant(store: Any, tenant: str, beginnings: Sequence[str]) -> None:
    """Put keys into the catalog as a commit lays them out, by the first characters of their ids."""
    current = Credential("x", (1,))
    with store.pipeline(transaction=False) as batch:
        for number, beginning in enumerate(beginnings):
            if number % 500 == 0:
                batch.execute()
            key_id = beginning + "".join("abcdefghij"[int(digit)] for digit in f"{number:0{19 - len(beginning)}d}")
            record = KeyRecord(key_id, tenant, f"n{number}", (), current, 1, 1, labels={"n": f"{number % 7}"})
            batch.set(f"tk:rec:key:{key_id}", encode(record))
            batch.zadd("tk:index:key", {key_id: 0})
            batch.zadd(f"tk:index:key:{tenant}", {key_id: 0})
        batch.execute()


async def test_a_narrowed_list_is_bounded(shared: Any, store: Any) -> None:
    """Of 12,000 keys a request reads some 5,000 at most, shows none, and says where to go on; the end is found."""
    shard = shard_prefix(shard_of("tenant-a"))
    plant(store, "tenant-a", [shard] * 12_000)
    counting, cursor, seen = CountingStore(shared.services.store), "", 0
    query = {"tenantId": "tenant-a", "labelSelector": "n=9", "name": "n11999"}
    while cursor is not None:
        counting.read = 0
        answer = await shared.ask("GET", KEYS, params={**query, "cursor": cursor})
        assert (answer.status, answer.body["items"]) == (200, [])
        assert counting.read <= 5_500
        cursor, seen = answer.body["next"], seen + 1
    assert seen == 3
    assert (await shared.ask("GET", KEYS, params={**query, "labelSelector": "n=1"})).body["items"] == []


async def test_a_masked_text_looks_at_few(shared: Any, store: Any) -> None:
    """Of a thousand keys that begin alike, somebody else's among them, a hundred are read and twenty shown."""
    beginning = shard_prefix(shard_of("tenant-a")) + "abc"
    plant(store, "tenant-a", [beginning] * 1_000)
    counting = CountingStore(shared.services.store)
    answer = await found(shared, f"tk_{beginning}…")
    assert (answer.status, len(answer.body["items"])) == (200, 20)
    assert counting.read <= 130  # and what is shown of the twenty
