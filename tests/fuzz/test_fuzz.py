"""A short run of the fuzzer, and the proof that it sees what it is there to see.

``make fuzz`` runs a million inputs, ``make fuzz-smoke`` a minute of them (benchmarks/results/ has what came of it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from msgspec import structs

from catalog.keys.hashing import Match
from catalog.keys.secrets import SecretsError
from extauth import decide, edge
from extauth.credentials import carriers
from ratelimit.descriptors import asking
from ratelimit.service import edge as rate_limit_edge
from tests.fuzz.found import Found
from tests.fuzz.rig import Rig, rig

pytestmark = pytest.mark.timeout(300)
SEED = 20_261_123


@pytest.fixture
def running(valkey_socket: object, redis_url: str) -> Iterator[Rig]:
    """All targets on three databases of the session's Valkey."""
    first = int(redis_url.rpartition("=")[2])
    urls = [f"unix://{valkey_socket}?db={4090 - 3 * (first % 100) + number}" for number in range(3)]
    with rig(SEED, lambda number: urls[number]) as made:
        yield made
    for url in urls:
        with redis.Redis.from_url(url) as client:
            client.flushdb()


def test_odd_inputs_neither_crash_nor_pass(running: Rig) -> None:
    """Ten thousand inputs to everything that reads what others wrote: no fault, no wrong 200, no wrong refusal."""
    running.run(10_000)
    assert running.tally.total == 10_000
    assert set(running.targets) == set(running.tally.inputs)


def _any_secret(*_arguments: object) -> Match:
    return Match.YES


def _blind_to(field: str, value: object) -> Callable[..., Any]:
    """``decide`` on key records that are shown with one field made harmless."""
    honest = decide._accepted

    def accepted(presented: Any, facts: Any, *rest: Any) -> Any:
        if facts.key is not None:
            facts = dataclasses.replace(facts, key=structs.replace(facts.key, **{field: value}))
        return honest(presented, facts, *rest)

    return accepted


def _everything_visible(_call: Any, facts: Any, key: Any, tenant: Any, credential: Any) -> Any:
    return decide.Admission(
        key, tenant, facts.publication, decide._charge(facts, key, tenant, facts.publication, credential)
    )


def _mixed_up(self: Any, calls: Any, deadline_ms: float) -> Any:
    return [*self._check([call for call in calls if call], deadline_ms)][::-1] + [
        edge.Verdict(edge.Reason.CALL_UNREADABLE) for call in calls if not call
    ]


BREAKS = {
    "any secret fits a known id": (decide, "compare", _any_secret),
    "disabled keys pass": (decide, "_accepted", _blind_to("disabled", value=False)),
    "every key may call every model": (decide, "_authorise", _everything_visible),
    "a disabled tenant's models are called": (decide.Facts, "is_closed", False),
    "answers change places": (edge.CheckService, "_verdicts", _mixed_up),
    "descriptors count as one hit": (rate_limit_edge, "_hits", lambda _one, _hits: 1),
    "hits beyond all limits make a fault": (asking, "MAX_UNITS", 2**70),
    "some text makes a fault": (carriers, "_of_bearer", lambda text: text.encode("ascii").decode()[7:]),
}


@pytest.mark.replaces
@pytest.mark.parametrize("broken", BREAKS)
def test_the_fuzzer_sees_a_broken_gate(running: Rig, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Each way of letting the wrong call through, or of failing, is found within five thousand questions."""
    monkeypatch.setattr(*BREAKS[broken])
    with pytest.raises(Found):
        running.run(5_000)


def test_the_fuzzer_sees_a_reader_that_fails(running: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of another kind than the promised one is found."""
    monkeypatch.setattr("tests.fuzz.words.SecretsError", type("Other", (SecretsError,), {}))
    with pytest.raises(Found):
        running.run(5_000)
