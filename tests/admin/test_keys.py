"""The key of a publication: rotation, grace, races, validity, recovery; and that its text is nowhere."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime
from typing import Any

import pytest
from msgspec import structs

from admin.acts.validation import Accepted, accepted
from catalog.actors import Recordless
from catalog.changes import Audit, Committed, Put
from catalog.ids import new_id
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mask, mint
from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Kind
from catalog.store.store import CatalogStore

PUBLISH = "/api/models/my-model/publish"
ROTATE = "/api/models/my-model/publish/rotate-key"


@pytest.fixture
async def published(api: Any, kserve: str) -> str:
    """A published model's key."""
    await api.model("my-model", kserve)
    return str((await api.publish("my-model")).body["apiKey"])


async def _change_key(api: Any, key_id: str, **changes: Any) -> None:
    key = await api.services.store.get(Kind.KEY, key_id)
    audit = Audit(Recordless.START, "key.change", key_id, "", "")
    await api.services.store.commit([Put(structs.replace(key, **changes), key.version)], audit=audit)


async def test_rotation_without_a_body_kills_the_old_text(api: Any, published: str) -> None:
    """The guide's command, POST without a body: the new text is whole and valid, the old one is dead."""
    rotated = await api.ask("POST", ROTATE)
    assert rotated.status == 200, rotated.text
    assert rotated.body["previousValidUntil"] is None
    assert (await api.validate(published)) == (await api.validate("your-api-key"))
    assert (await api.validate(rotated.body["apiKey"]))["valid"] is True
    assert rotated.headers["Cache-Control"] == "no-store"


async def test_grace_keeps_one_old_text(api: Any, published: str) -> None:
    """With grace the old text stays valid until its end, by the store's clock; the one before it is dead."""
    second = (await api.ask("POST", ROTATE, {"gracePeriodSeconds": 600})).body
    assert second["previousValidUntil"] is not None
    old = await api.validate(published)
    assert (old["valid"], old["expiresAt"]) == (True, second["previousValidUntil"])
    assert (await api.validate(second["apiKey"]))["expiresAt"] is None
    third = (await api.ask("POST", ROTATE, {"gracePeriodSeconds": 604800})).body
    assert [(await api.validate(text))["valid"] for text in (published, second["apiKey"], third["apiKey"])] == [
        False,
        True,
        True,
    ]
    fourth = (await api.ask("POST", ROTATE, {})).body
    assert [(await api.validate(text))["valid"] for text in (second["apiKey"], third["apiKey"], fourth["apiKey"])] == [
        False,
        False,
        True,
    ]


async def test_grace_ends_by_the_stores_clock(api: Any, published: str) -> None:
    """At the end of its grace, to the millisecond, a text is invalid."""
    second = (await api.ask("POST", ROTATE, {"gracePeriodSeconds": 600})).body
    key = await api.services.store.get(Kind.KEY, second["keyId"])
    assert isinstance(key, KeyRecord)
    assert key.previous is not None
    now_ms = await api.services.store.now_ms()
    await _change_key(api, key.id, previous=structs.replace(key.previous, valid_until_ms=now_ms))
    assert (await api.validate(published))["valid"] is False
    assert (await api.validate(second["apiKey"]))["valid"] is True


def test_a_text_ends_at_its_millisecond(secrets: Secrets) -> None:
    """A text is accepted until just before its end and not at it; the earlier of its ends counts."""
    key_id = new_id(7, os.urandom)
    text = mint(key_id, secrets, os.urandom)
    hashed = hash_key(text, secrets)
    key = KeyRecord(key_id, "tenant-a", "x", (), hashed, 0, 0, expires_at_ms=1_000)
    assert accepted(key, text, secrets, 999) == Accepted(until_ms=1_000)
    assert accepted(key, text, secrets, 1_000) is None
    in_grace = structs.replace(
        key,
        current=hash_key(mint(key_id, secrets, os.urandom), secrets),
        previous=structs.replace(hashed, valid_until_ms=500),
    )
    assert accepted(in_grace, text, secrets, 499) == Accepted(until_ms=500)
    assert accepted(in_grace, text, secrets, 500) is None


@pytest.mark.parametrize("seconds", [-1, 604801, "60", 1.5, None, True])
async def test_bad_grace_rotates_nothing(api: Any, published: str, seconds: Any) -> None:
    """A grace out of range is refused and the text stays."""
    refused = await api.ask("POST", ROTATE, {"gracePeriodSeconds": seconds})
    assert (refused.status, list(refused.faults)) == (400, ["gracePeriodSeconds"])
    assert (await api.validate(published))["valid"] is True


async def test_of_concurrent_rotations_one_wins(start_api: Any, redis_client: Any, kserve: str) -> None:
    """Two rotations that read the same key: one wins, the loser hears 409, and the winner's text is valid."""

    class Meeting(CatalogStore):
        """Lets two commits of rotations meet before either runs."""

        gate = asyncio.Barrier(2)

        async def commit(self, changes: Any, *, audit: Audit, forget_usage: Any = ()) -> Committed:
            if audit.action == "key.rotate":
                await self.gate.wait()
            return await super().commit(changes, audit=audit, forget_usage=forget_usage)

    api = await start_api(Meeting(redis_client))
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    first = (await api.publish("my-model")).body["apiKey"]
    both = await asyncio.gather(api.ask("POST", ROTATE, {"gracePeriodSeconds": 60}), api.ask("POST", ROTATE))
    won, lost = sorted(both, key=lambda answer: answer.status)
    assert (won.status, lost.status, lost.code) == (200, 409, "CONFLICT")
    assert "apiKey" not in lost.body
    assert (await api.validate(won.body["apiKey"]))["valid"] is True
    key = await api.services.store.get(Kind.KEY, won.body["keyId"])
    assert isinstance(key, KeyRecord)
    assert (await api.validate(first))["valid"] is (key.previous is not None)


async def test_validation_tells_what_a_valid_key_opens(api: Any, published: str) -> None:
    """Asked without logging in; the answer names tenant, model and URL."""
    api.token = ""
    assert await api.validate(published) == {
        "valid": True,
        "tenantId": "tenant-a",
        "modelName": "my-model",
        "externalUrl": "https://api.router.inference-in-a-box/models/my-model",
        "expiresAt": None,
    }


async def test_every_kind_of_invalid_gets_one_answer(api: Any, published: str) -> None:
    """Unknown, forged, altered, disabled, expired, of a disabled tenant: the same 200 without a word more."""
    key_id = published[3:22]
    answers = [
        await api.validate("your-api-key"),
        await api.validate(published[:-1] + ("a" if published[-1] != "a" else "b")),
        await api.validate(published + "x"),
        await api.validate("tk_…"),
    ]
    now_ms = await api.services.store.now_ms()
    for changes, back in (
        ({"disabled": True}, {"disabled": False}),
        ({"expires_at_ms": now_ms}, {"expires_at_ms": None}),
    ):
        await _change_key(api, key_id, **changes)
        answers.append(await api.validate(published))
        await _change_key(api, key_id, **back)
        assert (await api.validate(published))["valid"] is True
    await api.ask("PATCH", "/api/tenants/tenant-a", {"disabled": True})
    answers.append(await api.validate(published))
    await api.ask("PATCH", "/api/tenants/tenant-a", {"disabled": False})
    await api.ask("DELETE", "/api/models/my-model/publish")
    answers.append(await api.validate(published))
    nothing = {"valid": False, "tenantId": None, "modelName": None, "externalUrl": None, "expiresAt": None}
    assert answers == [nothing] * 8


async def test_validation_is_throttled(api: Any) -> None:
    """Thirty questions a minute by address, whatever they ask."""
    statuses = [(await api.ask("POST", "/api/validate-api-key", {"apiKey": "your-api-key"})).status for _ in range(31)]
    assert statuses == [200] * 30 + [429]


async def test_with_key_recovery_get_shows_the_whole_text(start_api: Any, kserve: str) -> None:
    """Recovery on: GET of the one gives the text that is valid now; off again: masked. No list and no PUT gives any."""
    api = await start_api(key_recovery=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body["apiKey"]
    assert (await api.show("my-model")).body["apiKey"] == made
    rotated = (await api.ask("POST", ROTATE)).body["apiKey"]
    assert (await api.show("my-model")).body["apiKey"] == rotated
    assert (await api.update("my-model", metadata={"a": "b"})).body["apiKey"].endswith("…")
    off = await start_api()
    assert (await off.show("my-model")).body["apiKey"].endswith("…")


async def test_who_only_reads_is_shown_no_text_that_could_be_recovered(start_api: Any, kserve: str) -> None:
    """An operator of the tenant is; a viewer could call the models with it, and go on when he is a user no more."""
    api = await start_api(key_recovery=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body
    for name, role, whole in (("olga", "operator", True), ("vera", "viewer", False)):
        await _go_on_as(api, name, role)
        shown = [
            (await api.show("my-model")).body["apiKey"],
            (await api.ask("GET", f"/api/keys/{made['keyId']}")).body["apiKey"],
        ]
        assert [text == made["apiKey"] for text in shown] == [whole] * 2


async def test_a_text_that_is_shown_again_is_in_the_audit_stream(start_api: Any, kserve: str) -> None:
    """Who was shown which key's text, when and by which request; lists, changes and viewers show none and say none."""
    api = await start_api(key_recovery=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body
    await _go_on_as(api, "olga", "operator")
    before_ms = await api.services.store.now_ms()
    for number, path in enumerate((PUBLISH, f"/api/keys/{made['keyId']}")):
        shown = await api.ask("GET", path, headers={"X-Request-Id": f"look-{number}"})
        assert shown.body["apiKey"] == made["apiKey"]
    await _go_on_as(api, "vera", "viewer")
    for path in (PUBLISH, f"/api/keys/{made['keyId']}", "/api/keys", "/api/published-models"):
        assert made["apiKey"] not in (await api.ask("GET", path)).text
    await api.become("admin")
    for path in ("/api/keys", "/api/keys?usage=true", "/api/published-models", "/api/published-models?usage=true"):
        assert made["apiKey"] not in (await api.ask("GET", path)).text
    assert made["apiKey"] not in (await api.ask("PATCH", f"/api/keys/{made['keyId']}", {"name": "new"})).text
    told = (await api.ask("GET", "/api/audit?action=key.reveal")).body["items"]
    assert [(one["actor"], one["target"], one["tenantId"], one["requestId"]) for one in told] == [
        ("olga", made["keyId"], "tenant-a", f"look-{number}") for number in (1, 0)
    ]
    assert all(datetime.fromisoformat(one["time"]).timestamp() * 1000 >= before_ms for one in told)
    assert all(one["detail"] == {"apiKey": mask(made["keyId"])} for one in told)


async def test_no_text_is_shown_that_cannot_be_audited(start_api: Any, kserve: str, store: Any) -> None:
    """The entry is written before the answer: where the stream cannot be written, the answer is 503 without a text."""
    api = await start_api(key_recovery=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body
    store.rename("tk:audit", "tk:index:away")
    store.set("tk:audit", "no stream")
    for path in (PUBLISH, f"/api/keys/{made['keyId']}"):
        answer = await api.ask("GET", path)
        assert (answer.status, answer.code) == (503, "STORE_UNAVAILABLE")
        assert made["apiKey"] not in answer.text
    store.rename("tk:index:away", "tk:audit")
    assert (await api.show("my-model")).body["apiKey"] == made["apiKey"]


async def _go_on_as(api: Any, name: str, role: str) -> None:
    """Make a user of tenant-a as the admin, and go on as that user."""
    await api.become("admin")
    await api.user(name, role, "tenant-a")
    await api.become(name)


async def test_a_recovery_text_that_does_not_open_is_masked(start_api: Any, kserve: str) -> None:
    """A stored text of another recovery key is no fault of the request."""
    api = await start_api(key_recovery=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    made = (await api.publish("my-model")).body
    await _change_key(api, made["keyId"], recovery="v1:AAAA")
    shown = await api.show("my-model")
    assert (shown.status, shown.body["apiKey"].endswith("…")) == (200, True)


async def test_no_secret_is_stored_logged_or_counted(
    start_api: Any, kserve: str, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After a busy run key texts, passwords and tokens are in no stored value, log line, metric or problem."""
    caplog.set_level(logging.DEBUG)
    api = await start_api(logged_in=False)
    api.token = (await api.login()).body["token"]
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    texts = [(await api.publish("my-model")).body["apiKey"]]
    texts.append((await api.ask("POST", ROTATE, {"gracePeriodSeconds": 60})).body["apiKey"])
    given_out = len(api.seen)
    for text in texts:
        await api.validate(text)
        await api.ask("POST", "/api/validate-api-key", {"apiKey": [text]})
        await api.ask("POST", ROTATE, {"gracePeriodSeconds": text})
        await api.ask("GET", f"/api/models/{text}/publish")
        await api.ask("GET", "/api/tenants", headers={"Authorization": f"Bearer {text}"})
    await api.show("my-model")
    metrics = (await api.told("/metrics")).text
    stored = b"".join(store.dump(name) for name in store.keys("*")).decode("latin-1")
    everywhere = [stored, caplog.text, metrics, *api.seen[given_out:]]
    for secret in (*texts, *(text[23:] for text in texts), "a good password", api.token):
        assert not any(secret in place for place in everywhere)
