"""`tollkeeper`, with a gate that is as it will be for long: calls may wait, and it writes the newest format at once.

    python -m benchmarks.ground.patient gate ...

A call that waits 20 ms behind others is answered "overloaded" unread, and costs nearly nothing; a round with such calls
would not be a round of decisions. And a gate looks for a minute whether one of the release before is about before it
writes the newest format of stored values: nobody is. Everything else is the product as it is.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from gate import formats
from runtime.grpc.front import QueueLimits
from tollkeeper.gate import transport
from tollkeeper.start import main

WAIT_MS: Final = 10_000.0

if __name__ == "__main__":
    transport.QueueLimits = partial(QueueLimits, wait_ms=WAIT_MS)  # type: ignore[misc]
    formats.QUIET_MS = 0  # type: ignore[misc]
    main()
