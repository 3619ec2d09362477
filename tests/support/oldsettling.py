"""The ledger of a gate of the release before: its script as it was, for tests of updates while gates of both run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ratelimit.names import due_key, held_key, old_rest_key
from ratelimit.tokens.ledger import Outcome, Settled, Settlement
from ratelimit.windows.limiter import Execute

_SETTLE: Final = Path(__file__).parents[1].joinpath("recordings/release_before/settle.lua").read_bytes()
_OUTCOMES: Final = {
    "S": Outcome.SETTLED,
    "L": Outcome.REPLACED,
    "U": Outcome.UNKNOWN,
    "C": Outcome.CORRUPT,
}


class OldLedger:
    """Of one cell. It counts usage in its script, and not what calls cost above what they held."""

    def __init__(self, cell: str) -> None:
        self._keys = (3, held_key(cell), due_key(cell), old_rest_key(cell))

    def settle(
        self,
        execute: Execute,
        settlements: Sequence[Settlement],
        *,
        sweep: int = 100,
        most_us: int = 0,
        now_ms: int | None = None,
        format: int = 1,  # noqa: A002  as a ledger of this release has it
    ) -> Settled:
        """End reservations as that gate does."""
        assert format == 1
        ends = [part for one in settlements for part in (one.id, one.tokens, int(one.is_told))]
        reply = execute("EVAL", _SETTLE, *self._keys, "" if now_ms is None else now_ms, sweep, most_us, *ends)
        now, letters, presumed, forgotten, tokens, faults, more, spent_us, rest_us = reply
        outcomes = tuple(_OUTCOMES[letter] for letter in letters.decode())
        return Settled(now, outcomes, presumed, forgotten, tokens, faults, bool(more), spent_us, rest_us)
