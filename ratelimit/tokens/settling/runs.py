"""Runs of the settling script in one cell, each numbered: one whose answer did not come is sent again as the same run.

So what a run adds to usage is told exactly once, whatever befalls the link. For one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as StoreTimeoutError

from ratelimit.tokens.ledger import Ledger, Run, Settled
from ratelimit.tokens.settling.dues import Due
from ratelimit.windows.limiter import Execute
from ratelimit.windows.sizing import SCRIPT_BUDGET_US


class Runs:
    """Of one gate, and of one kind: those that settle or those that sweep."""

    def __init__(self, ledger: Ledger, writes_format: Callable[[], int]) -> None:
        """``writes_format``: the format of a budget value that has to be made."""
        self.ledger = ledger
        self.unheard: Sequence[Due] | None = None
        """What the last run was to settle, if its answer did not come; it must be asked again before anything else."""
        self._writes_format = writes_format
        self._number = 0

    def ask(self, execute: Execute, dues: Sequence[Due] = (), *, sweep: int = 0) -> Settled:
        """Settle these, or presume some that are overdue; raises what ``execute`` raises."""
        is_again = self.unheard is not None
        self._number += not is_again
        self.unheard = dues
        try:
            settled = self.ledger.settle(
                execute,
                [due.settlement for due in dues],
                sweep=sweep,
                most_us=SCRIPT_BUDGET_US,
                format=self._writes_format(),
                run=Run(self._number, is_again),
            )
        except (StoreConnectionError, StoreTimeoutError):  # nobody knows whether it ran
            raise
        except RedisError:
            self.unheard = None
            raise
        self.unheard = None
        return settled
