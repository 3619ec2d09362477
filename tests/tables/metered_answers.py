"""What answers of model servers cost: the specification, by what is answered. See `metered_words`."""

from __future__ import annotations

import json
from typing import Final

from tests.tables.metered_words import (
    DONE,
    HELLO,
    UNNAMED,
    Row,
    Stream,
    Whole,
    body,
    chunk,
    estimate_and,
    event,
    just,
    size_and,
    told,
    usage,
)

ONE: Final = told(12)
CHAT: Final = body(messages=HELLO, max_tokens=100)
STREAMED: Final = body(messages=HELLO, max_tokens=100, stream=True)

LARGE_ANSWERS: Final = (
    Row(
        "an answer of 6 MB passes whole",
        body(prompt="a cat", n=1),
        held=size_and(UNNAMED),
        charged=just(4_210),
        answer=Whole(json.dumps({"data": [{"b64_json": "A" * 6_000_000}], "usage": usage(4_210)}).encode()),
        path="images/generations",
    ),
    Row(
        "256 embeddings of 3,072 numbers pass whole",
        body(input=["word"] * 256),
        held=size_and(0),
        charged=just(2_560),
        answer=Whole(
            json.dumps(
                {
                    "data": [{"embedding": [0.0123456789] * 3_072}] * 256,
                    "usage": {"prompt_tokens": 2_560, "total_tokens": 2_560},
                }
            ).encode()
        ),
        path="embeddings",
    ),
)

_CHUNKS: Final = tuple(chunk() for _ in range(13))

USAGE_TOLD: Final = (
    Row("JSON", CHAT, size_and(100), just(12), ONE),
    # the prompt / 2.5 and an event a token: the framing of 275 bytes an event costs nothing
    Row(
        "a stream without usage costs its events, never their framing",
        body(messages=HELLO, stream=True),
        held=size_and(UNNAMED),
        charged=estimate_and(300),
        answer=Stream((*(chunk() for _ in range(300)), DONE)),
    ),
    *(
        Row(f"usage {says}", STREAMED, size_and(100), just(cost), Stream((*_CHUNKS, *last), piece=piece))
        for says, cost, last, piece in (
            ("in the last event", 22, (event({"choices": [], "usage": usage(22)}), DONE), 0),
            ("in choices", 32, (event({"choices": [{"index": 0, "delta": {}, "usage": usage(32)}]}), DONE), 0),
            ("in x_groq", 42, (event({"choices": [], "x_groq": {"id": "req_0", "usage": usage(42)}}), DONE), 0),
            ("in pieces of seven bytes", 52, (event({"choices": [], "usage": usage(52)}), DONE), 7),
            ("without a blank line after the last event", 62, (event({"usage": usage(62)})[:-1],), 0),
            ("and zeros after it", 72, (event({"usage": usage(72)}), event({"usage": usage(1)}), DONE), 0),
        )
    ),
    Row(
        "usage in a Gemini answer",
        CHAT,
        size_and(100),
        just(12),
        Whole(b'{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7,"totalTokenCount":12}}'),
    ),
    # what was cached is part of OpenAI's prompt
    Row(
        "cached tokens of OpenAI's are in its prompt",
        CHAT,
        size_and(100),
        just(10_007),
        Whole(
            json.dumps(
                {
                    "usage": {
                        "prompt_tokens": 10_000,
                        "completion_tokens": 7,
                        "total_tokens": 10_007,
                        "prompt_tokens_details": {"cached_tokens": 8_000},
                    }
                }
            ).encode()
        ),
    ),
    # 2,000 + 8,000 read + 500 written + 7
    *(
        Row(
            f"cached tokens of Anthropic's {says} are added to its input",
            CHAT,
            size_and(100),
            just(10_507),
            answer,
            "messages",
        )
        for says, answer in (
            (
                "JSON",
                Whole(
                    b'{"type":"message","usage":{"input_tokens":2000,"cache_creation_input_tokens":500,'
                    b'"cache_read_input_tokens":8000,"output_tokens":7}}'
                ),
            ),
            (
                "stream",
                Stream(
                    (
                        b"event: message_start\n"
                        + event(
                            {
                                "type": "message_start",
                                "message": {
                                    "usage": {
                                        "input_tokens": 2_000,
                                        "cache_creation_input_tokens": 500,
                                        "cache_read_input_tokens": 8_000,
                                        "output_tokens": 1,
                                    }
                                },
                            }
                        ),
                        b"event: message_delta\n" + event({"type": "message_delta", "usage": {"output_tokens": 7}}),
                    )
                ),
            ),
        )
    ),
    # not JSON by the letter, but what some servers send; it passes as it is
    Row(
        "usage beside NaN",
        CHAT,
        size_and(100),
        just(4_000),
        Whole(b'{"choices":[{"logprobs":[-Infinity,NaN]}],"usage":{"total_tokens":4000}}'),
    ),
    Row(
        "usage beside NaN in a stream",
        STREAMED,
        size_and(100),
        just(4_000),
        Stream((b'data: {"choices":[{"logprobs":[-Infinity,NaN]}],"usage":{"total_tokens":4000}}\n\n', DONE)),
    ),
    Row(
        "a server that tells beyond the context is believed",
        CHAT,
        size_and(100),
        just(70_000),
        told(70_000),
    ),
)

ANSWERS: Final = (*LARGE_ANSWERS, *USAGE_TOLD)
