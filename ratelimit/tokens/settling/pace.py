"""How much of the store settling takes: the sizes of its scripts, and the rest after each. For one thread."""

from __future__ import annotations

from typing import Final

from ratelimit.tokens.ledger import Settled
from ratelimit.windows.sizing import BatchSizer

MAX_BATCH: Final = 256
"""Most ended calls of one script, and enough of them to wait for no more."""
FIRST_BATCH: Final = 8
"""So many endings, or overdue ones, are tried before anything is known of what they cost the store."""
MAX_REST_MS: Final = 20
MAX_REFUSED: Final = 8
"""Most rests that are waited for at once where other gates settle too."""


class Pace:
    """Learns from what scripts took."""

    def __init__(self) -> None:
        self._settle = BatchSizer(first=FIRST_BATCH, largest=MAX_BATCH)
        self._sweep = BatchSizer(first=FIRST_BATCH, largest=MAX_BATCH)
        self._refused = 0  # times in a row that settling rested when it was asked

    @property
    def endings(self) -> int:
        """How many to settle by one script."""
        return self._settle.calls

    @property
    def overdue(self) -> int:
        """How many to sweep by one script."""
        return self._sweep.calls

    def settled(self, endings: int, script: Settled, took_ms: float) -> float:
        """Take in a script that settled, and say how long to rest, in seconds."""
        return self._rest_s(self._settle, endings, script, took_ms)

    def swept(self, script: Settled, took_ms: float) -> float:
        """Take in a script that swept, and say how long to rest, in seconds."""
        return self._rest_s(self._sweep, script.presumed + script.forgotten, script, took_ms)

    def _rest_s(self, sizer: BatchSizer, calls: int, script: Settled, took_ms: float) -> float:
        """Have others use the store for as long as the script says.

        For as long as the answer took, if that is more (at most ``MAX_REST_MS``): the store is busy, or its machine is.
        Where another gate's script was in the way, wait longer each time: they must not all ask at every moment.
        """
        if calls:
            sizer.learn(calls, script.spent_us)
        self._refused = self._refused + 1 if script.is_resting else 0
        rest_ms = max(script.rest_us / 1_000, min(took_ms, MAX_REST_MS))
        return min(MAX_REFUSED, 1 + self._refused) * rest_ms / 1_000
