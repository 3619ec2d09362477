"""What the API tells of tokens after calls of the OpenAI sample through the whole machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from upclient import Operator
from upmachine import UpMachine, until

LIMIT = 50_000
CONTEXT = 8_192
MESSAGES = [{"role": "user", "content": "How many tokens does this one have?"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


class Caller:
    """Calls the sample with a key of its own, whose usage is nobody else's."""

    def __init__(self, up: UpMachine, operator: Operator) -> None:
        self._sample, self._gateway, self._operator = up.up["sample"]["openai"], up.up["gateway_url"], operator
        body = {"tenantId": "sample", "name": "token usage", "publications": [self._sample["model"]]}
        self._key = operator.must("POST", "/api/keys", body | {"rateLimiting": {"tokensPerHour": LIMIT}})

    def call(self, path: str, **body: Any) -> requests.Response:
        """Call it; the answer must be good."""
        headers = {"Host": self._sample["host"], "X-API-Key": self._key["apiKey"]}
        body = {"model": self._sample["model"], **body}
        answer = requests.post(f"{self._gateway}/v1/{path}", json=body, headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer

    def told(self) -> Any:
        """The key's usage."""
        return self._operator.must("GET", f"/api/keys/{self._key['id']}/usage")

    def settled(self, tokens: int) -> Any:
        """The key's usage once so many tokens are charged: the settlement follows the answer."""
        assert until(lambda: self.told()["tokensUsed"] == tokens, 20), (self.told()["tokensUsed"], tokens)
        return self.told()

    def forget(self) -> None:
        """Revoke the key."""
        self._operator.must("DELETE", f"/api/keys/{self._key['id']}")


@pytest.fixture
def caller(up: UpMachine) -> Iterator[Caller]:
    """Somebody with 50,000 tokens an hour."""
    made = Caller(up, Operator(up))
    yield made
    made.forget()


def last_event(answer: requests.Response) -> Any:
    """The last event of a stream that has JSON."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: {")]
    return json.loads(lines[-1])


def test_usage_is_what_the_model_told(caller: Caller) -> None:
    """Chats, responses and embeddings, whole and streamed: charged as told, the rest is free again."""
    total = caller.call("chat/completions", messages=MESSAGES).json()["usage"]["total_tokens"]
    total += caller.call("responses", input="Hello").json()["usage"]["total_tokens"]
    total += caller.call("embeddings", input=["one", "two"]).json()["usage"]["total_tokens"]
    total += last_event(caller.call("chat/completions", messages=MESSAGES, **USAGE))["usage"]["total_tokens"]
    streamed = last_event(caller.call("responses", input="Hello", stream=True))
    total += streamed["response"]["usage"]["total_tokens"]
    told = caller.settled(total)
    assert {one["budget"]: one["remaining"] for one in told["budgets"]} == {"tokensPerHour": LIMIT - total}
    assert sum(minute["tokens"] for minute in told["lastHour"]) == total
    assert told["totalRequests"] == 5


def test_a_stream_that_tells_no_usage_is_not_free(caller: Caller) -> None:
    """Charged by estimate, within what was held back for it."""
    caller.call("chat/completions", messages=MESSAGES, stream=True)
    assert until(lambda: caller.told()["tokensUsed"] > 0, 20)
    told = caller.told()
    assert 0 < told["tokensUsed"] <= CONTEXT
    assert told["budgets"][0]["remaining"] == LIMIT - told["tokensUsed"]


def test_the_first_settlement_is_seen_in_the_api(up: UpMachine, caller: Caller) -> None:
    """A publication that was called tells that its calls are metered; a traditional one tells nothing."""
    caller.call("chat/completions", messages=MESSAGES)
    operator, sample = Operator(up), up.up["sample"]

    def told(kind: str) -> Any:
        return operator.must("GET", f"/api/models/{sample[kind]['model']}/publish")["metering"]

    assert until(lambda: told("openai") == "seen", 20)
    assert told("traditional") is None
