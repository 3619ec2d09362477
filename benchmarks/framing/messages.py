"""Messages as Anthropic and llama.cpp frame them; sources in ``servers.py``. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.framing.wire import compact, named_event, whole_texts

ANTHROPIC_DELTAS: Final = (21, 113, 104, 50, 99, 92, 115, 82, 79, 90, 59, 71, 114, 117, 73)  # characters an event
ANTHROPIC_PADS: Final = (3, 13, 9, 12, 10, 11, 15, 14, 4, 2, 13, 13, 13, 0, 2)  # blanks an event


def llama_messages(tokens: Sequence[bytes]) -> Iterator[str]:
    """A token an event."""
    return _messages(whole_texts(tokens), len(tokens), "chatcmpl-DQIofMZ5LoCi2YtpAep2S2byYsxILhcl")


def anthropic(tokens: Sequence[bytes]) -> Iterator[str]:
    """Dozens of tokens an event, and blanks after them."""
    return _messages(
        _cut(b"".join(tokens).decode(errors="replace")), len(tokens), "msg_01QDf8i4X9nBvM2kRZy7tLwC", padded=True
    )


def _cut(text: str) -> Iterator[str]:
    at = number = 0
    while at < len(text):
        length = ANTHROPIC_DELTAS[number % len(ANTHROPIC_DELTAS)]
        yield text[at : at + length]
        at, number = at + length, number + 1


def _messages(texts: Iterator[str], tokens: int, answer: str, *, padded: bool = False) -> Iterator[str]:
    usage = {"input_tokens": 100, "output_tokens": 1}
    head = {"id": answer, "type": "message", "role": "assistant", "content": [], "model": "claude-sonnet-4-5"}
    message = {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield named_event({"type": "message_start", "message": message})
    yield named_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for number, text in enumerate(texts):
        event = named_event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        blanks = ANTHROPIC_PADS[number % len(ANTHROPIC_PADS)] if padded else 0
        yield event[:-3] + " " * blanks + event[-3:]
    yield named_event({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield named_event({"type": "message_delta", "delta": ended, "usage": {"output_tokens": tokens}})
    yield named_event({"type": "message_stop"})


def messages_document(text: str, tokens: int) -> str:
    """What both answer without a stream."""
    head = {"model": "claude-sonnet-4-5", "id": "msg_01QDf8i4X9nBvM2kRZy7tLwC", "type": "message", "role": "assistant"}
    tail = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None}
    return compact(
        {**head, **tail, "usage": {"input_tokens": 100, "output_tokens": tokens, "service_tier": "standard"}}
    )
