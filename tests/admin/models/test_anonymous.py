"""Publications that ask for no key: only where the operator allows it, and shown as what they are."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.records import Kind, PublicationRecord

OPEN = {"requireApiKey": False, "anonymousRequestsPerMinute": 5}


@pytest.fixture
async def allowing(start_api: Any, kserve: str, openai: str) -> Any:
    """An application run with --allow-anonymous."""
    api = await start_api(allow_anonymous=True)
    await api.tenant("tenant-a")
    await api.model("my-model", kserve)
    await api.model("my-llm", openai)
    return api


async def _record(api: Any) -> PublicationRecord:
    (found,) = (
        await api.services.store.get_many(Kind.PUBLICATION, await api.services.store.ids(Kind.PUBLICATION))
    ).values()
    assert isinstance(found, PublicationRecord)
    return found


async def test_without_the_setting_it_is_refused(api: Any, kserve: str) -> None:
    """At publishing and at a change, with the way on; the publication stays closed."""
    await api.model("my-model", kserve)
    refused = await api.publish("my-model", authentication=OPEN)
    assert (refused.status, refused.faults) == (400, {"config.authentication.requireApiKey": "not_enabled"})
    assert "--allow-anonymous" in refused.text
    assert (await api.publish("my-model")).body["authentication"]["requireApiKey"] is True
    assert (await api.update("my-model", authentication=OPEN)).code == "INVALID_CONFIG"
    assert (await _record(api)).require_api_key


async def test_it_is_published_changed_and_shown(allowing: Any) -> None:
    """60 a minute and address unless given; a change merges, and what is absent is kept."""
    made = await allowing.publish("my-model", authentication={"requireApiKey": False})
    assert made.status == 201, made.text
    shown = made.body["authentication"]
    assert (shown["requireApiKey"], shown["anonymousRequestsPerMinute"]) == (False, 60)
    await allowing.update("my-model", authentication={"anonymousRequestsPerMinute": 5})
    record = await _record(allowing)
    assert (record.require_api_key, record.anonymous_per_minute) == (False, 5)
    await allowing.update("my-model", metadata={"a": "b"})
    assert not (await _record(allowing)).require_api_key
    await allowing.update("my-model", authentication={"requireApiKey": True})
    record = await _record(allowing)
    assert (record.require_api_key, record.anonymous_per_minute) == (True, 5)


@pytest.mark.parametrize("limit", [0, 10**6 + 1, None, "5", 1.5])
async def test_an_address_always_has_a_limit(allowing: Any, limit: Any) -> None:
    """1 to a million; never unlimited."""
    refused = await allowing.publish("my-model", authentication={**OPEN, "anonymousRequestsPerMinute": limit})
    assert list(refused.faults) == ["config.authentication.anonymousRequestsPerMinute"]


async def test_examples_send_no_key_and_take_the_path(allowing: Any) -> None:
    """What is open is the path; by the body's model alone no model is found without a key."""
    for name, path in (("my-model", "/models/my-model/predict"), ("my-llm", "/v1/models/my-llm/chat/completions")):
        examples = (await allowing.publish(name, authentication=OPEN)).body["examples"]
        for example in examples.values():
            assert path in example
            assert "API_KEY" not in example
