"""The sample language model: a tokenizer, an answer and an embedding, all deterministic.

Its tokens are its own: usage is counted here, as a real model server would, and never by the gateway.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Final

MAX_DIMENSIONS: Final = 256
DEFAULT_DIMENSIONS: Final = 32

_TOKEN: Final = re.compile(r" ?\w{1,5}| ?[^\w\s]|\s")


def tokens(text: str) -> list[str]:
    """Split a text into tokens that join to it again: ``["Hello", ",", " world"]``."""
    return _TOKEN.findall(text)


def reply(prompt: str) -> str:
    """Answer a prompt: how long it was, and its words backwards."""
    words = prompt.split()
    return f"I read {len(tokens(prompt))} tokens. Backwards they say: {' '.join(reversed(words))}"


def embedding(text: str, dimensions: int) -> list[float]:
    """Return a unit vector that depends on the text's tokens only: equal texts, equal vectors."""
    total = [0.0] * dimensions
    for token in tokens(text) or [""]:
        for place, byte in enumerate(_bytes_of(token.strip().lower(), dimensions)):
            total[place] += byte - 127.5
    length = math.hypot(*total)
    return [value / length for value in total]


def _bytes_of(token: str, count: int) -> bytes:
    return hashlib.shake_128(token.encode()).digest(count)
