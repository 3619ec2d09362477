"""Work in the background, through a real Envoy and a gate: held until its result tells its cost, or time is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gatebench import wait_until
from ownvalkey import own_valkey

from catalog.records import HostRecord, MissingUsage, TokenPolicy
from ratelimit.names import held_key
from tests.e2e.metered import MODEL, PATH, Answer, Metered, document, events, metered, sse
from tests.e2e.proxy import HOST, Reply, head

USAGE = {"input_tokens": 100, "output_tokens": 60, "total_tokens": 160}
FIELDS = {"model": MODEL, "max_output_tokens": 100, "input": "x" * 100, "background": True}
HELD = len(json.dumps(FIELDS)) + 100

pytestmark = pytest.mark.timeout(120)


def response(status: str, usage: object = None, name: str = "resp_1") -> dict[str, Any]:
    """What servers answer: the id stands first."""
    return {"id": name, "object": "response", "status": status, "background": True, "output": [], "usage": usage}


@contextmanager
def model(redis_url: str, answers: dict[str, Answer], timeout_s: int = 600) -> Iterator[Metered]:
    """A model whose server is one tenant's alone and whose work may be left behind."""
    tokens = TokenPolicy(context_tokens=1_000, missing_usage=MissingUsage.FREE, reservation_timeout_s=timeout_s)
    with metered(redis_url, answers, tokens=tokens, allow_background=True) as rig:
        uid = rig.publication.uid
        rig.catalog.server(rig.publication)
        rig.catalog.add(HostRecord(HOST, {PATH: uid}, {f"{rig.publication.tenant}/{MODEL}": uid}))
        yield rig


@pytest.fixture(scope="module")
def rig(valkey_binary: str) -> Iterator[Metered]:
    """One that keeps what it holds for ten minutes."""
    with own_valkey(valkey_binary) as valkey, model(valkey.url, {}) as made:
        yield made


def begin(rig: Metered, **fields: Any) -> None:
    """Have work begun that is awaited."""
    before = rig.sample("tollkeeper_background_awaited_total")
    body = json.dumps(FIELDS | fields).encode()
    assert rig.envoy.post(f"{PATH}/responses", body, f"x-api-key: {rig.key}").status == 200
    wait_until(lambda: rig.sample("tollkeeper_background_awaited_total") == before + 1, 30)


def ask(rig: Metered, method: str, path: str) -> Reply:
    """Ask for what is stored, and wait until the gate has heard that the answer came."""
    before = _heard(rig)
    reply = rig.envoy.send(head(method, f"{PATH}/{path}", f"host: {HOST}", f"x-api-key: {rig.key}"))
    wait_until(lambda: _heard(rig) > before, 30)
    return reply


def _heard(rig: Metered) -> float:
    rows = ("usage", "no_usage", "failed", "aborted", "no_answer")
    return sum(rig.sample("tollkeeper_settlements_total", ending=row, outcome="settled") for row in rows)


RESULTS = {
    "JSON": document(response("completed", USAGE)),
    "events": events(
        sse(
            {"type": "response.created", "response": response("queued")},
            {"type": "response.output_text.delta", "delta": "said"},
            {"type": "response.completed", "response": response("completed", USAGE)},
            done="",
        )
    ),
}


@pytest.mark.parametrize("form", RESULTS)
def test_what_the_result_tells_is_charged_once(rig: Metered, form: str) -> None:
    """Nothing is before: all stays held, whoever asks how it goes."""
    before = rig.settled()
    rig.server.answers |= {"responses": document(response("queued")), "resp_1": document(response("in_progress"))}
    begin(rig)
    for _ in range(2):
        assert ask(rig, "GET", "responses/resp_1").status == 200
        assert (rig.held(), rig.used()) == (1, before + HELD)
    rig.server.answers["resp_1"] = RESULTS[form]
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert rig.settled() == before + 160
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert rig.settled() == before + 160
    assert not rig.store.keys(f"{held_key('0')}*")


def test_work_that_was_cancelled_stays_held_unless_that_tells_its_usage(rig: Metered) -> None:
    """Nobody knows what it came to."""
    before = rig.settled()
    rig.server.answers |= {
        "responses": document(response("queued")),
        "cancel": document(response("cancelled")),
        "resp_1": document(response("cancelled", {"total_tokens": 0})),
    }
    begin(rig)
    assert ask(rig, "POST", "responses/resp_1/cancel").status == 200
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert (rig.held(), rig.used()) == (1, before + HELD)
    rig.server.answers["cancel"] = document(response("cancelled", USAGE))
    assert ask(rig, "POST", "responses/resp_1/cancel").status == 200
    assert rig.settled() == before + 160


def test_a_result_that_nobody_began_costs_nothing(rig: Metered) -> None:
    """Or that was begun by a call which has been charged."""
    before = rig.settled()
    rig.server.answers |= {"responses": document(response("completed", USAGE)), "resp_1": RESULTS["JSON"]}
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert rig.settled() == before
    assert rig.envoy.post(f"{PATH}/responses", json.dumps(FIELDS).encode(), f"x-api-key: {rig.key}").status == 200
    assert rig.settled() == before + 160
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert rig.settled() == before + 160


def test_who_leaves_a_stream_may_fetch_its_result(rig: Metered) -> None:
    """The work goes on, and its events have told its id."""
    before = rig.settled()
    created = {"type": "response.created", "response": response("in_progress")}
    rig.server.answers |= {"responses": events(sse(created, done="")), "resp_1": RESULTS["JSON"]}
    begin(rig, stream=True)
    assert rig.held() == 1
    assert ask(rig, "GET", "responses/resp_1").status == 200
    assert rig.settled() == before + 160


def test_without_a_result_all_that_it_held_is_charged(valkey_binary: str) -> None:
    """When its time is over, whatever `missingUsage` says of others."""
    with own_valkey(valkey_binary) as valkey:
        answers = {"responses": document(response("queued")), "resp_1": document(response("failed"))}
        with model(valkey.url, answers, timeout_s=2) as rig:
            begin(rig)
            assert ask(rig, "GET", "responses/resp_1").status == 200
            assert rig.settled() == HELD
            assert rig.sample("tollkeeper_reservations_presumed_total") == 1


def test_where_no_id_is_told_all_that_it_held_is_charged_at_once(rig: Metered) -> None:
    """Nothing could be connected with it."""
    before = rig.settled()
    rig.server.answers["responses"] = document({"object": "response", "id": "resp_1", "usage": None})
    assert rig.envoy.post(f"{PATH}/responses", json.dumps(FIELDS).encode(), f"x-api-key: {rig.key}").status == 200
    assert rig.settled() == before + HELD
