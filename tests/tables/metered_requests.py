"""What calls of clients hold and which are refused: the specification, by what is asked. See `metered_words`."""

from __future__ import annotations

import json
from typing import Final

from tests.tables.metered_words import (
    HELLO,
    READER,
    ROOMY,
    UNNAMED,
    VISION,
    Row,
    Whole,
    body,
    estimate_and,
    just,
    nothing,
    size_and,
    told,
)

ONE: Final = told(12)

SEVERAL_ANSWERS: Final = (
    # 500 prompts x 4,000 = 2,000,000 held besides the bytes; 500 contexts would be 4,096,000
    Row(
        "many prompts, each with its completion",
        body(ROOMY, prompt=["Once upon a time"] * 500, max_tokens=4_000),
        held=size_and(500 * 4_000),
        charged=just(2_002_500),
        answer=told(2_002_500),
        path="completions",
        model=ROOMY,
    ),
    Row(
        "many prompts that no budget can ever hold",
        body(prompt=["Once upon a time"] * 500, max_tokens=4_000),
        held=None,
        charged=nothing,
        path="completions",
        status=400,
        code="exceeds_limit",
    ),
    # 10 prompts x 4,000
    Row(
        "several prompts cost what was told",
        body(prompt=["Once"] * 10, max_tokens=4_000),
        held=size_and(10 * 4_000),
        charged=just(40_000),
        answer=told(40_000),
        path="completions",
    ),
    # a prompt of token ids is one prompt, a list of such lists is as many
    Row(
        "a prompt of token ids is one",
        body(prompt=[9_906, 11, 1_917], max_tokens=50),
        held=size_and(50),
        charged=just(12),
        answer=ONE,
        path="completions",
    ),
    Row(
        "prompts of token ids are as many",
        body(prompt=[[9_906], [11], [1_917]], max_tokens=50),
        held=size_and(3 * 50),
        charged=just(12),
        answer=ONE,
        path="completions",
    ),
    Row(
        "best of 20 generates 20",
        body(prompt="Once", best_of=20, n=1, max_tokens=4_000),
        held=size_and(20 * 4_000),
        charged=just(80_002),
        answer=told(80_002),
        path="completions",
    ),
    Row(
        "best of 16 costs what was told",
        body(prompt="Once", best_of=16, max_tokens=2_500),
        held=size_and(16 * 2_500),
        charged=just(40_000),
        answer=told(40_000),
        path="completions",
    ),
    *(
        Row(
            f"{n} choices",
            body(messages=HELLO, n=n, max_tokens=100),
            held=size_and(n * 100),
            charged=just(n * 90),
            answer=told(n * 90),
        )
        for n in (2, 32, 128)
    ),
    # an unnamed maximum holds the default for each choice; 2 x 8,192 would be more
    Row(
        "choices without a maximum",
        body(messages=HELLO, n=2),
        held=size_and(2 * UNNAMED),
        charged=just(12),
        answer=ONE,
    ),
    *(
        Row(
            f"'{field}': {count} is no count",
            body(messages=HELLO, max_tokens=10, **{field: count}),
            held=None,
            charged=nothing,
            status=400,
            code=f"invalid_{field}",
            names=field,
        )
        for field, count in (("n", 129), ("n", 0), ("best_of", 129))
    ),
)

NOTHING_GENERATED: Final = (
    *(
        Row(
            f"embeddings at {path}",
            body(input=["one", "two"] * 10),
            held=size_and(0),
            charged=just(50_000),
            answer=told(50_000),
            path=path,
        )
        for path in ("embeddings", "embeddings/", "Embeddings")
    ),
    # 100 documents on an hour of 30,000 with a context of 32,000: their bytes are held and no context
    Row(
        "rerank with OpenAI's usage",
        body(READER, query="q", documents=["a short document"] * 100),
        held=size_and(0),
        charged=just(20),
        answer=Whole(json.dumps({"results": [], "usage": {"total_tokens": 20}}).encode()),
        path="rerank",
        model=READER,
    ),
    Row(
        "rerank with Cohere's",
        body(READER, query="q", documents=["a short document"] * 100),
        held=size_and(0),
        charged=just(21),
        answer=Whole(json.dumps({"results": [], "meta": {"tokens": {"input_tokens": 21}}}).encode()),
        path="rerank",
        model=READER,
    ),
    *(
        Row(
            f"{path} without usage costs its prompt, whatever the answer's length",
            body(READER, **fields),
            held=size_and(0),
            charged=estimate_and(0),
            answer=Whole(json.dumps({"results": [0.5] * 2_000}).encode()),
            path=path,
            model=READER,
        )
        for path, fields in (
            ("rerank", {"query": "q", "documents": ["a short document"] * 100}),
            ("score", {"text_1": "q", "text_2": ["a short document"] * 100}),
            ("moderations", {"input": "Hello!"}),
        )
    ),
    *(
        Row(
            f"{path} counts and costs no tokens",
            body(messages=HELLO, input="Hello!", prompt="Hello!"),
            held=nothing,
            charged=nothing,
            answer=Whole(b'{"count":3,"tokens":[1,2,3],"input_tokens":3}'),
            path=path,
        )
        for path in ("tokenize", "messages/count_tokens", "responses/input_tokens")
    ),
    # 40 characters: the whole body is held, a token per 2.5 bytes charged; the audio's bytes are nobody's tokens
    Row(
        "speech costs its input, not its audio",
        body(input="x" * 40, voice="alloy"),
        held=size_and(0),
        charged=estimate_and(0),
        answer=Whole(b"\xff\xfb" * 250_000, "audio/mpeg"),
        path="audio/speech",
    ),
)

_IMAGE: Final = "A" * 1_500_000
_IMAGE_URL: Final = f"data:image/png;base64,{_IMAGE}"
_AUDIO: Final = "B" * 300_000
_SEES: Final = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": _IMAGE_URL}},
        ],
    }
]
_HEARS: Final = [
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": _AUDIO, "format": "wav"}}]}
]
_LOOKS: Final = [
    {
        "role": "user",
        "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _IMAGE}}],
    }
]
_ASKS: Final = [{"role": "user", "content": [{"type": "input_image", "image_url": _IMAGE_URL}]}]

INLINE_PARTS: Final = (
    *(
        Row(
            f"an inline {says} holds a bound of its own, not its bytes",
            body(VISION, max_tokens=100, **fields),
            held=size_and(100),
            charged=just(1_100),
            answer=answer,
            path=path,
            model=VISION,
            media_bytes=len(data),
            media_parts=1,
        )
        for says, path, fields, data, answer in (
            ("image", "chat/completions", {"messages": _SEES}, _IMAGE_URL, told(1_100)),
            ("sound", "chat/completions", {"messages": _HEARS}, _AUDIO, told(1_100)),
            (
                "image of Anthropic's",
                "messages",
                {"messages": _LOOKS},
                _IMAGE,
                Whole(json.dumps({"usage": {"input_tokens": 1_090, "output_tokens": 10}}).encode()),
            ),
            (
                "image of a response",
                "responses",
                {"input": _ASKS},
                _IMAGE_URL,
                Whole(
                    json.dumps({"usage": {"input_tokens": 1_090, "output_tokens": 10, "total_tokens": 1_100}}).encode()
                ),
            ),
        )
    ),
)

REQUESTS: Final = (*SEVERAL_ANSWERS, *NOTHING_GENERATED, *INLINE_PARTS)
