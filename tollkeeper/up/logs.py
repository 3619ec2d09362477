"""The log of each process of the machine: kept over one restart, bounded, quoted when a process dies.

A log is ``NAME.log``; what came before it is ``NAME.log.1``, and what came before that is gone. The process itself
writes to the file, so a log that is full is copied and emptied: a line written in that moment may be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

MAX_BYTES: Final = 16 * 1024 * 1024
"""A log that is longer is set aside at the next look; with its predecessor it takes about twice this."""

LOOK_S: Final = 5.0
LAST_LINES: Final = 12
LAST_BYTES: Final = 8192


class Logs:
    """The log files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fresh(self, name: str) -> BinaryIO:
        """Open an empty log to append to, which lets it be emptied meanwhile; the last start's is kept."""
        path = self._path(name)
        if path.exists():
            path.replace(_older(path))
        return path.open("ab")

    def last_words(self, name: str) -> str:
        """Return the log's end, after the file's name."""
        path = self._path(name)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        return f"{path} ends with:\n" + "\n".join(f"  {line}" for line in lines) + "\n"

    async def keep_small(self) -> None:
        """Set aside what grew too long, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)  # a file has no event for its length
            with contextlib.suppress(OSError):  # no room, say: the next look tries again
                await asyncio.to_thread(self._set_aside_the_long)

    def _set_aside_the_long(self) -> None:
        """Copy each log that is too long to its older one, and empty it."""
        for path in self._folder.glob("*.log"):
            if path.stat().st_size > MAX_BYTES:
                shutil.copyfile(path, _older(path))
                os.truncate(path, 0)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
