"""Columns of a list: where each value stands in an item, and what it is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Column:
    """A column of a list: where its value stands, and its title."""

    def __init__(self, path: str, title: str = "") -> None:
        self.path = path
        self.title = title or titled(path.rpartition(".")[2])

    def value(self, item: Mapping[str, Any]) -> Any:
        """Return what stands there; None where nothing does."""
        found: Any = item
        for name in self.path.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return found


def titled(name: str) -> str:
    """Make a title of a field's name: ``requestsPerMinute`` is ``REQUESTS PER MINUTE``."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in name)
    return words.upper().replace(" U R L", " URL").strip()
