"""Odd bodies and what is right for each: the specification. See `metered_words`."""

from __future__ import annotations

import json
from typing import Final

from tests.tables.metered_words import (
    HELLO,
    UNNAMED,
    Row,
    body,
    just,
    nothing,
    size_and,
    told,
)

ONE: Final = told(12)

BODIES: Final = (
    *(
        Row(
            f"the model's own URL names it: {says}",
            text,
            held=size_and(UNNAMED),
            charged=just(12),
            answer=ONE,
            own_url_only=True,
            seen=seen,
        )
        for says, text, seen in (
            ("null", b'{"model":null,"messages":[],"max_tokens":-1}', b'{"model":"llm","messages":[],"max_tokens":-1}'),
            ("absent", b'{"messages":[],"max_tokens":-1}', b'{"model":"llm","messages":[],"max_tokens":-1}'),
            (
                "empty",
                b'{"model":"","messages":[],"max_tokens":null}',
                b'{"model":"llm","messages":[],"max_tokens":null}',
            ),
        )
    ),
    *(
        Row(
            f"a name in another case is refused: {name}",
            json.dumps({"model": "llm", "messages": [], name: value}).encode(),
            held=None,
            charged=nothing,
            status=400,
            code="misspelt_field",
            names=name,
        )
        for name, value in (("Model", "roomy"), ("MODEL", "roomy"), ("Max_Tokens", 8_000), ("Stream", True))
    ),
    *(
        Row(
            f"a doubled {name} is refused",
            text,
            held=None,
            charged=nothing,
            status=400,
            code="repeated_field",
            names=name,
        )
        for name, text in (
            ("model", b'{"model":"llm","model":"roomy","messages":[]}'),
            ("model", b'{"model":"roomy","messages":[],"\\u006dodel":"llm"}'),
            ("max_tokens", b'{"model":"llm","max_tokens":1,"max_tokens":8000}'),
        )
    ),
    # a server's word for "as many as it likes", and the names of most tokens that servers have
    Row("no bound", body(messages=HELLO, max_tokens=-1), size_and(UNNAMED), just(12), ONE),
    *(
        Row(f"a maximum by '{says}'", body(messages=HELLO, max_tokens=5, **fields), size_and(700), just(12), ONE)
        for says, fields in (
            ("max_completion_tokens", {"max_completion_tokens": 700}),
            ("max_output_tokens", {"max_output_tokens": 700}),
            ("n_predict", {"n_predict": 700}),
            ("max_new_tokens", {"max_new_tokens": 700}),
            ("options.num_predict", {"options": {"num_predict": 700}}),
        )
    ),
    Row("a maximum beyond the context holds a context", body(max_tokens=10**9), just(8_192), just(12), ONE),
    Row("a number beyond 64 bits that decides nothing", body(max_tokens=5, seed=10**30), size_and(5), just(12), ONE),
    Row("a maximum beyond 64 bits holds a context", body(max_tokens=10**30), just(8_192), just(12), ONE),
    *(
        Row(f"JSON with {says} is JSON", text, size_and(5), just(12), ONE)
        for says, text in (
            ("a lone surrogate", b'{"model":"llm","max_tokens":5,"messages":[{"content":"\\ud83d"}]}'),
            ("a pair of surrogates", b'{"model":"llm","max_tokens":5,"messages":[{"content":"\\ud83d\\ude00"}]}'),
            ("a NUL", b'{"model":"llm","max_tokens":5,"messages":[{"content":"\\u0000"}]}'),
        )
    ),
    Row("a byte order mark is no obstacle", b'\xef\xbb\xbf{"model":"llm","max_tokens":5}', size_and(5), just(12), ONE),
    *(
        Row(f"{says} is no JSON", text, held=None, charged=nothing, status=400, code="invalid_json")
        for says, text in (
            ("what is not UTF-8", b'{"model":"llm","max_tokens":5,"messages":[{"content":"\xff"}]}'),
            ("UTF-16", '{"model":"llm","max_tokens":5}'.encode("utf-16")),
            ("two documents", b'{"model":"llm","max_tokens":5}{"model":"llm"}'),
        )
    ),
    Row(
        "a model that is no text by a lone surrogate is unknown",
        b'{"model":"llm\\ud83d","messages":[]}',
        held=None,
        charged=nothing,
        status=404,
        code="model_not_found",
        names="model",
    ),
)
