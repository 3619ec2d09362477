"""The openai sample through the whole machine: by its own path, by the body's model, streamed."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from upmachine import UpMachine

CHAT = {"messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
def sample(up: UpMachine) -> dict[str, str]:
    """The published openai sample: model, host, api_key."""
    found: dict[str, str] = up.up["sample"]["openai"]
    return found


def post(up: UpMachine, sample: dict[str, str], path: str, body: Any, **headers: str) -> requests.Response:
    """Send a JSON body with the sample's key."""
    own = {"Host": sample["host"], "X-API-Key": sample["api_key"]} | headers
    return requests.post(up.up["gateway_url"] + path, json=body, headers=own, timeout=20)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/{model}/chat/completions"])
def test_the_model_answers_by_body_and_by_path(up: UpMachine, sample: dict[str, str], path: str) -> None:
    """Both ways reach the same server, and the answer carries OpenAI's limit headers."""
    answer = post(up, sample, path.format(model=sample["model"]), CHAT | {"model": sample["model"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total_tokens"] > 0
    assert "x-ratelimit-remaining-requests" in answer.headers


def test_another_model_is_not_found_by_either_way(up: UpMachine, sample: dict[str, str]) -> None:
    """An unknown name and one that the same server knows but this path does not publish are 404 alike."""
    for path in ("/v1/chat/completions", f"/v1/models/{sample['model']}/chat/completions"):
        for model in ("nothing", "my-llm"):
            answer = post(up, sample, path, CHAT | {"model": model})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), path


def test_an_answer_is_streamed_to_its_end(up: UpMachine, sample: dict[str, str]) -> None:
    """Server-sent events come through as the model sends them."""
    answer = post(up, sample, "/v1/chat/completions", CHAT | {"model": sample["model"], "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [("application/json", "{broken", 400), ("application/json", "{}", 400), ("text/plain", "hello", 415)],
)
def test_a_body_without_a_model_is_refused(
    up: UpMachine, sample: dict[str, str], content_type: str, body: str, status: int
) -> None:
    """Not JSON, no model, another type: told in OpenAI's error shape."""
    headers = {"Host": sample["host"], "X-API-Key": sample["api_key"], "Content-Type": content_type}
    url = up.up["gateway_url"] + "/v1/chat/completions"
    answer = requests.post(url, data=body, headers=headers, timeout=20)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
