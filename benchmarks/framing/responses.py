"""Responses as OpenAI and llama.cpp frame them; sources in ``servers.py``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmarks.framing.wire import CREATED, named_event, obfuscation, whole_texts

_ITEM: Final = "msg_0508041cc126e1bb0169b52d2314808191b57616d3a8328717"
_ANSWER: Final = "resp_0508041cc126e1bb0169b52d20d7d48191a16e5ef3dd4bc9d2"


def _response(output: list[Any], status: str, tokens: int | None) -> dict[str, Any]:
    usage = None if tokens is None else {"input_tokens": 100, "output_tokens": tokens, "total_tokens": 100 + tokens}
    head = {"id": _ANSWER, "object": "response", "created_at": CREATED, "status": status, "background": False}
    asked = {"error": None, "incomplete_details": None, "instructions": None, "max_output_tokens": None}
    more = {"model": "gpt-4.1-mini-2025-04-14", "output": output, "parallel_tool_calls": True, "store": True}
    sampling = {"temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": []}
    return {**head, **asked, **more, **sampling, "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": None}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(text: str) -> dict[str, Any]:
    return {"id": _ITEM, "type": "message", "status": "completed", "content": [_part(text)], "role": "assistant"}


def responses(tokens: Sequence[bytes]) -> Iterator[str]:
    """A token an event, filled up, and the whole text four times."""
    text, place = b"".join(tokens).decode(errors="replace"), {"item_id": _ITEM, "output_index": 0, "content_index": 0}
    for number, name in enumerate(("response.created", "response.in_progress")):
        yield named_event({"type": name, "sequence_number": number, "response": _response([], "in_progress", None)})
    item = {"id": _ITEM, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    yield named_event({"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": item})
    yield named_event({"type": "response.content_part.added", "sequence_number": 3, **place, "part": _part("")})
    number = 4
    for piece in whole_texts(tokens):
        head = {"type": "response.output_text.delta", "sequence_number": number, **place}
        yield named_event({**head, "delta": piece, "logprobs": [], **obfuscation(piece)})
        number += 1
    done = {"sequence_number": number, **place}
    yield named_event({"type": "response.output_text.done", **done, "text": text, "logprobs": []})
    yield named_event({"type": "response.content_part.done", **done, "part": _part(text)})
    yield named_event(
        {"type": "response.output_item.done", "sequence_number": number, "output_index": 0, "item": _item(text)}
    )
    whole = _response([_item(text)], "completed", len(tokens))
    yield named_event({"type": "response.completed", "sequence_number": number, "response": whole})


def responses_document(text: str, tokens: int) -> str:
    """What OpenAI answers without a stream."""
    return json.dumps(_response([_item(text)], "completed", tokens), ensure_ascii=False, indent=2)


def llama_responses(tokens: Sequence[bytes]) -> Iterator[str]:
    """A token an event, and the whole text four times."""
    text, item = b"".join(tokens).decode(errors="replace"), "msg_DQIofMZ5LoCi2YtpAep2S2byYsxILhcl"
    answer = {"id": "resp_DQIofMZ5LoCi2YtpAep2S2byYsxILhcl", "object": "response", "status": "in_progress"}
    yield named_event({"type": "response.created", "response": answer})
    yield named_event({"type": "response.in_progress", "response": answer})
    added = {"content": [], "id": item, "role": "assistant", "status": "in_progress", "type": "message"}
    yield named_event({"type": "response.output_item.added", "item": added})
    part = {"type": "output_text", "text": ""}
    yield named_event({"type": "response.content_part.added", "item_id": item, "part": part})
    for piece in whole_texts(tokens):
        yield named_event({"type": "response.output_text.delta", "item_id": item, "delta": piece})
    yield named_event({"type": "response.output_text.done", "item_id": item, "text": text})
    yield named_event({"type": "response.content_part.done", "item_id": item, "part": _part(text)})
    output = {"type": "message", "status": "completed", "id": item, "content": [_part(text)], "role": "assistant"}
    yield named_event({"type": "response.output_item.done", "item": output})
    whole = {**answer, "status": "completed", "created_at": CREATED, "model": "mistral-nemo", "output": [output]}
    yield named_event({"type": "response.completed", "response": {**whole, "usage": {"output_tokens": len(tokens)}}})
