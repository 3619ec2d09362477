"""Long prompts through Envoy Gateway: whole up to the bound, over HTTP/1.1 and HTTP/2, and 413 above it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from gatewayground import Ground
from gatewaystack import both_modes

from tests.e2e import http2
from tests.e2e.proxy import HOST, PATIENCE_S

pytestmark = [pytest.mark.gateway, both_modes]

KIB, MIB = 1024, 1024 * 1024
PATHS = ["/v1/chat/completions", "/v1/models/echo/chat/completions"]


def over_http1(ground: Ground, path: str, body: bytes) -> tuple[int, str]:
    """Send it; status and text."""
    answer = ground.machine.post(path, body, ground.with_key)
    return answer.status, answer.body


def over_http2(ground: Ground, path: str, body: bytes) -> tuple[int, str]:
    """Send it with prior knowledge; status and text."""
    port, key = ground.machine.ports["http"], ("x-api-key", ground.key)
    answer = http2.post(port, HOST, path, body, PATIENCE_S, key)
    return answer.status, answer.body.decode()


def prompt(size: int) -> bytes:
    """A body of so many bytes."""
    frame = json.dumps({"model": "echo", "max_tokens": 5, "prompt": ""}).encode()
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


Over = Callable[[Ground, str, bytes], tuple[int, str]]


@pytest.mark.parametrize("over", [over_http1, over_http2])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [300 * KIB, 4 * MIB])
def test_a_long_prompt_arrives_whole(ground: Ground, over: Over, path: str, size: int) -> None:
    """By path and by the body's model, whose name Check is told of the very end of nothing but the whole body."""
    status, text = over(ground, path, prompt(size))
    assert (status, json.loads(text)["upstream"], json.loads(text)["body_bytes"]) == (200, "echo", size)


@pytest.mark.parametrize("over", [over_http1, over_http2])
@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_above_the_bound_is_refused(ground: Ground, over: Over, path: str) -> None:
    """413 in OpenAI's shape, and its server hears of nothing."""
    before = ground.servers["echo"].seen
    status, text = over(ground, path, prompt(4 * MIB + 128 * KIB))
    error = json.loads(text)["error"]
    assert (status, error["code"], "larger than 4 MiB" in error["message"]) == (413, "request_too_large", True)
    assert ground.servers["echo"].seen == before


@pytest.mark.parametrize("over", [over_http1, over_http2])
def test_traditional_calls_are_not_read(ground: Ground, over: Over) -> None:
    """Nobody looks for a model in them: a JSON body of any size streams through, and a broken one too."""
    status, text = over(ground, "/models/plain/upload", prompt(12 * MIB))
    assert (status, json.loads(text)["body_bytes"]) == (200, 12 * MIB)
    assert over(ground, "/models/plain/upload", b'{"model": ')[0] == 200
