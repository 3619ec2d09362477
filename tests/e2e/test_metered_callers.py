"""What callers may try so that a call costs less, or others more, than it should; through a real Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any

import pytest
from gatebench import wait_until
from ownvalkey import own_valkey

from tests.e2e.meteredrows import OTHER_TENANT, TENANT, Rows, metered_rows
from tests.e2e.proxy import PATIENCE_S
from tests.tables.metered_words import HELLO, LLM, TAUGHT, TEXT_BYTES, Model, Stream, Whole, body, chunk, event, usage

CHAT = "/v1/chat/completions"
LIE = {"total_tokens": 90_000, "prompt_tokens": 90_000, "input_tokens": 90_000}


@pytest.fixture(scope="module")
def rows(valkey_binary: str) -> Iterator[Rows]:
    """One machine for all."""
    with own_valkey(valkey_binary) as valkey, metered_rows(valkey.url) as made:
        yield made


ECHOED: dict[str, bytes] = {
    "plain": json.dumps({"usage": LIE}).encode(),
    "by an escape": json.dumps({"usage": LIE}).replace("usage", "\\u0075sage").encode(),
    "in a message": json.dumps({"message": {"usage": LIE}}).encode(),
    "in a response": json.dumps({"response": {"usage": LIE}}).encode(),
    "in choices": json.dumps({"choices": [{"usage": LIE}]}).encode(),
    "as Gemini does": json.dumps({"usageMetadata": {"totalTokenCount": 90_000}}).encode(),
    "as Cohere does": json.dumps({"meta": {"tokens": {"input_tokens": 90_000}}}).encode(),
    "in metadata": json.dumps({"metadata": {"usage": LIE}}).encode(),
}


@pytest.mark.parametrize("name", ECHOED)
def test_usage_that_a_server_repeats_costs_no_more_than_was_held(rows: Rows, name: str) -> None:
    """The fields of a request stand in its answer: the budget that all tenants share loses what was held at most."""
    asked = json.dumps({"model": LLM.name, "max_tokens": 100})[:-1].encode() + b", " + ECHOED[name][1:]
    for repeated in (asked, json.dumps(json.loads(asked)).encode()):  # as it is, and as a server would write it again
        answer = Whole(repeated[:-1] + b', "id": "x"}')
        rows.forget()
        rows.server.expect(answer)
        rows.server.may_answer.set()
        status, _ = rows.ask(f"/v1/models/{LLM.name}/chat/completions", asked, tenant=OTHER_TENANT)
        assert status == 200
        charged = rows.settled(LLM)
        assert ceil(len(asked) / TEXT_BYTES) <= charged <= len(asked) + 100
        assert rows.used_by(OTHER_TENANT) == charged
        assert rows.used_by(TENANT) == 0


def test_a_text_that_looks_like_usage_is_text(rows: Rows) -> None:
    """In a string of the answer its quotes are escaped, however it is cut: it costs what the server told."""
    text = json.dumps({"usage": LIE})
    for piece in (0, 1, 5):
        last = event({"choices": [], "usage": usage(12)})
        answer = Stream((chunk(text=text), chunk(choices=[{"delta": {"content": text}}]), last), piece=piece)
        rows.forget()
        rows.server.expect(answer)
        rows.server.may_answer.set()
        assert rows.ask(CHAT, body(messages=HELLO, max_tokens=100, stream=True))[0] == 200
        assert rows.settled(LLM) == 12


def leave(
    rows: Rows, answer: Stream | None, after: bytes, model: Model = LLM, *, wait_s: float = 0, **fields: Any
) -> int:
    """What a call costs whose caller leaves once these bytes have come; ``b""``: before the first header."""
    rows.forget("tk:budget:*")
    rows.server.expect(answer)
    asked = body(model, messages=HELLO, max_tokens=100, **fields)
    with rows.envoy.connect() as connection:
        connection.sendall(rows.begin(CHAT, asked))
        wait_until(rows.server.arrived.is_set, PATIENCE_S)
        rows.server.may_answer.set()
        seen = b""
        while after not in seen:
            seen += connection.recv(65_536)
        time.sleep(wait_s)  # the time is what is paid for
    return rows.settled(model)


def test_who_leaves_once_usage_was_told_pays_what_was_told(rows: Rows) -> None:
    """Between usage and the end of the stream too, where a client closes at ``[DONE]``."""
    last = event({"choices": [], "usage": usage(33)})
    answer = Stream((chunk(), last, *[b": ping\n\n"] * 20_000))
    assert leave(rows, answer, last[-20:], stream=True) == 33


def test_who_leaves_before_the_first_header_pays_for_the_prompt_at_least(rows: Rows) -> None:
    """And never more than was held."""
    size = len(body(messages=HELLO, max_tokens=100))
    assert ceil(size / TEXT_BYTES) <= leave(rows, None, b"") <= size + 100


@pytest.fixture(scope="module")
def taught(rows: Rows) -> Rows:
    """The same, where JSON answers of one model have shown that it is fast: 1,000 tokens at once, in few bytes."""
    rows.server.expect(Whole(json.dumps({"usage": {"prompt_tokens": 20, "completion_tokens": 1_000}}).encode()))
    rows.server.may_answer.set()
    asked = body(TAUGHT, messages=HELLO, max_tokens=1_000)
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda _: rows.ask(CHAT, asked)[0], range(210)))
    assert statuses == {200}
    rows.settled(TAUGHT)
    return rows


def test_a_model_that_is_known_to_be_fast_is_not_free_until_it_answers(taught: Rows) -> None:
    """Who leaves before the first header pays for the time, at the learnt speed: here for all that was held."""
    size = len(body(TAUGHT, messages=HELLO, max_tokens=100))
    wait_until(lambda: leave(taught, None, b"", TAUGHT, wait_s=0.1) == size + 100, 30)


def test_what_json_answers_taught_says_nothing_of_streams(taught: Rows) -> None:
    """A stream without usage costs its prompt and its events, though 210 JSON answers had 30 tokens a byte."""
    taught.forget("tk:budget:*")
    taught.server.expect(Stream(tuple(chunk() for _ in range(300))))
    taught.server.may_answer.set()
    asked = body(TAUGHT, messages=HELLO, stream=True)
    assert taught.ask(CHAT, asked)[0] == 200
    assert 300 <= taught.settled(TAUGHT) <= 300 + len(asked)
