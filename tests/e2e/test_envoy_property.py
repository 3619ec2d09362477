"""Ten thousand odd hosts, paths and bodies: the publication that was decided is the server that is reached, always."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from catalog.records import PublicationRecord
from tests.e2e.oddcalls import SHAPES, all_reached, odd_calls
from tests.e2e.proxy import Envoy, Gate, Upstream, kserve_v2, openai, options_for, publication, short_folder

CALLS = 10_000
SEED = 20_261


def _number(_chance: random.Random, number: int, _uid: str) -> str:
    """Check sees the key, and no server does: it tells the calls apart."""
    return str(number)


def _publications(upstreams: Sequence[Upstream]) -> Iterator[PublicationRecord]:
    for (make, uid, host, path), upstream in zip(SHAPES, upstreams, strict=True):
        yield make(uid, path, upstream.url, host=host)


@pytest.mark.slow
def test_what_is_decided_is_what_is_reached() -> None:
    """No spelling of a host, path or body makes Check decide on one publication and Envoy go to another's server."""
    calls = odd_calls(SEED, CALLS, _number)
    with short_folder() as folder, Gate(folder) as gate, ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream(uid)) for _, uid, *_ in SHAPES]
        gate.models = {(host, uid): uid for make, uid, host, _ in SHAPES if make is openai}
        gate.models_by_path = {(host, uid): uid for make, uid, host, _ in SHAPES if make in {publication, kserve_v2}}
        envoy = Envoy(options_for(folder, gate.target))
        envoy.publish(list(_publications(upstreams)))
        with envoy:
            reached = all_reached(envoy, calls)
        decided = {
            int(request.attributes.request.http.headers["x-api-key"]): gate.named(request) for request in gate.requests
        }
    assert len(reached) == CALLS
    wrong = {
        call.text: (decided.get(call.number, ""), reached[call.number])
        for call in calls
        if decided.get(call.number, "") != reached[call.number]
    }
    assert wrong == {}
    _assert_told_apart(Counter(reached.values()))


def _assert_told_apart(counts: Counter[str]) -> None:
    """The calls were odd enough, and not too odd: each server was reached, and as many calls reached none."""
    assert counts[""] > CALLS // 5
    assert {uid for _, uid, *_ in SHAPES} | {""} == set(counts)
    assert min(counts.values()) >= 50
