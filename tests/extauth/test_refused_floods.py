"""Floods on a full budget: refused as ever, while the store is asked for little more than the epoch."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis
from gatebench import NATIVE_UNIX, Asker, Catalog, Wire, question, status, wait_until, with_body
from prometheus_client import CollectorRegistry

from catalog.records import UNLIMITED, Limits, ModelType, Protocol
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from ratelimit.tokens.ledger import Ledger, Outcome, Settlement

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}


@pytest.fixture
def wire() -> Wire:
    """One transport: what is decided here is no matter of the wire."""
    return NATIVE_UNIX


def scripts(store: redis.Redis) -> int:
    """How often the store ran a script."""
    told = store.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


def error(answer: CheckResponse) -> dict[str, Any]:
    """The error object of a refusal."""
    found: dict[str, Any] = json.loads(answer.denied_response.body)["error"]
    return found


def headers(answer: CheckResponse) -> dict[str, str]:
    """A refusal's headers."""
    return {option.header.key: option.header.value for option in answer.denied_response.headers}


def flood(asker: Asker, *asked: CheckRequest, calls: int = 2_000) -> list[CheckResponse]:
    """Ask many times, a hundred at once."""
    rounds = calls // (100 * len(asked))
    return [answer for _ in range(rounds) for answer in asker.ask_many(list(asked) * 100)]


def test_a_flood_on_a_full_budget_costs_the_store_a_script_a_second(
    catalog: Catalog, asker: Asker, store: redis.Redis, registry: CollectorRegistry
) -> None:
    """2,000 calls of two keys, none of which can fit: two thousand true refusals, a handful of scripts."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=3))
    asked = [question(key=catalog.key(publication)[1], publication=publication) for _ in range(2)]
    answers = asker.ask_many(asked * 4)
    assert sorted(map(status, answers)) == [200] * 3 + [429] * 5
    before, begun_s = scripts(store), time.monotonic()
    answers = flood(asker, *asked)
    spent_s = time.monotonic() - begun_s
    of_its_own = 3  # a second: it sweeps, beats and writes usage
    assert scripts(store) - before <= (1 + of_its_own) * (spent_s + 1)
    assert {status(answer) for answer in answers} == {429}
    assert {(error(one)["budget"], error(one)["remaining"]) for one in answers} == {("publication-minute", 0)}
    assert {headers(one)["x-ratelimit-remaining"] for one in answers} == {"0"}
    remembered = registry.get_sample_value("tollkeeper_remembered_denials_total") or 0
    assert remembered >= len(answers) - 200 * (spent_s + 2)
    labels = {"outcome": "limited", "reason": "limited", "publication": "tenant-a/my-model", "tenant": "tenant-a"}
    wait_until(lambda: registry.get_sample_value("tollkeeper_decisions_total", labels) == 2_005)
    wait_until(lambda: store.hget(f"tk:usage:{{0}}:p:{publication.uid}", "total") == b"3")


def test_the_wait_counts_down_and_the_call_fits_at_its_end(catalog: Catalog, asker: Asker) -> None:
    """Each refusal names the same moment, to some milliseconds of two clocks; then the call passes, not earlier."""
    _, asked = catalog.callable_publication(Limits(burst=1))
    for _ in range(2):
        wait_until(lambda: status(asker.ask(asked)) == 200)
        begun_ms, ends = time.monotonic() * 1_000, []
        while status(answer := asker.ask(asked)) == 429:
            ends.append(time.monotonic() * 1_000 + int(headers(answer)["retry-after-ms"]))
            assert error(answer)["retry_after_ms"] == int(headers(answer)["retry-after-ms"])
        assert status(answer) == 200
        assert len(ends) > 10
        admitted_ms = time.monotonic() * 1_000
        assert min(ends) - begun_ms >= 990
        assert admitted_ms >= min(ends) - 10


def test_a_limit_raised_or_lifted_is_in_force_from_the_answer_on(
    catalog: Catalog, asker: Asker, gate: Gate, registry: CollectorRegistry
) -> None:
    """Amid a flood, with the feed and without it: the first call after a change is decided by the new limit."""
    publication, asked = catalog.callable_publication(Limits(per_hour=1))
    assert status(asker.ask(asked)) == 200
    for limit in (2, 3, 4, 5, 6):
        assert {status(one) for one in asker.ask_many([asked] * 100)} == {429}
        publication = catalog.change(publication, limits=Limits(per_hour=limit))
        assert [status(asker.ask(asked)) for _ in range(2)] == [200, 429]
        if limit == 3:
            gate._follower.stop(5)
    assert (registry.get_sample_value("tollkeeper_remembered_denials_total") or 0) > 100
    assert status(asker.ask(asked)) == 429
    catalog.change(publication, limits=UNLIMITED)
    assert {status(one) for one in asker.ask_many([asked] * 100)} == {200}


def test_a_dead_key_is_no_flood_of_429(catalog: Catalog, asker: Asker) -> None:
    """Disabled amid its flood it gets 401 at once; so does one that expires."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_hour=1))
    record, text = catalog.key(publication)
    soon_ms = int(time.time() * 1_000) + 1_500
    _, ends = catalog.key(publication, expires_at_ms=soon_ms)
    asked, ending = (question(key=one, publication=publication) for one in (text, ends))
    assert status(asker.ask(asked)) == 200
    assert {status(one) for one in asker.ask_many([asked] * 50)} == {429}
    catalog.change(record, disabled=True)
    assert status(asker.ask(asked)) == 401
    wait_until(lambda: status(asker.ask(ending)) == 401)
    assert int(time.time() * 1_000) >= soon_ms
    assert {status(one) for one in asker.ask_many([ending] * 50)} == {401}


def test_tokens_given_back_are_there_at_once(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """A refusal for want of tokens is looked at anew each time: a settlement in between lets the next call pass."""
    catalog.tenant()
    llm = catalog.publication(model="llm", limits=Limits(tokens_per_hour=100), **LLM)
    _, text = catalog.key(llm)
    asked = with_body(question(key=text, publication=llm), model="llm", max_tokens=50)
    assert status(asker.ask(asked)) == 200
    assert {status(one) for one in asker.ask_many([asked] * 20)} == {429}
    reservation = store.hkeys("tk:held:{0}")[0].decode()
    _settle(store, reservation)
    assert status(asker.ask(asked)) == 200


def _settle(store: redis.Redis, reservation: str) -> None:
    settled = Ledger("0").settle(store.execute_command, [Settlement(reservation, 0)])
    assert settled.outcomes == (Outcome.SETTLED,)


def test_a_refusal_is_told_of_the_publication_and_the_caller_it_is_of(
    catalog: Catalog, asker: Asker, registry: CollectorRegistry
) -> None:
    """One full budget of a key refuses at two models: each answer has its form, each is counted as its own."""
    catalog.tenant()
    llm, iris = catalog.publication(model="llm", **LLM), catalog.publication(model="iris")
    _, key = catalog.key(llm, iris, limits=Limits(per_minute=1))
    chat, predict = with_body(question(key=key, publication=llm), model="llm"), question(key=key, publication=iris)
    assert status(asker.ask(chat)) == 200
    answers = asker.ask_many([chat, predict] * 20)
    assert {status(one) for one in answers} == {429}
    told = ["x-ratelimit-limit-requests" in headers(one) for one in answers]
    assert told == [True, False] * 20

    def refused(model: str) -> float | None:
        labels = {"outcome": "limited", "reason": "limited", "publication": f"tenant-a/{model}", "tenant": "tenant-a"}
        return registry.get_sample_value("tollkeeper_decisions_total", labels)

    wait_until(lambda: (refused("llm"), refused("iris")) == (20, 20))
