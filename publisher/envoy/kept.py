"""A file of resources that one process keeps for Envoy: what it says, and how it is made and replaced.

What we left there is remembered by the file's mark, so that megabytes are read again only where somebody else wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from publisher.drafts import draft, text_of
from publisher.envoy.files import Resources
from runtime.files import Mark, mark_of


class KeptFile:
    """One of the files, and ``kind``, the name under which Envoy reports on it. All of it may read the whole file."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self._left: tuple[Mark | None, Resources] | None = None  # as we left it, and with what

    def content(self) -> Resources | None:
        """What it says, None where there is none or it is not ours; raises ``OSError``."""
        return self._known(mark_of(self.path)) or _read(self.path)

    def says(self, content: Resources) -> bool:
        """Whether it says this; raises ``OSError``."""
        mark = mark_of(self.path)  # before it is read: what others put there meanwhile has another
        if known := self._known(mark):
            return known.version == content.version
        if text_of(self.path) != content.text():
            return False
        self._left = mark, content
        return True

    def drafted(self, text: Callable[[], str]) -> tuple[Path, str]:
        """What is to be renamed into its place, and what it says until then; raises ``OSError``."""
        self._left = None
        return draft(self.path, text()), text_of(self.path) or ""

    def left_with(self, content: Resources) -> None:
        """Remember it as it is now, and that it says this."""
        self._left = mark_of(self.path), content

    def _known(self, mark: Mark | None) -> Resources | None:
        """What we left there, where it still is; no file is as nobody left it."""
        return self._left[1] if self._left and mark is not None and self._left[0] == mark else None


def make_file(path: Path, content: Resources) -> None:
    """Make a file whole in place of none, or of one that is not ours; never of one that another process made."""
    if _read(path) is not None:
        return
    ready = draft(path.with_name(f"{path.name}-{os.getpid()}"), content.text())
    if path.exists() and _read(path) is None:
        ready.replace(path)
        return
    with suppress(FileExistsError):
        os.link(ready, path)
    ready.unlink()


def _read(path: Path) -> Resources | None:
    text = text_of(path)
    try:
        return None if text is None else Resources.parse(text)
    except (ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None
