"""The log's lines of refusals that are an operator's matter.

The gateway could not decide, or lacks a pepper, or a key makes one bad call after another.

At most one line a reason in ``EVERY_MS``, with the request's id and a count of those left out: a flood of refusals
cannot fill a disk. No line holds a key's text.
"""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from extauth.reasons import WIRE, Outcome, Reason
from extauth.request.call import Call
from runtime import log

EVERY_MS: Final = 1_000
LOGGED: Final = frozenset({reason for reason in Reason if WIRE[reason].outcome is Outcome.ERROR}) | {
    Reason.PEPPER_UNKNOWN,
    Reason.TOO_MANY_ERRORS,
}
_log: Final = logging.getLogger(__name__)


class RefusalLog:
    """Writes lines, or counts them."""

    def __init__(
        self, now_ms: Callable[[], float], mask: Callable[[Call], str], on_suppressed: Callable[[Reason], object]
    ) -> None:
        self._now_ms = now_ms  # monotonic
        self._mask = mask
        self._on_suppressed = on_suppressed
        self._next_ms: dict[Reason, float] = {}
        self._left_out: defaultdict[Reason, int] = defaultdict(int)

    def note(self, reason: Reason, call: Callable[[], Call | None]) -> None:
        """Log a refusal; ``call`` is asked for what was refused only when a line is due."""
        if reason in LOGGED and self._is_due(reason):
            self._write(reason, call())

    def _is_due(self, reason: Reason) -> bool:
        now_ms = self._now_ms()
        if now_ms < self._next_ms.get(reason, now_ms):
            self._left_out[reason] += 1
            self._on_suppressed(reason)
            return False
        self._next_ms[reason] = now_ms + EVERY_MS
        return True

    def _write(self, reason: Reason, call: Call | None) -> None:
        left_out = self._left_out.pop(reason, 0)
        token = log.request_id.set(call.request_id if call else "")
        try:
            _log.warning(
                "refused, %s: %s, publication %s, key %s%s",
                WIRE[reason].status,
                reason.value,
                (call.publication or call.openai_host or "none") if call else "unknown",
                (self._mask(call) or "none") if call else "unknown",
                f"; {left_out} more since the line before" if left_out else "",
                exc_info=sys.exc_info()[0] is not None,
            )
        finally:
            log.request_id.reset(token)
