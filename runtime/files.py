"""Files that are read again when they have changed. Knows nothing of what stands in them."""

from __future__ import annotations

from pathlib import Path

Mark = tuple[int, int, int]


def mark_of(path: Path) -> Mark | None:
    """Return what tells one state of a file from another, ``None`` where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size  # a mode that was mended moves ctime alone
