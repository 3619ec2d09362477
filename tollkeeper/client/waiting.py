"""A word on standard error where an answer takes more than a moment, for whoever sits at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Final

from rich.status import Status

from tollkeeper.client.showing import console

SILENT_S: Final = 1.5


@contextmanager
def telling_of_a_wait(words: str = "waiting for the admin API") -> Iterator[None]:
    """Show that something is waited for, once that takes longer than ``SILENT_S``."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield
        return
    status = Status(words, console=shown)
    timer = Timer(SILENT_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
