"""What each ending of a call costs, through a real Envoy: the endings table, and every form in which usage comes."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gatebench import wait_until
from ownvalkey import own_valkey

from catalog.records import Limits, MissingUsage, Reservation, TokenPolicy
from ratelimit.tokens.estimates import JSON_ENVELOPE_BYTES, USUAL_BYTES_PER_TOKEN
from tests.e2e.metered import (
    CONTEXT,
    PATH,
    Answer,
    Metered,
    document,
    events,
    hangs_up,
    metered,
    never_answers,
    read_until_broken,
    sse,
    whole,
)
from tests.e2e.proxy import Reply

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
ANTHROPIC = {"input_tokens": 5, "output_tokens": 7}
RESPONSES = ANTHROPIC | {"total_tokens": 12}


DELTA = {"choices": [{"delta": {"content": "x"}}], "usage": None}
LAST = {"choices": [], "usage": USAGE}
STREAM = sse(DELTA, DELTA, LAST)
SILENT = sse(DELTA, DELTA)
SLOW = sse(*[DELTA] * 200)

TWELVE: dict[str, Answer] = {
    "json": document({"usage": USAGE}),
    "json-charset": document({"usage": USAGE}, "content-type: application/json; charset=utf-8"),
    "json-responses": document({"usage": RESPONSES}),
    "json-anthropic": document({"usage": ANTHROPIC}),
    "json-large": document({"text": "x" * 6_000_000, "usage": USAGE}),
    "json-rerank": document({"results": [], "meta": {"tokens": {"input_tokens": 12}}}),
    "sse": events(STREAM),
    "sse-charset": events(STREAM, kind="text/event-stream; charset=utf-8"),
    "sse-byte-by-byte": events(STREAM, piece=1),
    "sse-in-sevens": events(STREAM, piece=7),
    "sse-no-space": events(sse(DELTA, LAST, colon="data:")),
    "sse-crlf": events(sse(DELTA, LAST, end="\r\n\r\n"), piece=3),
    "sse-next-to-last": events(sse(DELTA, LAST, DELTA)),
    "sse-in-the-choice": events(sse(DELTA, {"choices": [{"delta": {}, "usage": USAGE}]})),
    "sse-x-groq": events(sse(DELTA, {"choices": [{"delta": {}}], "x_groq": {"usage": USAGE}})),
    "sse-unfinished": events(sse(DELTA, LAST, done="").rstrip()),
    "sse-no-done": events(sse(DELTA, LAST, done="")),
    "sse-usage-in-each": events(sse(*[{"usage": {**USAGE, "total_tokens": number}} for number in (3, 8, 12)])),
    "sse-responses": events(
        sse({"type": "response.created"}, {"type": "response.completed", "response": {"usage": RESPONSES}}, done="")
    ),
    "sse-anthropic": events(
        sse(
            {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
            {"type": "message_delta", "usage": {"output_tokens": 7}},
            done="",
        )
    ),
}
BREAKS = threading.Event()
DEAR = 3 * CONTEXT
ABOVE = ("settlements_above_hold", "tokens_above_hold")
OTHERS: dict[str, Answer] = {
    "none": document({"choices": []}),
    "long": document({"text": "x" * 2_000}),
    "sse-none": events(SILENT),
    "slow": events(SLOW, piece=len(sse(DELTA, done="")), rest_s=0.05),
    "breaks": events(SILENT, breaks=BREAKS),
    "teapot": document({"error": "x"}, status=418),
    "error": document({"error": "x"}, status=500),
    "hangs-up": hangs_up,
    "never": never_answers,
    "gzip": whole(gzip.compress(json.dumps({"usage": USAGE}).encode()), "content-encoding: gzip"),
    "dear": document({"usage": {"total_tokens": DEAR}}),
    "negative": document({"usage": {"total_tokens": -5}}),
    "text": document({"usage": {"total_tokens": "many"}}),
    "fraction": document({"usage": {"total_tokens": 12.7}}),
}


@pytest.fixture(scope="module")
def rig(valkey_binary: str) -> Iterator[Metered]:
    """One machine for all rows: each looks at the difference that it makes."""
    with own_valkey(valkey_binary) as valkey, metered(valkey.url, TWELVE | OTHERS) as made:
        yield made


def cost(rig: Metered, name: str, body: bytes | None = None, *headers: str) -> tuple[int, Reply]:
    """What one call costs once it is settled."""
    before = rig.settled()
    reply = rig.call(name, body, *headers)
    return rig.settled() - before, reply


def estimate(rig: Metered, bytes_sent: int = 0) -> int:
    """What nobody counted costs: prompt and answer as text, of the answer what is above a JSON envelope."""
    answer = max(0, bytes_sent - JSON_ENVELOPE_BYTES)
    return math.ceil(len(rig.body()) / USUAL_BYTES_PER_TOKEN) + math.ceil(answer / USUAL_BYTES_PER_TOKEN)


def left(rig: Metered, name: str, after: int) -> int:
    """What a call costs whose caller leaves once it has seen so many events."""
    before, seen_before = rig.settled(), rig.server.seen
    with rig.envoy.connect() as connection:
        connection.sendall(rig.begin(name))
        wait_until(lambda: rig.server.seen > seen_before)  # who leaves earlier may leave a reservation to the sweep
        seen = b""
        while seen.count(b"data:") < after and (more := connection.recv(65_536)):
            seen += more
    return rig.settled() - before


@pytest.mark.parametrize("name", TWELVE)
def test_usage_is_read_in_every_form(rig: Metered, name: str) -> None:
    """OpenAI's chat and responses, Anthropic's messages, whole or as events, cut anywhere: it costs what it told."""
    charged, reply = cost(rig, name)
    assert (reply.status, charged) == (200, 12)


def test_a_call_holds_back_the_most_that_it_can_cost_until_it_is_settled(rig: Metered) -> None:
    """While it runs, a token a byte and the completion it asks for."""
    before = rig.settled()
    with rig.envoy.connect() as connection:
        connection.sendall(rig.begin("slow"))
        seen = b""
        while b"data:" not in seen:
            seen += connection.recv(65_536)
        assert rig.used() - before == len(rig.body()) + 100
    assert rig.settled() - before < len(rig.body()) + 100


@pytest.mark.parametrize("name", ["none", "sse-none", "gzip"])
def test_a_whole_answer_without_usage_is_estimated(rig: Metered, name: str) -> None:
    """By the bytes that went both ways; a compressed answer hides its usage and gains nothing by it."""
    charged, _ = before_and_bytes(rig, name)
    assert charged >= estimate(rig)
    assert charged <= estimate(rig, 400)


def before_and_bytes(rig: Metered, name: str) -> tuple[int, int]:
    """What a call costs whose answer may be no text, and its status."""
    before = rig.settled()
    body = rig.begin(name)
    with rig.envoy.connect() as connection:
        connection.sendall(body)
        seen = connection.recv(65_536)
    return rig.settled() - before, int(seen.split(b" ")[1])


@pytest.mark.parametrize(("name", "status"), [("teapot", 418), ("error", 500), ("hangs-up", 503)])
def test_a_failure_costs_nothing(rig: Metered, name: str, status: int) -> None:
    """What was held back is free again, the request units are not."""
    charged, reply = cost(rig, name)
    assert (reply.status, charged) == (status, 0)


def test_who_leaves_before_an_answer_pays_for_the_prompt(rig: Metered) -> None:
    """The server may have read it, and generated for as long as it was waited for; no more than was held."""
    assert estimate(rig) <= left(rig, "never", 0) <= len(rig.body()) + 100


def test_who_leaves_in_the_middle_pays_for_what_was_sent(rig: Metered) -> None:
    """At least the prompt and what was seen, at most what the whole stream would have cost."""
    charged = left(rig, "slow", 2)
    assert estimate(rig, len(SLOW) // 100) <= charged < CONTEXT


def test_a_stream_that_breaks_costs_what_was_sent(rig: Metered) -> None:
    """The server's connection ends mid-stream."""
    before = rig.settled()
    with rig.envoy.connect() as connection:
        connection.sendall(rig.begin("breaks"))
        read_until_broken(connection, BREAKS)
    assert estimate(rig) <= rig.settled() - before <= estimate(rig) + SILENT.count(b"data:")


def test_what_is_told_above_the_hold_is_charged_and_counted(rig: Metered) -> None:
    """However much more than its context a call turns out to cost."""
    held, label = len(rig.body()) + 100, "tenant-a/llm"
    before = [rig.sample(f"tollkeeper_{name}_total", publication=label) for name in ABOVE]
    assert cost(rig, "dear")[0] == DEAR
    wait_until(
        lambda: (
            [rig.sample(f"tollkeeper_{name}_total", publication=label) for name in ABOVE]
            == [before[0] + 1, before[1] + DEAR - held]
        )
    )


@pytest.mark.parametrize("name", ["negative", "text"])
def test_usage_that_cannot_be_meant_is_no_usage(rig: Metered, name: str) -> None:
    """The call is estimated; nothing is given back for a negative count."""
    charged, reply = cost(rig, name)
    assert charged == estimate(rig, len(reply.body))


def test_json_where_a_stream_was_asked_for_is_no_stream(rig: Metered) -> None:
    """Envoy tells what kind the answer is, whoever counts: taken for events, its text would cost a 40th."""
    body = rig.body(stream=True, use_beam_search=True)
    charged, reply = cost(rig, "long", body)
    more = math.ceil(len(body) / USUAL_BYTES_PER_TOKEN) - estimate(rig)
    assert charged == estimate(rig, len(reply.body)) + more


def test_a_fraction_is_rounded_up(rig: Metered) -> None:
    """Tokens are whole."""
    assert cost(rig, "fraction")[0] == 13


def test_a_refused_call_holds_nothing(rig: Metered) -> None:
    """An unknown model, a count that cannot be meant: answered by Check, never settled."""
    before = rig.settled()
    for body in (b'{"model":"other"}', rig.body(max_tokens=1.5), rig.body(n=129), rig.body(max_tokens="9")):
        assert rig.call("json", body).status in {400, 404}
    assert (rig.held(), rig.used()) == (0, before)


def test_a_compressed_request_costs_what_it_holds(rig: Metered) -> None:
    """As a plain one does."""
    plain, _ = cost(rig, "json", rig.body())
    charged, reply = cost(rig, "json", gzip.compress(rig.body()), "content-encoding: gzip")
    assert (reply.status, charged) == (200, plain)


def test_a_compressed_request_is_refused(rig: Metered) -> None:
    """In an encoding that nobody here unpacks: what it asks for could not be metered."""
    charged, reply = cost(rig, "json", rig.body(), "content-encoding: br")
    assert (reply.status, reply.json["error"]["code"], charged) == (415, "unsupported_content_encoding", 0)


def test_no_duplicate_hides_what_a_call_costs(rig: Metered) -> None:
    """Which of two counts the server would go by is not for us to say: it is refused, and costs nothing."""
    body = b'{"model":"llm","max_tokens":100,"max_tokens":1}'
    charged, reply = cost(rig, "json", body)
    assert (reply.status, reply.json["error"]["code"], charged) == (400, "repeated_field", 0)


@pytest.mark.parametrize("size", [300_000, 4_000_000])
def test_long_prompts_pass(rig: Metered, size: int) -> None:
    """They hold back no more than the context."""
    charged, reply = cost(rig, "json", rig.body(prompt="x" * size))
    assert (reply.status, charged) == (200, 12)


def test_traditional_calls_are_told_to_nobody(rig: Metered) -> None:
    """A call without a body has nothing to settle."""
    before = rig.settled()
    assert rig.envoy.get(f"{PATH}/models", f"x-api-key: {rig.key}").status == 200
    assert (rig.held(), rig.used()) == (0, before)


@pytest.mark.parametrize(
    ("policy", "charged"), [(MissingUsage.FREE, 0), (MissingUsage.RESERVATION, "all")], ids=["free", "reservation"]
)
def test_the_policy_says_what_missing_usage_costs(redis_url: str, policy: MissingUsage, charged: int | str) -> None:
    """A whole answer without usage may be free or cost all that was held; one that was cut off is never free."""
    tokens = TokenPolicy(context_tokens=CONTEXT, missing_usage=policy)
    with metered(redis_url, OTHERS, tokens=tokens) as rig:
        expected = len(rig.body()) + 100 if charged == "all" else charged
        assert cost(rig, "none")[0] == expected
        assert left(rig, "slow", 1) >= estimate(rig, 1)


def test_what_nobody_tells_is_presumed(redis_url: str) -> None:
    """An Envoy that dies with a call in flight leaves the reservation to the sweep."""
    tokens = TokenPolicy(context_tokens=CONTEXT, missing_usage=MissingUsage.RESERVATION, reservation_timeout_s=1)
    with metered(redis_url, OTHERS, tokens=tokens) as rig, rig.envoy.connect() as connection:
        connection.sendall(rig.begin("never"))
        wait_until(lambda: rig.server.seen == 1)
        rig.envoy.kill()
        wait_until(lambda: rig.sample("tollkeeper_reservations_presumed_total") == 1, 20)
        assert rig.used() == len(rig.body()) + 100


def test_no_call_outlives_its_reservation(redis_url: str) -> None:
    """A stream is cut off before its reservation could be presumed, and costs what was sent."""
    tokens = TokenPolicy(context_tokens=CONTEXT, reservation_timeout_s=2)
    with metered(redis_url, OTHERS, tokens=tokens) as rig:
        charged = left(rig, "slow", 10**6)
        assert estimate(rig, 1) < charged < CONTEXT
        assert rig.sample("tollkeeper_reservations_presumed_total") == 0
        wait_until(lambda: rig.sample("tollkeeper_settlements_total", ending="aborted", outcome="settled") == 1)


def test_parallel_calls_never_pass_a_budget(redis_url: str) -> None:
    """200 at once on a budget for 20: what is admitted is never more than fits, and all of it is given back."""
    answers = {"json": document({"usage": USAGE})}
    limits = Limits(tokens_per_hour=20 * 150)
    with metered(redis_url, answers, limits=limits) as rig, ThreadPoolExecutor(40) as pool:
        body = rig.body(prompt="x" * 10)
        fits = 20 * 150 // (len(body) + 100)
        statuses = Counter(reply.status for reply in pool.map(lambda _: rig.call("json", body), range(200)))
        assert set(statuses) == {200, 429}
        rig.settled()
        used = 12 * statuses[200]
        assert used <= 20 * 150
        assert statuses[200] >= fits


def test_a_storm_of_aborts_leaves_nothing_held(redis_url: str) -> None:
    """500 streams whose callers leave at random moments: all is settled as the table says, and nothing stays held."""
    tokens = TokenPolicy(context_tokens=CONTEXT, reservation_timeout_s=5)
    dice = random.Random(11)  # noqa: S311  a seed, so that a failure can be repeated
    with metered(redis_url, OTHERS, tokens=tokens, limits=Limits(tokens_per_hour=10**7)) as rig:
        waits_s = [dice.uniform(0, 1.0) for _ in range(500)]
        with ThreadPoolExecutor(50) as pool:
            admitted = sum(pool.map(lambda wait_s: _leave_after(rig, wait_s), waits_s))
        assert admitted > 400
        wait_until(lambda: _all_is_accounted_for(rig), 30)  # calls whose callers left first may be admitted after that
        ended = {
            ending: rig.sample("tollkeeper_settlements_total", ending=ending, outcome="settled")
            for ending in ("aborted", "no_answer")
        }
        charged = rig.sample("tollkeeper_tokens_charged_total", publication="tenant-a/llm")
        assert sum(ended.values()) * estimate(rig) <= charged < sum(ended.values()) * CONTEXT
        assert sum(ended.values()) >= admitted


def _all_is_accounted_for(rig: Metered) -> bool:
    """Whether nothing is held or waits, and what was used is what was charged."""
    if rig.held() or rig.sample("tollkeeper_settlements_waiting"):
        return False
    charged = rig.sample("tollkeeper_tokens_charged_total", publication="tenant-a/llm")
    return rig.used() == charged + rig.sample("tollkeeper_tokens_presumed_total")


def _leave_after(rig: Metered, wait_s: float) -> bool:
    """Begin a stream and leave; whether its first event was seen."""
    with rig.envoy.connect() as connection:
        connection.sendall(rig.begin("slow"))
        connection.settimeout(max(0.01, wait_s))
        give_up = time.monotonic() + wait_s
        seen = b""
        while time.monotonic() < give_up:
            with contextlib.suppress(TimeoutError):
                seen += connection.recv(65_536)
        return b"data:" in seen


def test_adaptive_holds_back_what_calls_turned_out_to_cost(redis_url: str) -> None:
    """After 200 calls that told their usage; strict would go on to hold the most they could cost."""
    tokens = TokenPolicy(context_tokens=CONTEXT, reservation=Reservation.ADAPTIVE)
    with metered(redis_url, TWELVE | OTHERS, tokens=tokens) as rig:
        with ThreadPoolExecutor(20) as pool:
            assert {reply.status for reply in pool.map(lambda _: rig.call("json"), range(200))} == {200}
        rig.settled()
        strict = len(rig.body()) + 100

        def held_by_one() -> int:
            before, seen_before = rig.settled(), rig.server.seen
            with rig.envoy.connect() as connection:
                connection.sendall(rig.begin("slow"))
                wait_until(lambda: rig.server.seen > seen_before)
                return rig.used() - before

        wait_until(lambda: held_by_one() < strict // 2, 30)


def as_envoy_gateway_flushes(config: dict[str, Any]) -> dict[str, Any]:
    """Envoy's defaults, which Envoy Gateway has no setting for."""
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (log,) = manager["access_log"]
    log["typed_config"]["common_config"] |= {"buffer_flush_interval": "1s", "buffer_size_bytes": 16_384}
    return config


@pytest.mark.slow
@pytest.mark.parametrize("changed", [lambda config: config, as_envoy_gateway_flushes], ids=["plain", "gateway"])
def test_one_call_after_another_passes_at_its_next_try(redis_url: str, changed: Any) -> None:
    """However slowly ends are reported: the call before holds all the room until then; the refusal says how long."""
    with metered(redis_url, TWELVE, changed=changed) as rig:
        limit = Limits(tokens_per_hour=len(rig.body()) + 100 + 12 * 8)
        rig.catalog.change(rig.publication, limits=limit)
        wait_until(lambda: rig.call("json").status == 200)
        for _ in range(6):
            refused = rig.call("json")
            if refused.status == 200:  # its end was told already
                continue
            assert refused.headers["x-should-retry"] == "true"
            time.sleep(int(refused.headers["retry-after-ms"]) / 1_000)  # what it says is the promise
            assert rig.call("json").status == 200
