"""Unix sockets that are the owner's alone from the moment they are bound.

A socket's mode comes from the process's umask, which threads share, and whoever connects before it is narrowed keeps
the connection. So a socket is bound in a fresh folder that nobody else may enter, and moved to its place with its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OWNER_ONLY: Final = stat.S_IRUSR | stat.S_IWUSR
_FOLDER: Final = stat.S_IRWXU
_TRIES: Final = 16
_NAME: Final = "s"


class PrivateSocket:
    """A socket's place. Whoever binds and listens is given another path for it by ``binding``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._placed: os.stat_result | None = None

    @contextlib.contextmanager
    def binding(self) -> Iterator[Path]:
        """Bind and listen at the path given here; at the end it is moved over what a dead process has left.

        Raises ``OSError``: for a place that holds something else than a socket, too.
        """
        self._refuse_other_files()
        folder = _fresh_folder(self._path.parent)
        try:
            bound = folder / _NAME
            yield bound
            bound.chmod(OWNER_ONLY)
            self._placed = bound.stat()
            bound.rename(self._path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _refuse_other_files(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(self._path))

    def remove(self) -> None:
        """Take the socket away, unless another one is in its place by now; idempotent."""
        placed, self._placed = self._placed, None
        with contextlib.suppress(FileNotFoundError):
            if placed is not None and os.path.samestat(placed, self._path.lstat()):
                self._path.unlink()


def _fresh_folder(parent: Path) -> Path:
    """Make a folder with a short name: a socket's path has about a hundred bytes, most of which may be spent."""
    for _ in range(_TRIES):
        folder = parent / f".{secrets.token_hex(2)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(_FOLDER)
            return folder
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(parent))
