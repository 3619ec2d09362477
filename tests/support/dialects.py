"""What a model server answers in each dialect that clients speak: OpenAI's three, Anthropic's, Ollama's own. Pure.

A model says one sentence, of as many tokens as words. Where it is offered tools and has no result of one yet, it calls
the first one instead, with what it knows of its parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

Json = dict[str, Any]

WORDS: Final = ("You ", "said ", "hello.")
TEXT: Final = "".join(WORDS)
ASKED: Final = 7
SAID: Final = len(WORDS)
KNOWN: Final = {"city": "Paris", "cmd": "echo heard"}
"""What it gives parameters of these names."""
_CREATED_S: Final = 1_767_225_600


class Tool(NamedTuple):
    """A tool that is called."""

    name: str
    arguments: Json


def _calls_tool(asked: Json) -> Tool | None:
    """The tool that is called; ``None`` where a text is said."""
    messages = asked.get("messages") or asked.get("input") or []
    tools = [one.get("function", one) for one in asked.get("tools") or [] if one.get("type", "function") == "function"]
    if not tools or any(_is_result(one) for one in messages if isinstance(one, dict)):
        return None
    schema = tools[0].get("parameters") or tools[0].get("input_schema") or {}
    return Tool(tools[0]["name"], {one: KNOWN[one] for one in schema.get("properties", {}) if one in KNOWN})


def _is_result(one: Json) -> bool:
    inner = one["content"] if isinstance(one.get("content"), list) else []
    return (
        one.get("role") == "tool"
        or one.get("type") == "function_call_output"
        or any(isinstance(part, dict) and part.get("type") == "tool_result" for part in inner)
    )


def sse(events: Iterator[Json], *, named: bool = False, end: str = "") -> Iterator[bytes]:
    """Server-sent events, by their type's name where that is usual."""
    for event in events:
        head = f"event: {event['type']}\n" if named else ""
        yield f"{head}data: {json.dumps(event)}\n\n".encode()
    if end:
        yield f"data: {end}\n\n".encode()


def ndjson(documents: Iterator[Json]) -> Iterator[bytes]:
    """A document a line, as Ollama streams."""
    for document in documents:
        yield json.dumps(document).encode() + b"\n"


USAGE: Final = {"prompt_tokens": ASKED, "completion_tokens": SAID, "total_tokens": ASKED + SAID}


def chat(asked: Json) -> Json:
    """One answer of ``/v1/chat/completions``."""
    tool = _calls_tool(asked)
    message: Json = {"role": "assistant", "content": TEXT}
    if tool:
        called = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
        call = {"id": "call_1", "type": "function", "function": called}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
    return _card(asked, "chat.completion") | {"choices": [choice], "usage": USAGE}


def _card(asked: Json, kind: str) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": _CREATED_S, "model": asked["model"]}


def chat_pieces(asked: Json) -> Iterator[Json]:
    """The same as a stream, the usage where it is asked for."""
    told = chat(asked)["choices"][0]
    card = _card(asked, "chat.completion.chunk")
    calls = [{"index": 0} | one for one in told["message"].get("tool_calls", ())]
    deltas: list[Json] = [{"tool_calls": calls}] if calls else [{"content": word} for word in WORDS]
    for delta in [{"role": "assistant", "content": ""}, *deltas]:
        yield card | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield card | {"choices": [{"index": 0, "delta": {}, "finish_reason": told["finish_reason"]}]}
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield card | {"choices": [], "usage": USAGE}


def completion(asked: Json) -> Json:
    """One answer of ``/v1/completions``."""
    choice = {"index": 0, "text": TEXT, "finish_reason": "stop", "logprobs": None}
    return _card(asked, "text_completion") | {"choices": [choice], "usage": USAGE}


def embeddings(asked: Json) -> Json:
    """One answer of ``/v1/embeddings``."""
    given = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    data = [{"object": "embedding", "index": index, "embedding": [0.1, 0.2]} for index, _ in enumerate(given)]
    usage = {"prompt_tokens": ASKED, "total_tokens": ASKED}
    return {"object": "list", "data": data, "model": asked["model"], "usage": usage}


def response(asked: Json) -> Json:
    """One answer of ``/v1/responses``."""
    usage = {
        "input_tokens": ASKED,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": SAID,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": ASKED + SAID,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": _CREATED_S,
        "status": "completed",
        "model": asked["model"],
        "output": [_item(asked)],
        "usage": usage,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _item(asked: Json) -> Json:
    if tool := _calls_tool(asked):
        call = {"call_id": "call_1", "name": tool.name, "arguments": json.dumps(tool.arguments)}
        return {"id": "fc_1", "type": "function_call", "status": "completed", **call}
    text = {"type": "output_text", "text": TEXT, "annotations": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}


def response_events(asked: Json) -> Iterator[Json]:
    """The same as a stream."""
    whole = response(asked)
    (item,) = whole["output"]
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    told: list[Json] = [{"type": "response.created", "response": begun}]
    place = {"item_id": item["id"], "output_index": 0}
    told.append({"type": "response.output_item.added", "output_index": 0, "item": item | _unfinished(item)})
    if item["type"] == "message":
        part = {"type": "output_text", "text": "", "annotations": []}
        told.append({"type": "response.content_part.added", **place, "content_index": 0, "part": part})
        told += [
            {"type": "response.output_text.delta", **place, "content_index": 0, "delta": word, "logprobs": []}
            for word in WORDS
        ]
        told.append({"type": "response.output_text.done", **place, "content_index": 0, "text": TEXT, "logprobs": []})
        done = {"type": "response.content_part.done", **place, "content_index": 0, "part": item["content"][0]}
        told.append(done)
    else:
        told.append({"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]})
        told.append({"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]})
    told.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    told.append({"type": "response.completed", "response": whole})
    yield from ({**one, "sequence_number": number} for number, one in enumerate(told))


def _unfinished(item: Json) -> Json:
    return {"status": "in_progress"} | ({"content": []} if item["type"] == "message" else {"arguments": ""})


def message(asked: Json) -> Json:
    """One answer of ``/v1/messages``, Anthropic's."""
    tool = _calls_tool(asked)
    block: Json = {"type": "text", "text": TEXT}
    if tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool.name, "input": tool.arguments}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": ASKED, "output_tokens": SAID},
    }


def message_events(asked: Json) -> Iterator[Json]:
    """The same as a stream."""
    whole = message(asked)
    (block,) = whole["content"]
    begun = whole | {"content": [], "stop_reason": None, "usage": {"input_tokens": ASKED, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    if block["type"] == "text":
        empty: Json = {"type": "text", "text": ""}
        deltas: list[Json] = [{"type": "text_delta", "text": word} for word in WORDS]
    else:
        empty = block | {"input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield from ({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": SAID}}
    yield {"type": "message_stop"}


def ollama_chat(asked: Json) -> Iterator[Json]:
    """Ollama's ``/api/chat``: the last line has the counts; not streamed, all is one document."""
    tool = _calls_tool(asked)
    pieces: list[Json] = [{"message": {"role": "assistant", "content": word}} for word in WORDS]
    whole: Json = {"message": {"role": "assistant", "content": TEXT}}
    if tool:
        calls = [{"function": {"name": tool.name, "arguments": tool.arguments}}]
        whole = {"message": {"role": "assistant", "content": "", "tool_calls": calls}}
        pieces = [whole]
    yield from _ollama(asked, pieces, whole, {"message": {"role": "assistant", "content": ""}})


def ollama_generate(asked: Json) -> Iterator[Json]:
    """Ollama's ``/api/generate``."""
    yield from _ollama(asked, [{"response": word} for word in WORDS], {"response": TEXT}, {"response": ""})


def _ollama(asked: Json, pieces: list[Json], whole: Json, empty: Json) -> Iterator[Json]:
    card = {"model": asked["model"], "created_at": "2026-01-01T00:00:00Z", "done": False}
    counts = {"done": True, "done_reason": "stop", "total_duration": 1, "load_duration": 1}
    counts |= {"prompt_eval_count": ASKED, "prompt_eval_duration": 1, "eval_count": SAID, "eval_duration": 1}
    if asked.get("stream", True):
        yield from (card | piece for piece in pieces)
        yield card | empty | counts
    else:
        yield card | whole | counts
