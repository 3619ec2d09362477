"""Runs what a client does, step by step, and prints a line of JSON: what each returned, or which error it met."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import httpx2

BASE, NATIVE, GATEWAY = (os.environ[name] for name in ("BASE", "NATIVE", "GATEWAY"))
KEY, WRONG, SLOW, LONG = (os.environ[name] for name in ("KEY", "WRONG", "SLOW", "LONG"))
LLAMA, QWEN = "llama3.1:8b", "Qwen/Qwen3-8B"
AZURE, PIXEL, FEW = (os.environ[name] for name in ("AZURE", "PIXEL", "FEW"))
HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def tell(**steps: Callable[[], Any]) -> None:
    """Run all of them, in this order."""
    sys.stdout.write(json.dumps({name: told(step) for name, step in steps.items()}) + "\n")


def told(step: Callable[[], Any]) -> Any:
    """What a step returned, or its error: the classes that a caller would catch it by, and its status."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001  it is what is asked for
        kinds = [kind.__name__ for kind in type(error).__mro__[:-2]]
        return {"error": kinds, "status": getattr(error, "status_code", None), "text": str(error)}


_sent: list[int] = []  # a status a request


def _noting(transport: Any) -> None:
    send = transport.handle_request

    def noted(self: Any, request: Any) -> Any:
        answer = send(self, request)
        _sent.append(answer.status_code)
        return answer

    transport.handle_request = noted


for _one in (httpx.HTTPTransport, httpx2.HTTPTransport):
    _noting(_one)


def waited(call: Callable[[], Any]) -> list[Any]:
    """Call once more than there is room for: what came, how long it took in seconds, and what was answered by then."""
    call()
    begun_s, before = time.monotonic(), len(_sent)
    return [call(), time.monotonic() - begun_s, _sent[before:]]
