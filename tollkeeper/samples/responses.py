"""The Responses API of the OpenAI sample: its document, and the events that a stream of it is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tollkeeper.samples.answering import Event
from tollkeeper.samples.generating import Counted, Generated
from tollkeeper.samples.requests import Response

Json = dict[str, Any]


def document(call: Response, answer: Generated, counted: Counted, created_s: int) -> Json:
    """Return the finished response."""
    usage = {
        "input_tokens": counted.prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counted.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted.total,
    }
    ended = {"incomplete_details": {"reason": "max_output_tokens"}} if answer.is_cut else {}
    made = {"status": _status(answer), "output": [_message(answer)], "usage": usage}
    return _begun(call, created_s) | ended | made


def events(call: Response, answer: Generated, counted: Counted, created_s: int) -> Iterator[Event]:
    """Yield the events of a stream: the last one holds the finished response, and with it the usage."""
    for number, (kind, told) in enumerate(_told(call, answer, document(call, answer, counted, created_s))):
        yield Event({"type": f"response.{kind}", "sequence_number": number} | told, f"response.{kind}")


def _told(call: Response, answer: Generated, finished: Json) -> Iterator[tuple[str, Json]]:
    begun = _begun(call, finished["created_at"])
    item = {"output_index": 0, "item_id": "msg_sample"}
    part = item | {"content_index": 0}
    yield "created", {"response": begun}
    yield "in_progress", {"response": begun}
    opened = _message(answer) | {"status": "in_progress", "content": []}
    yield "output_item.added", {"output_index": 0, "item": opened}
    yield "content_part.added", part | {"part": _text("")}
    for piece in answer.pieces:
        yield "output_text.delta", part | {"delta": piece, "logprobs": []}
    yield "output_text.done", part | {"text": answer.text, "logprobs": []}
    yield "content_part.done", part | {"part": _text(answer.text)}
    yield "output_item.done", {"output_index": 0, "item": _message(answer)}
    yield _status(answer), {"response": finished}


def _begun(call: Response, created_s: int) -> Json:
    return {
        "id": "resp_sample",
        "object": "response",
        "created_at": created_s,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": call.instructions,
        "max_output_tokens": call.max_output_tokens,
        "metadata": {},
        "model": call.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _status(answer: Generated) -> str:
    return "incomplete" if answer.is_cut else "completed"


def _message(answer: Generated) -> Json:
    return {
        "type": "message",
        "id": "msg_sample",
        "status": _status(answer),
        "role": "assistant",
        "content": [_text(answer.text)],
    }


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
