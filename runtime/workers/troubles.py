"""What can be wrong with a row of workers, each with what its operator can do. Constants only."""

from __future__ import annotations

from typing import Final

from runtime.readiness import Ailment

WORKER_AWAY: Final = Ailment(
    "worker_away",
    "Nothing at first: it is started again by itself. If it comes back, read the log for what that worker says before "
    "it ends; out of memory is the usual cause of SIGKILL.",
)
WORKERS_DRAINING: Final = Ailment(
    "workers_draining", "Nothing: the process was told to stop and its workers answer what they have."
)
