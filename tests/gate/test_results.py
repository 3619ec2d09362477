"""Work in the background on a real Valkey: held until a later answer tells what it cost, by whichever gate hears it."""

from __future__ import annotations

import pytest
import redis
from gatebench import wait_until

from catalog.ids import shard_prefix
from ratelimit.names import held_key
from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.terms import Asked, Policy, Terms, Work, terms_of
from tests.gate.test_settling import Calls, Gate, running

BEGUN = terms_of(Asked(400, 100, is_background=True), Policy())
FETCHED = terms_of(Asked(0, work=Work.FETCHES), Policy())
QUEUED = Ended(200, 80, aborted=False)
DONE = Ended(200, 900, total=160, prompt=100, completion=60, aborted=False)
HOUR_MS = 3_600_000


@pytest.fixture
def calls(store: redis.Redis) -> Calls:
    """Calls of cell 0."""
    return Calls(store)


@pytest.fixture
def gate(redis_url: str) -> Gate:
    """A settler, not started."""
    return Gate(redis_url)


def hear(gate: Gate, calls: Calls, terms: Terms, ended: Ended, name: str, uid: str = "uid") -> str:
    """Have a call made and its end heard; its reservation."""
    (reservation,) = calls.admit(1, terms=terms, ceiling=terms.ceiling or None)
    gate.settler.note_all([Told(reservation, uid, ended, name)])
    wait_until(lambda: gate.settler.waiting == 0)
    return reservation


def names(store: redis.Redis) -> list[bytes]:
    """What is kept of awaited results."""
    return store.keys(f"{held_key('0')}:*")


def test_a_result_settles_what_was_held_once_and_by_any_gate(calls: Calls, redis_url: str, store: redis.Redis) -> None:
    """One gate hears the call begin, another its result, both that it is asked for again: charged what was told."""
    one, other = Gate(redis_url), Gate(redis_url)
    with running(one, other):
        begun = hear(one, calls, BEGUN, QUEUED, "resp_1")
        assert (calls.held, calls.tokens) == (1, 0)
        for poll in (QUEUED, Ended(200, 80, total=0, aborted=False), Ended(404, 80), Ended(500, 80, total=9)):
            hear(other, calls, FETCHED, poll, "resp_1")
        assert store.hkeys(held_key("0")) == [begun.encode()]
        hear(other, calls, FETCHED, DONE, "resp_1")
        assert (calls.held, calls.tokens, names(store)) == (0, 160, [])
        for gate in (one, other, one):
            hear(gate, calls, FETCHED, DONE, "resp_1")
    assert (calls.held, calls.tokens) == (0, 160)
    assert one.counted("background_awaited_total") == 1
    charged = sum(gate.counted("tokens_charged_total", publication="tenant-a/llm") for gate in (one, other))
    assert charged == 160
    assert sum(gate.counted("settlements_total", ending="usage", outcome="settled") for gate in (one, other)) == 1


def test_two_gates_that_hear_a_result_at_once_charge_it_once(calls: Calls, redis_url: str) -> None:
    """Both have found whose it is."""
    one, other = Gate(redis_url), Gate(redis_url)
    with running(one):
        for number in range(20):
            hear(one, calls, BEGUN, QUEUED, f"resp_{number}")
    one = Gate(redis_url)
    with running(one, other):
        for number in range(20):
            for gate in (one, other):
                (fetched,) = calls.admit(1, terms=FETCHED)
                gate.settler.note_all([Told(fetched, "uid", DONE, f"resp_{number}")])
        wait_until(lambda: one.settler.waiting == other.settler.waiting == 0)
    assert (calls.held, calls.tokens) == (0, 20 * 160)


def test_a_result_that_nobody_waits_for_costs_nothing(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """Of a call that was not left to the background, of one without an id, of another publication."""
    with running(gate):
        (chat,) = calls.admit(1)
        gate.settler.note_all([Told(chat, "uid", DONE, "resp_1")])
        hear(gate, calls, BEGUN, QUEUED, "")
        assert (calls.held, calls.tokens) == (0, 160 + BEGUN.reserved)  # without an id: all, at once
        begun = hear(gate, calls, BEGUN, QUEUED, "resp_3")
        for name, uid in (("resp_1", "uid"), ("resp_2", "uid"), ("", "uid"), ("resp_3", "other"), ("resp_3", "")):
            hear(gate, calls, FETCHED, DONE, name, uid)
    assert store.hkeys(held_key("0")) == [begun.encode()]
    assert calls.tokens == 160 + BEGUN.reserved


def test_what_the_first_answer_tells_is_charged_at_once(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """A server that ignores the wish, and one that refuses it."""
    with running(gate):
        hear(gate, calls, BEGUN, DONE, "resp_1")
        hear(gate, calls, BEGUN, Ended(503, 80), "resp_2")
    assert (calls.held, calls.tokens, names(store)) == (0, 160, [])


def test_no_call_takes_over_the_result_of_another(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """The second of the same id stays held: it is presumed in the end."""
    with running(gate):
        hear(gate, calls, BEGUN, QUEUED, "resp_1")
        second = hear(gate, calls, BEGUN, QUEUED, "resp_1")
        hear(gate, calls, FETCHED, DONE, "resp_1")
    assert (store.hkeys(held_key("0")), calls.tokens) == ([second.encode()], 160)


def test_without_a_result_all_that_was_held_is_charged_when_its_time_is_over(
    calls: Calls, gate: Gate, store: redis.Redis
) -> None:
    """A result that comes later, as long as that is counted, puts it right as every late end does."""
    (begun,) = calls.admit(1, 0, terms=BEGUN)
    with running(gate):
        wait_until(lambda: calls.tokens == BEGUN.reserved == 500)
        gate.settler.note_all([Told(begun, "uid", QUEUED, "resp_1")])
        wait_until(lambda: gate.settler.waiting == 0)
        (name,) = names(store)
        assert 0 < store.pttl(name) <= HOUR_MS + 60_000  # no longer than the reservation is kept
        hear(gate, calls, FETCHED, DONE, "resp_1")
        wait_until(lambda: calls.tokens == 160)
    assert (calls.held, names(store)) == (0, [])
    assert gate.counted("reservations_presumed_total") == 1


def test_a_gate_that_does_not_know_such_calls_leaves_them_to_the_sweep(calls: Calls, gate: Gate) -> None:
    """As one of another release does: it counts their ends, and what they hold, nothing, is presumed."""
    unknown = bytearray(FETCHED.pack())
    unknown[2] = max(one.value for one in Work) + 1
    (fetched,) = calls.admit(1, 0, terms=FETCHED, written=bytes(unknown))
    assert fetched.startswith(shard_prefix(0))
    gate.settler.note_all([Told(fetched, "uid", DONE, "resp_1")])
    with running(gate):
        wait_until(lambda: calls.tokens == 0 and gate.counted("reservations_presumed_total") == 1)
    assert gate.counted("settlements_lost_total", why="unreadable") == 1
