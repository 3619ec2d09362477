"""A process that stands still, from the return on: the signal alone takes its time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PATIENCE_S = 5.0


def halt(pid: int) -> None:
    """Stop a process and wait until the kernel says that every thread of it is stopped."""
    os.kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + PATIENCE_S
    while not all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < until_s, f"process {pid} does not stop"
        time.sleep(0.001)  # another process has no event of ours


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
