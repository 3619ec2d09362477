"""Ordinary rate-limit descriptors: the limits of a file, and which of them a call meets. Pure.

A call's descriptor meets a limit that stands as deep as it has entries; at each depth the exact value comes first, then
the first beginning of it in the file's order, then the key alone. ``reading.py`` makes all this of a file's text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ratelimit.windows.budgets import Budget, Subject, Window

Entries = tuple[tuple[str, str], ...]
"""A descriptor of a call: (key, value), the outermost first."""

ANY: Final = "*"
"""What a value of the file ends in that is a beginning."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a descriptor that meets it is held to."""

    window: Window | None  # None: unlimited
    per_window: int = 0  # 0: nothing ever passes
    name: str = ""
    replaces: tuple[str, ...] = ()  # names of limits that do not count beside this one
    is_shadow: bool = False  # counts, refuses nobody
    is_quota: bool = False  # the same, and the answer says where a call was above it
    is_detailed: bool = False  # its metric is told for each value by itself
    tells_values: bool = False  # some of its keys tell their values in its metric
    shares: bool = False  # values that have some beginning in common are counted together
    is_brought: bool = False  # by a request, for itself
    refuses_nobody: bool = field(init=False, repr=False, compare=False)
    is_measured: bool = field(init=False, repr=False, compare=False)  # it has a metric of its own
    budgets: tuple[Budget, ...] = field(init=False, repr=False, compare=False)  # what is counted for each value

    def __post_init__(self) -> None:
        """Make the budget that all values share; unlimited, or where nothing ever passes, there is none."""
        window = self.window
        budgets = (Budget(window, self.per_window),) if window is not None and self.per_window else ()
        object.__setattr__(self, "budgets", budgets)
        object.__setattr__(self, "refuses_nobody", self.is_shadow or self.is_quota)
        measured = self.refuses_nobody or self.is_detailed or self.tells_values or self.is_brought
        object.__setattr__(self, "is_measured", measured)


@dataclass(slots=True)
class Node:
    """One key and value of the file, with what stands below."""

    value: str | None = None  # as the file has it; None: any
    limit: Limit | None = None
    below: dict[tuple[str, str | None], Node] = field(default_factory=dict)
    beginnings: dict[str, list[tuple[str, Node]]] = field(default_factory=dict)  # of a key's values, as the file goes
    tells_value: bool = False  # value_to_metric
    shares: bool = False  # share_threshold

    def next(self, key: str, value: str) -> Node | None:
        """What a call's entry leads to."""
        exact = self.below.get((key, value))
        return exact or self._beginning(key, value) or self.below.get((key, None))

    def _beginning(self, key: str, value: str) -> Node | None:
        for beginning, node in self.beginnings.get(key, ()):
            if value.startswith(beginning):
                return node
        return None

    def add(self, key: str, value: str | None) -> Node:
        """Make what a key, with this value or any, leads to."""
        made = self.below[key, value] = Node(value)
        if value is not None and value.endswith(ANY):
            self.beginnings.setdefault(key, []).append((value[:-1], made))
        return made


@dataclass(frozen=True, slots=True)
class Descriptors:
    """A file's limits."""

    domain: str
    root: Node
    warnings: tuple[str, ...] = ()  # what the file says in vain, with the line

    def limit_of(self, entries: Entries) -> Limit | None:
        """The limit that a descriptor meets; ``None``: none."""
        node: Node | None = self.root
        for key, value in entries:
            node = node.next(key, value) if node else None
        return node.limit if node and entries else None

    def counted_as(self, entries: Entries) -> Entries:
        """A descriptor with what stands for those of its values that are counted together with others."""
        walked = self._walk(entries)
        return tuple([(key, _shared(node, value) or value) for key, value, node in walked])

    def label_of(self, entries: Entries, limit: Limit) -> str:
        """How the metric of the limit that a descriptor meets is named: envoyproxy/ratelimit's rules."""
        parts = [self.domain]
        for key, value, node in self._walk(entries):
            told = (_shared(node, value) or value) if limit.is_detailed else _told(node, value)
            parts.append(f"{key}_{told}" if told else key)
        return ".".join(parts)

    def _walk(self, entries: Entries) -> Iterator[tuple[str, str, Node | None]]:
        node: Node | None = self.root
        for key, value in entries:
            node = node.next(key, value) if node else None
            yield key, value, node


def _shared(node: Node | None, value: str) -> str:
    """What is counted instead of a value that a node with share_threshold takes by its beginning; else ""."""
    return node.value or "" if node is not None and node.shares and value != node.value else ""


def _told(node: Node | None, value: str) -> str:
    """What the metric says of a value."""
    if node is None or _shared(node, value):
        return node.value or "" if node is not None else ""
    return value if node.tells_value else node.value or ""


def label_of_brought(domain: str, entries: Entries) -> str:
    """How the metric of limits is named that requests bring along: by their keys only, callers choose the values."""
    return ".".join([domain, *[key for key, _value in entries]])


_quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring


def subject_of(domain: str, entries: Entries, limit: Limit, *, apart: str = "") -> Subject:
    """What is counted for a descriptor: each value of a key has a budget of its own, whatever its text.

    Its name is the hash of ``json.dumps([domain, entries], ensure_ascii=False)``, put together here by hand.
    ``apart``: a further word of the name, for what is counted beside it.
    """
    pairs = ", ".join([f"[{_quoted(key)}, {_quoted(value)}]" for key, value in entries])
    text = f"[{_quoted(domain)}, [{pairs}]]".encode(errors="surrogatepass")
    return Subject(f"d:{hashlib.sha256(text).hexdigest()[:40]}{apart}", limit.budgets, limit.refuses_nobody)


def without_replaced(found: Sequence[Limit | None]) -> Sequence[Limit | None]:
    """The limits of one call less those that another replaces; to be unlimited is never replaced."""
    replaced = {name for limit in found if limit is not None for name in limit.replaces}
    if not replaced:
        return found
    return [None if limit is not None and limit.window and limit.name in replaced else limit for limit in found]
