r"""The publishing guide, followed word for word: its commands in its order, with curl, jq and the machine's CURL_HOME.

Every text given to ``reader.types`` is the guide's own; what stands below ``own check`` is ours. What differs:

* ``kubectl``, ``istioctl`` and ``open`` need a cluster or a browser, so their lines are not here;
* my-model is unpublished before it is published again under the custom domain;
* the chat call names my-llm and has its key, so it comes after my-llm is published;
* ``$API_KEY`` is set from what publish or rotate answered, ``$ADMIN_TOKEN`` is the admin's ``$TOKEN``.

One promise of the guide is kept in another way: keys are stored hashed, so the details of a published model show its
key masked (``tk_0a1q7x…``). Only publish and rotate answer with the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from upmachine import UpMachine, until

from tests.e2e.guide.reader import PREDICT, PREDICTIONS, PUBLISH, ROTATE, ROUTER, VALIDATE, Reader, following_the_guide

CUSTOM = "https://api.mycompany.com"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def reader(up: UpMachine) -> Iterator[Reader]:
    """A reader who has done the guide's first step and logged in."""
    with following_the_guide(up) as somebody:
        yield somebody


def test_the_guides_commands(reader: Reader) -> None:
    """Whoever follows the guide from its first command to its last sees what it promises."""
    publish(reader)
    list_published(reader)
    show_details(reader)
    update(reader)
    rotate(reader)
    show_key(reader)
    call(reader)
    publish_under_custom_domain(reader)
    publish_for_tenant_b(reader)
    publish_llm(reader)
    chat(reader)
    show_usage(reader)
    adjust_rate_limits(reader)
    validate_key(reader)
    rotate_if_needed(reader)
    migrate_hostname(reader)


def publish(reader: Reader) -> None:
    """Publish model: its external URL, its limits, its type found out, and a key made for it."""
    answer = reader.types(PUBLISH)
    assert answer.status == 201
    published = answer.json
    assert published["externalUrl"] == f"{ROUTER}/models/my-model"
    assert published["modelType"] == "traditional"
    assert published["rateLimiting"] == {
        "requestsPerMinute": 100,
        "requestsPerHour": 5000,
        "tokensPerHour": 100000,
        "burstLimit": 10,
    }
    assert published["authentication"]["requireApiKey"] is True
    assert published["authentication"]["allowedTenants"] == ["tenant-a"]
    reader.takes_key(answer)
    reader.awaits("my-model")


def list_published(reader: Reader) -> None:
    """List all published models: ours, and those of the machine, whose types were found out too."""
    answer = reader.types(
        r"""curl -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/published-models"""
    )
    assert answer.status == 200
    types = {one["modelName"]: one["modelType"] for one in answer.json["items"]}
    assert (
        types.items()
        >= {
            "my-model": "traditional",
            "iris-sample": "traditional",
            "chat-sample": "openai",
        }.items()
    )


def show_details(reader: Reader) -> None:
    """Get specific published model details."""
    answer = reader.types(
        r"""curl -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/models/my-model/publish"""
    )
    assert answer.status == 200
    shown = answer.json
    assert (shown["modelName"], shown["tenantId"], shown["status"]) == ("my-model", "tenant-a", "live")
    assert shown["publicHostname"] == "api.router.inference-in-a-box"
    assert shown["externalUrl"] == f"{ROUTER}/models/my-model"


def update(reader: Reader) -> None:
    """Modify without republishing: what was given changes, what was not stays, and the key goes on working."""
    answer = reader.types(
        r"""curl -X PUT -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"publicHostname": "api.router.inference-in-a-box",
"rateLimiting": {
"requestsPerMinute": 200,
"requestsPerHour": 10000
}
}
}' \
http://localhost:8085/api/models/my-model/publish"""
    )
    assert answer.status == 200
    assert answer.json["rateLimiting"] == {
        "requestsPerMinute": 200,
        "requestsPerHour": 10000,
        "tokensPerHour": 100000,
        "burstLimit": 10,
    }
    assert answer.json["externalUrl"] == f"{ROUTER}/models/my-model"
    assert reader.validates(reader.variables["API_KEY"])["valid"]


def rotate(reader: Reader) -> None:
    """Rotate API key: a new text, and the old one is dead."""
    old = reader.variables["API_KEY"]
    answer = reader.types(ROTATE)
    assert answer.status == 200
    assert reader.takes_key(answer) != old
    # own check
    assert reader.predicts(ROUTER, key=old).status == 401


def show_key(reader: Reader) -> None:
    """Get details including API key: masked, because only its hash is stored."""
    answer = reader.types(
        r"""curl -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/models/my-model/publish | jq '.apiKey'"""
    )
    assert answer.status == 200
    shown, key = answer.json, reader.variables["API_KEY"]
    assert re.fullmatch(r"tk_[0-9a-z]{6}…", shown)
    assert key.startswith(shown.removesuffix("…")), "enough to tell which key is meant"


def call(reader: Reader) -> None:
    """Traditional model inference, with the key and not without it."""
    answer = reader.types(PREDICT)
    assert (answer.status, answer.json) == (200, PREDICTIONS)
    # own check
    assert reader.predicts(ROUTER, key="").status == 401
    assert reader.predicts(ROUTER, key="your-api-key").status == 401
    assert until(lambda: usage(reader, "my-model")["totalRequests"] > 0)
    assert usage(reader, "my-model")["totalRequests"] == 1, "refused calls do not count"


def publish_under_custom_domain(reader: Reader) -> None:
    """Publish with custom hostname: served there and no longer at the router; the limits are the defaults."""
    former = reader.variables["API_KEY"]
    assert reader.unpublishes("my-model").status == 204
    answer = reader.types(
        r"""curl -X POST -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"publicHostname": "api.mycompany.com",
"externalPath": "/models/my-model"
}
}' \
http://localhost:8085/api/models/my-model/publish"""
    )
    assert answer.status == 201
    assert answer.json["externalUrl"] == f"{CUSTOM}/models/my-model"
    reader.takes_key(answer)
    reader.awaits("my-model")
    # own check
    assert reader.predicts(CUSTOM).json == PREDICTIONS
    assert reader.predicts(CUSTOM, key=former).status == 401, "a republished model does not revive its former key"
    assert reader.predicts(ROUTER).status == 404


def publish_for_tenant_b(reader: Reader) -> None:
    """Admin publishes model for tenant-b; its key opens that model and not tenant-a's."""
    answer = reader.types(
        r"""curl -X POST -H "Authorization: Bearer $ADMIN_TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-b",
"publicHostname": "api.router.inference-in-a-box",
"externalPath": "/models/tenant-b-model"
}
}' \
http://localhost:8085/api/models/tenant-b-model/publish"""
    )
    assert answer.status == 201
    assert (answer.json["tenantId"], answer.json["modelType"]) == ("tenant-b", "traditional")
    assert answer.json["externalUrl"] == f"{ROUTER}/models/tenant-b-model"
    # own check
    reader.awaits("tenant-b-model")
    key = answer.json["apiKey"]
    mine = reader.types(PREDICT.replace("my-model", "tenant-b-model").replace("$API_KEY", key))
    assert (mine.status, mine.json) == (200, PREDICTIONS)
    assert reader.predicts(CUSTOM, key=key).status == 404, "another tenant's model is as good as none"


def publish_llm(reader: Reader) -> None:
    """For LLM models that support OpenAI API: published below /v1/models."""
    answer = reader.types(
        r"""curl -X POST -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"modelType": "openai",
"publicHostname": "api.router.inference-in-a-box",
"externalPath": "/v1/models/my-llm",
"rateLimiting": {
"requestsPerMinute": 50,
"requestsPerHour": 2000,
"tokensPerHour": 1000000
}
}
}' \
http://localhost:8085/api/models/my-llm/publish"""
    )
    assert answer.status == 201
    assert answer.json["modelType"] == "openai"
    assert answer.json["externalUrl"] == f"{ROUTER}/v1/models/my-llm"
    assert answer.json["rateLimiting"] == {
        "requestsPerMinute": 50,
        "requestsPerHour": 2000,
        "tokensPerHour": 1000000,
        "burstLimit": 10,
    }
    reader.variables["LLM_API_KEY"] = answer.json["apiKey"]
    reader.awaits("my-llm")


def chat(reader: Reader) -> None:
    """OpenAI-compatible model: by the host's /v1 and by the publication's own URL."""
    command = (
        r"""curl -X POST -H "X-API-Key: $API_KEY" \
-H "Content-Type: application/json" \
-d '{
"model": "my-model",
"messages": [{"role": "user", "content": "Hello!"}]
}' \
https://api.router.inference-in-a-box/v1/chat/completions"""
    ).replace("my-model", "my-llm")
    command = command.replace("$API_KEY", "$LLM_API_KEY")
    answer = reader.types(command)
    assert answer.status == 200
    assert (answer.json["object"], answer.json["model"]) == ("chat.completion", "my-llm")
    assert answer.json["choices"][0]["message"]["content"] == "I read 2 tokens. Backwards they say: Hello!"
    # own check
    own_url = command.replace("/v1/chat", "/v1/models/my-llm/chat")
    assert reader.types(own_url).json["choices"] == answer.json["choices"]
    assert until(lambda: usage(reader, "my-llm")["totalRequests"] == 2)


def show_usage(reader: Reader) -> None:
    """Get usage statistics: calls since publishing and today, tokens, and when the last one was."""
    assert until(lambda: usage(reader, "my-model")["totalRequests"] > 0), "it is some seconds behind"
    answer = reader.types(
        r"""curl -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/models/my-model/publish | jq '.usage'"""
    )
    assert answer.status == 200
    shown = answer.json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", shown.pop("lastAccessTime"))
    assert shown == {"totalRequests": 1, "requestsToday": 1, "tokensUsed": 0}, "one since it was published again"


def usage(reader: Reader, model: str) -> Any:
    """Own check: the usage of a model."""
    details = f'curl -H "Authorization: Bearer $TOKEN" http://localhost:8085/api/models/{model}/publish'
    return reader.types(f"{details} | jq '.usage'").json


def adjust_rate_limits(reader: Reader) -> None:
    """Check current rate limits, then update them; no hostname is named and none changes."""
    answer = reader.types(
        r"""curl -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/models/my-model/publish | jq '.rateLimiting'"""
    )
    assert answer.status == 200
    default = {"requestsPerMinute": 100, "requestsPerHour": 5000, "tokensPerHour": None, "burstLimit": 10}
    assert answer.json == default
    answer = reader.types(
        r"""curl -X PUT -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"rateLimiting": {
"requestsPerMinute": 200,
"requestsPerHour": 10000
}
}
}' \
http://localhost:8085/api/models/my-model/publish"""
    )
    assert answer.status == 200
    assert answer.json["rateLimiting"] == default | {"requestsPerMinute": 200, "requestsPerHour": 10000}
    assert answer.json["externalUrl"] == f"{CUSTOM}/models/my-model"


def validate_key(reader: Reader) -> None:
    """Validate API key: the guide's placeholder is none, ours is; nobody need be logged in."""
    answer = reader.types(VALIDATE)
    assert answer.status == 200
    assert answer.json["valid"] is False
    # own check
    shown = reader.validates(reader.variables["API_KEY"])
    assert (shown["valid"], shown["tenantId"], shown["modelName"]) == (True, "tenant-a", "my-model")


def rotate_if_needed(reader: Reader) -> None:
    """Rotate if needed: the key that was valid is not any more, the new one is."""
    old = reader.variables["API_KEY"]
    answer = reader.types(ROTATE)
    assert answer.status == 200
    new = reader.takes_key(answer)
    # own check
    assert [reader.validates(key)["valid"] for key in (old, new)] == [False, True]


def migrate_hostname(reader: Reader) -> None:
    """Update published models with new hostname: served there with the same key, and no longer at the old one."""
    answer = reader.types(
        r"""curl -X PUT -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"publicHostname": "api.router.inference-in-a-box"
}
}' \
http://localhost:8085/api/models/my-model/publish"""
    )
    assert answer.status == 200
    assert answer.json["externalUrl"] == f"{ROUTER}/models/my-model"
    reader.awaits("my-model")
    # own check
    assert reader.predicts(ROUTER).json == PREDICTIONS
    assert reader.predicts(CUSTOM).status == 404
