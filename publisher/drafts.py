"""Files that others read while they are replaced: whole at every moment, after a crash of the machine too."""

from __future__ import annotations

import os
from pathlib import Path


def draft(path: Path, text: str) -> Path:
    """Write what is to stand at ``path`` into a hidden file beside it, and have the disk keep it; nobody reads that."""
    hidden = path.with_name(f".{path.name}")
    with hidden.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return hidden


def text_of(path: Path) -> str | None:
    """What a file says, whatever bytes it has; None where there is none. Raises ``OSError``."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
