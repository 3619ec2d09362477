"""What answers look like, server by server, and what is read of each: a row is one recorded form.

The forms are those of the servers' own documentation and of answers seen; ids and texts are shortened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Form:
    """An answer, and the numbers that it tells."""

    name: str
    body: bytes
    told: dict[str, int]
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def events(*documents: object, end: str = "\n\n", done: bool = True, named: bool = False) -> bytes:
    """Server-sent events; ``named`` gives each its type as a name."""
    lines = []
    for one in documents:
        name = f"event: {one['type']}{end[: len(end) // 2]}" if named and isinstance(one, dict) else ""
        lines.append(f"{name}data: {json.dumps(one)}{end}")
    return "".join([*lines, f"data: [DONE]{end}" if done else ""]).encode()


def document(fields: object) -> bytes:
    """A JSON answer."""
    return json.dumps(fields).encode()


CHAT_USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 16, "accepted_prediction_tokens": 0},
}
CHAT_TOLD = {"prompt": 1117, "completion": 46, "total": 1163, "cached": 1024, "reasoning": 16}
PLAIN_USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
PLAIN_TOLD = {"prompt": 9, "completion": 12, "total": 21}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": 'say "usage": {"total_tokens": 999}'}}


def delta(text: str | None, usage: object = "absent", **more: object) -> dict[str, object]:
    """A piece of a streamed chat."""
    said = {} if text is None else {"content": text}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": said}], **more}
    return chunk if usage == "absent" else {**chunk, "usage": usage}


RESPONSE_USAGE = {
    "input_tokens": 328,
    "input_tokens_details": {"cached_tokens": 256},
    "output_tokens": 52,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 380,
}
RESPONSE_TOLD = {"prompt": 328, "completion": 52, "total": 380, "cached": 256, "reasoning": 40}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "Hello", "usage": {"total_tokens": 7}}]}
    ],
    "metadata": {"usage": {"total_tokens": 999_999}},
    "tools": [{"type": "function", "parameters": {"properties": {"usage": {"type": "object", "total_tokens": 5}}}}],
    "usage": RESPONSE_USAGE,
}
MESSAGE_USAGE = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 500,
    "cache_read_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 44},
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 2},
    "service_tier": "standard",
}
TOOL_USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"usage": {"input_tokens": 999_999}}}

OPENAI = [
    Form("openai chat", document({"object": "chat.completion", "choices": [CHOICE], "usage": CHAT_USAGE}), CHAT_TOLD),
    Form(
        "openai chat, streamed with include_usage",
        events(delta("", None), delta("Hi", None), delta("!", None), {"choices": [], "usage": CHAT_USAGE}),
        CHAT_TOLD | {"events": 4},
        EVENTS,
    ),
    Form("openai chat, streamed without usage", events(delta("Hi"), delta("!")), {"events": 2}, EVENTS),
    Form(
        "openai completions", document({"choices": [{"text": "x", "logprobs": None}], "usage": PLAIN_USAGE}), PLAIN_TOLD
    ),
    Form(
        "openai embeddings",
        document({"data": [{"embedding": [0.1, -2e-5], "index": 0}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}),
        {"prompt": 8, "total": 8},
    ),
    Form("openai responses", document(RESPONSE), RESPONSE_TOLD),
    Form(
        "openai responses, streamed",
        events(
            {"type": "response.created", "response": {**RESPONSE, "usage": None}},
            {"type": "response.output_item.added", "item": {}},
            {"type": "response.output_text.delta", "delta": "Hel"},
            {"type": "response.output_text.delta", "delta": "lo"},
            {"type": "response.output_text.done", "text": "Hello"},
            {"type": "response.completed", "response": RESPONSE},
            done=False,
            named=True,
        ),
        RESPONSE_TOLD | {"events": 2},
        EVENTS,
    ),
    Form(
        "openai images",
        document(
            {
                "data": [{"b64_json": "AAAA"}],
                "usage": {
                    "total_tokens": 4210,
                    "input_tokens": 50,
                    "output_tokens": 4160,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                },
            }
        ),
        {"total": 4210, "prompt": 50, "completion": 4160},
    ),
    Form(
        "openai transcription",
        document(
            {"text": "x", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}}
        ),
        {"total": 59, "prompt": 14, "completion": 45},
    ),
]

ANTHROPIC = [
    Form(
        "anthropic message",
        document({"type": "message", "content": [TOOL_USE], "usage": {**MESSAGE_USAGE, "output_tokens": 503}}),
        {"prompt": 7, "completion": 503, "cached": 2000, "cache_written": 500, "reasoning": 2, "apart": 2500},
    ),
    Form(
        "anthropic message, streamed",
        events(
            {"type": "message_start", "message": {"type": "message", "content": [], "usage": MESSAGE_USAGE}},
            {"type": "content_block_start", "index": 0, "content_block": TOOL_USE},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
            {"type": "message_stop"},
            done=False,
            named=True,
        ),
        {
            "prompt": 7,
            "completion": 15,
            "cached": 2000,
            "cache_written": 500,
            "reasoning": 2,
            "apart": 2500,
            "events": 3,
        },
        EVENTS,
    ),
    Form(
        "anthropic message, streamed: zeros at the end erase nothing",
        events(
            {"type": "message_start", "message": {"usage": MESSAGE_USAGE}},
            {
                "type": "message_delta",
                "usage": {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 15},
            },
            done=False,
        ),
        {
            "prompt": 7,
            "completion": 15,
            "cached": 2000,
            "cache_written": 500,
            "reasoning": 2,
            "apart": 2500,
            "events": 2,
        },
        EVENTS,
    ),
]

OTHERS = [
    Form(
        "vllm chat, usage in every event",
        events(
            *(delta("x", {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n}) for n in range(1, 13))
        ),
        PLAIN_TOLD | {"events": 12},
        EVENTS,
    ),
    Form(
        "vllm chat",
        document(
            {"choices": [CHOICE], "usage": {**PLAIN_USAGE, "prompt_tokens_details": None}, "prompt_logprobs": None}
        ),
        PLAIN_TOLD,
    ),
    Form(
        "vllm rerank",
        document({"id": "r", "usage": {"total_tokens": 56}, "results": [{"index": 0, "relevance_score": 0.9}]}),
        {"total": 56},
    ),
    Form(
        "vllm score",
        document({"data": [{"score": 0.1}], "usage": {"prompt_tokens": 17, "total_tokens": 17}}),
        {"prompt": 17, "total": 17},
    ),
    Form(
        "ollama /v1 chat, streamed",
        events(delta("a"), delta("b"), {"choices": [], "usage": PLAIN_USAGE}),
        PLAIN_TOLD | {"events": 3},
        EVENTS,
    ),
    Form(
        "llama.cpp chat",
        document({"choices": [CHOICE], "usage": PLAIN_USAGE, "timings": {"prompt_n": 9, "predicted_n": 12}}),
        PLAIN_TOLD,
    ),
    Form(
        "llama.cpp chat, streamed",
        events(delta("a"), {"choices": [], "usage": PLAIN_USAGE, "timings": {"prompt_ms": 1.5e2}}),
        PLAIN_TOLD | {"events": 2},
        EVENTS,
    ),
    Form(
        "groq chat, streamed: x_groq",
        events(
            delta("a", x_groq={"id": "req"}),
            delta(None, x_groq={"id": "req", "usage": {**PLAIN_USAGE, "queue_time": 0.03}}),
        ),
        PLAIN_TOLD | {"events": 2},
        EVENTS,
    ),
    Form(
        "moonshot chat, streamed: usage in the choice",
        events(
            delta("a"),
            {
                "choices": [
                    {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {**PLAIN_USAGE, "cached_tokens": 4}}
                ]
            },
        ),
        PLAIN_TOLD | {"cached": 4, "events": 2},
        EVENTS,
    ),
    Form(
        "deepseek chat",
        document(
            {"choices": [CHOICE], "usage": {**PLAIN_USAGE, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1}}
        ),
        PLAIN_TOLD | {"cached": 8},
    ),
    Form(
        "litellm's chat of an anthropic model: the prompt has the cached in it",
        document(
            {
                "choices": [CHOICE],
                "usage": {**PLAIN_USAGE, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0},
            }
        ),
        PLAIN_TOLD | {"cached": 5, "cache_written": 0},
    ),
    Form(
        "cohere rerank",
        document(
            {
                "results": [],
                "meta": {
                    "api_version": {"version": "2"},
                    "billed_units": {"search_units": 1},
                    "tokens": {"input_tokens": 21},
                },
            }
        ),
        {"prompt": 21},
    ),
    Form(
        "siliconflow rerank",
        document(
            {
                "results": [],
                "meta": {"billed_units": {"input_tokens": 28}, "tokens": {"input_tokens": 31, "output_tokens": 0}},
            }
        ),
        {"prompt": 31, "completion": 0},
    ),
    Form("jina rerank", document({"model": "j", "usage": {"total_tokens": 815}, "results": []}), {"total": 815}),
    Form(
        "gemini, openai's form, streamed",
        events(delta("a", {"completion_tokens": 1, "prompt_tokens": 9, "total_tokens": 10}), delta("b", PLAIN_USAGE)),
        PLAIN_TOLD | {"events": 2},
        EVENTS,
    ),
    Form(
        "gemini",
        document(
            {
                "candidates": [{"content": {"parts": [{"text": "x"}]}}],
                "usageMetadata": {
                    "promptTokenCount": 100,
                    "cachedContentTokenCount": 30,
                    "candidatesTokenCount": 20,
                    "thoughtsTokenCount": 5,
                    "toolUsePromptTokenCount": 10,
                    "totalTokenCount": 135,
                    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
                },
            }
        ),
        {"prompt": 110, "cached": 30, "completion": 25, "reasoning": 5, "total": 135},
    ),
    Form(
        "gemini, streamed as one array",
        b'[{"candidates": [],\n"usageMetadata": {"promptTokenCount": 5}}\n,\r\n{"candidates": [],\n'
        b'"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}}\n]',
        {"prompt": 5, "completion": 7, "total": 12},
    ),
]

_LAST = {"choices": [], "usage": PLAIN_USAGE}
ODD = [
    Form(
        "carriage returns and line feeds", events(delta("a"), _LAST, end="\r\n\r\n"), PLAIN_TOLD | {"events": 2}, EVENTS
    ),
    Form("carriage returns", events(delta("a"), _LAST, end="\r\r"), PLAIN_TOLD | {"events": 2}, EVENTS),
    Form(
        "no blank line at the end", events(delta("a"), _LAST, done=False).rstrip(), PLAIN_TOLD | {"events": 2}, EVENTS
    ),
    Form("no space after the colon", events(_LAST).replace(b"data: ", b"data:"), PLAIN_TOLD | {"events": 1}, EVENTS),
    Form("a byte order mark", b"\xef\xbb\xbf" + events(_LAST), PLAIN_TOLD | {"events": 1}, EVENTS),
    Form(
        "comments, ids and names",
        b": it's a \"ping\n\nevent: done\nid: 3\n" + events(_LAST) + b"event: ping\ndata: {}\n\n",
        PLAIN_TOLD | {"events": 1},
        EVENTS,
    ),
    Form(
        "data of several lines",
        b'data: {"usage":\ndata: {"total_tokens":\ndata:12}}\n\n',
        {"total": 12, "events": 1},
        EVENTS,
    ),
    Form("a broken event", events(_LAST) + b"data: {\n\ndata\n\ndata:\n\n", PLAIN_TOLD | {"events": 2}, EVENTS),
    Form(
        "broken after usage was named",
        b'data: {"usage":{"a":"x\n\ndata: {"usage":[" \\\n\n' + events(_LAST),
        PLAIN_TOLD | {"events": 3},
        EVENTS,
    ),
    Form("broken before usage", b'data: {"a":"\n\n' + events(_LAST), PLAIN_TOLD | {"events": 2}, EVENTS),
    Form("a type with a charset", document(_LAST), PLAIN_TOLD, "Application/JSON; charset=UTF-8"),
    Form("a vendor's type", document(_LAST), PLAIN_TOLD, "application/vnd.example+json"),
    Form("spaces everywhere", b'{ "usage" \n:\t{ "total_tokens" : 12 } }', {"total": 12}),
    Form(
        "doubled: the largest",
        b'{"usage":{"total_tokens":12,"total_tokens":3},"usage":{"total_tokens":5}}',
        {"total": 12},
    ),
    Form("an exponent", b'{"usage":{"total_tokens":1.2e3,"prompt_tokens":1E1}}', {"total": 1200, "prompt": 10}),
    Form("a fraction is rounded up", b'{"usage":{"total_tokens":11.2}}', {"total": 12}),
    Form("beyond 64 bits", b'{"usage":{"total_tokens":' + b"9" * 40 + b"}}", {"total": 2**53}),
    Form("beyond doubles", b'{"usage":{"total_tokens":1e999}}', {"total": 2**53}),
    Form("a zero", b'{"usage":{"completion_tokens":0}}', {"completion": 0}),
    Form("no numbers", b'{"usage":{"total_tokens":null,"prompt_tokens":"5","completion_tokens":[7]}}', {}),
    Form("negative", b'{"usage":{"total_tokens":-5,"prompt_tokens":5}}', {"prompt": 5}),
    Form("a null", b'{"usage":null}', {}),
    Form("a list", b'{"usage":[{"total_tokens":12}]}', {}),
    Form("braces in a text beside", b'{"a":"}{[\\"","usage":{"note":"}","total_tokens":12}}', {"total": 12}),
    Form("backslashes at a text's end", b'{"a":"\\\\","b":"\\\\\\"","usage":{"total_tokens":12}}', {"total": 12}),
    Form("not JSON, then usage", b'oops {"usage":{"total_tokens":12}}', {"total": 12}),
    Form("too many closed", b'}}]]{"usage":{"total_tokens":12}}', {"total": 12}),
    Form("documents line by line", b'{"a":1}\n{"usage":{"total_tokens":12}}\n', {"total": 12}, "application/x-ndjson"),
    Form("JSON that says it is events", document(_LAST), {}, EVENTS),
    Form("events that say they are JSON", events(delta("a"), _LAST), PLAIN_TOLD),
]

ELSEWHERE = [
    Form("in a text", document({"choices": [{"message": {"content": '{"usage":{"total_tokens":9}}'}}]}), {}),
    Form("in a tool's arguments", document({"content": [TOOL_USE]}), {}),
    Form("in metadata", document({"metadata": {"usage": {"total_tokens": 9}}}), {}),
    Form("in an echoed request", document({"request": {"usage": {"total_tokens": 9}}}), {}),
    Form("in a choice's message", document({"choices": [{"message": {"usage": {"total_tokens": 9}}}]}), {}),
    Form("in a response's metadata", document({"response": {"metadata": {"usage": {"total_tokens": 9}}}}), {}),
    Form(
        "in the meta of an event, however long",
        events(
            {"meta": {"tokens": {"total_tokens": 9}}, "pad": "x" * 5_000}, {"meta": {"tokens": {"total_tokens": 9}}}
        ),
        {"events": 2},
        EVENTS,
    ),
    Form("in a list of lists", b'[[{"usage":{"total_tokens":9}}]]', {}),
    Form("as a value", b'{"a":"usage","b":{"total_tokens":9}}', {}),
    Form("beside the key", b'{"usage" {"total_tokens":9}}', {}),
    Form("a key like it", document({"my_usage": {"total_tokens": 9}, "usages": {"total_tokens": 9}}), {}),
    Form("an escaped spelling is another key", b'{"us\\u0061ge":{"total_tokens":9}}', {}),
]

UNREAD = [
    Form("compressed", document(_LAST), {}, JSON, {"content_encoding": "gzip"}),
    Form("compressed events", events(_LAST), {}, EVENTS, {"content_encoding": "br"}),
    Form("audio", document(_LAST), {}, "audio/mpeg"),
    Form("an image", document(_LAST), {}, "image/png"),
    Form("text", document(_LAST), {}, "text/plain"),
    Form("an error", document(_LAST), {}, JSON, {"status": "500"}),
    Form("a refusal", document(_LAST), {}, JSON, {"status": "429"}),
]

READ = [*OPENAI, *ANTHROPIC, *OTHERS, *ODD, *ELSEWHERE]
