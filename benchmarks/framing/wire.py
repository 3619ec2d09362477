"""What all framings share: events, documents, and the text that a token brings. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

CREATED: Final = 1_764_547_200
OBFUSCATED_TO: Final = 16


def compact(value: Any) -> str:
    """JSON without blanks, text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event_of(value: Any) -> str:
    """An event that names no type."""
    return f"data: {compact(value)}\n\n"


def named_event(value: Any) -> str:
    """An event that names its type."""
    return f"event: {value['type']}\n{event_of(value)}"


def whole_texts(tokens: Sequence[bytes]) -> Iterator[str]:
    """The text of each token; of one in the middle of a character it comes with the next."""
    held = b""
    for token in tokens:
        held += token
        try:
            text = held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
        yield text
    if held:
        yield held.decode(errors="replace")


def text_of_each(tokens: Sequence[bytes]) -> Iterator[str]:
    """The text of each token, nothing for one in the middle of a character."""
    held = b""
    for token in tokens:
        held += token
        try:
            text = held.decode()
        except UnicodeDecodeError:
            yield ""
            continue
        held = b""
        yield text


def usage(tokens: int) -> dict[str, int]:
    """What an answer tells of its tokens."""
    return {"prompt_tokens": 100, "total_tokens": 100 + tokens, "completion_tokens": tokens}


def obfuscation(text: str) -> dict[str, str]:
    """What fills the event of a text up."""
    return {"obfuscation": "x" * (-len(text) % OBFUSCATED_TO)}
