"""A power cut of the store's machine takes nothing that was answered, and the gates and the admin API go on.

``make soak`` runs two hundred of these rounds; what a round is stands in docs/decisions/0013-durability.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.rounds import rig
from tests.durability.whole import Lost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROUNDS = 10


def test_nothing_that_was_answered_is_lost(valkey_binary: str, power_cut_library: Path) -> None:
    """Ten cuts under a mix of changes and calls: all or nothing of each act, all of each that was answered 2xx."""
    with rig(valkey_binary, power_cut_library, 20_000) as (running, callers):
        for _ in running.run(callers, ROUNDS):
            pass
        totals = running.totals
    assert totals.rounds == ROUNDS
    assert totals.acts["acknowledged"] > 3 * ROUNDS  # a busy machine makes some eight a round, an idle one fifty
    assert totals.acts["OUTCOME_UNKNOWN"] + totals.acts["STORE_UNAVAILABLE"] > ROUNDS
    assert totals.answers[200] > ROUNDS
    assert totals.answers[401] > ROUNDS


def test_the_same_rounds_see_what_everysec_loses(valkey_binary: str, power_cut_library: Path) -> None:
    """The proof of the proof: a store that does not sync before it answers is caught."""
    with (
        pytest.raises(Lost),
        rig(valkey_binary, power_cut_library, 20_001, "--appendfsync", "everysec") as (running, callers),
    ):
        for _ in running.run(callers, ROUNDS):
            pass
