"""The words of the tables of metered calls: rows, models, answers and sums. docs/tokens.md explains the rules.

A row is one call: what is sent, what the model's server answers, and what is right. Sizes and costs follow from these:

- held: ``size + most x n x prompts``, at most a context x n x prompts. ``size`` is the body's bytes, a token each, with
  ``MEDIA`` instead of each inline part; ``most`` is the largest maximum that the body names, else ``UNNAMED``;
- charged: what the server told, however much was held. Where it told nothing: a token per ``TEXT_BYTES`` bytes of the
  prompt, and of a stream a token an event;
- what generates nothing holds and costs its bytes; what counts tokens holds and costs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

UNNAMED: Final = 4_096
"""Completion tokens that are held for a call that names no maximum."""
MEDIA: Final = 2_048
"""Tokens that are held for an inline image or audio part."""
TEXT_BYTES: Final = 2.5
"""Bytes of a token of text where nothing was learnt (docs/decisions/0033)."""
JSON: Final = "application/json"
HELLO: Final = [{"role": "user", "content": "Hello!"}]


@dataclass(frozen=True, slots=True)
class Model:
    """A published model: its name and what its publication allows."""

    name: str
    tokens_per_hour: int = 100_000
    context_tokens: int = 8_192


LLM: Final = Model("llm")
ROOMY: Final = Model("roomy", tokens_per_hour=10_000_000)
VISION: Final = Model("vision", context_tokens=128_000)
READER: Final = Model("reader", tokens_per_hour=30_000, context_tokens=32_000)
TAUGHT: Final = Model("taught", tokens_per_hour=100_000_000)
MODELS: Final = (LLM, ROOMY, VISION, READER, TAUGHT)


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    body: bytes
    kind: str = JSON
    status: int = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events, sent in pieces of ``piece`` bytes (0: one by one)."""

    events: tuple[bytes, ...]
    piece: int = 0


Answer = Whole | Stream
Tokens = Callable[[int], int]
"""From the call's ``size`` to tokens."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call and what is right. ``held`` None: it is refused and nothing is held."""

    says: str
    body: bytes
    held: Tokens | None
    charged: Tokens
    answer: Answer = Whole(b"{}")
    path: str = "chat/completions"
    model: Model = LLM
    media_bytes: int = 0  # of the body: inline parts as they stand there, base64 or a whole data URL
    media_parts: int = 0
    own_url_only: bool = False  # the body names no model, so only the model's own URL says whose the call is
    seen: bytes = b""  # what its server sees of it; b"": what was sent
    status: int = 200
    code: str = ""  # of a refusal
    names: str = ""  # the field that a refusal names

    @property
    def size(self) -> int:
        """Tokens that are held for the prompt."""
        return len(self.body) - self.media_bytes + MEDIA * self.media_parts


def body(model: Model = LLM, **fields: Any) -> bytes:
    """A call's body."""
    return json.dumps({"model": model.name} | fields).encode()


def told(total: int, **fields: Any) -> Whole:
    """A JSON answer that says its usage as OpenAI does."""
    return Whole(json.dumps(fields | {"usage": usage(total)}).encode())


def usage(total: int) -> dict[str, int]:
    """OpenAI's usage: all but one of the tokens are the prompt's."""
    return {"prompt_tokens": total - 1, "completion_tokens": 1, "total_tokens": total}


def event(document: Any) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(document)}\n\n".encode()


def chunk(**more: Any) -> bytes:
    """An event of a chat that streams a token."""
    choice = {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    return event(head | {"choices": [choice]} | more)


def nothing(size: int) -> int:
    """No tokens."""
    del size
    return 0


def just(tokens: int) -> Tokens:
    """So many, whatever the call's size."""
    return lambda _: tokens


def size_and(tokens: int) -> Tokens:
    """The prompt's bytes and so many."""
    return lambda size: size + tokens


def estimate_and(tokens: int) -> Tokens:
    """What the prompt is estimated at, and so many."""
    return lambda size: ceil(size / TEXT_BYTES) + tokens


DONE: Final = b"data: [DONE]\n\n"
