"""Ordinary rate-limit descriptors: a file of limits, and which of them a call meets. Pure.

The format is envoyproxy/ratelimit's (its README): a ``domain``, nested ``descriptors`` of ``key`` and perhaps ``value``
(one that ends in ``*`` is a beginning), each perhaps with ``rate_limit`` (``unit``, ``requests_per_unit`` or
``unlimited``, ``name``, ``replaces``) and ``shadow_mode``. A call's descriptor meets a limit that stands as deep as it
has entries; at each depth the exact value comes first, then a beginning of it (the longest), then the key alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from ratelimit.windows.budgets import Budget, Subject, Window

Entries = tuple[tuple[str, str], ...]
"""A descriptor of a call: (key, value), the outermost first."""

WINDOWS: Final = {"second": Window.SECOND, "minute": Window.MINUTE, "hour": Window.HOUR, "day": Window.DAY}
MAX_DEPTH: Final = 16
MAX_PER_WINDOW: Final = 10**9
"""Largest limit: the protocol tells it, and what is left of it, in 32 bits."""
_FIELDS: Final = {
    "file": ("domain", "descriptors"),
    "descriptor": ("key", "value", "rate_limit", "shadow_mode", "descriptors", "detailed_metric"),
    "rate_limit": ("unit", "requests_per_unit", "unlimited", "name", "replaces"),
    "replaces": ("name",),
}
_ANY: Final = "*"


class DescriptorsError(ValueError):
    """A file that is not good; says the line and the rule."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a descriptor that meets it is held to."""

    window: Window | None  # None: unlimited
    per_window: int = 0  # 0: nothing ever passes
    name: str = ""
    replaces: tuple[str, ...] = ()  # names of limits that do not count beside this one
    is_shadow: bool = False  # counts, refuses nobody
    budgets: tuple[Budget, ...] = field(init=False, repr=False, compare=False)  # what is counted for each value

    def __post_init__(self) -> None:
        """Make the budget that all values share; unlimited, or where nothing ever passes, there is none."""
        window = self.window
        budgets = (Budget(window, self.per_window),) if window is not None and self.per_window else ()
        object.__setattr__(self, "budgets", budgets)


@dataclass(slots=True)
class Node:
    """One key and value of the file, with what stands below."""

    limit: Limit | None = None
    below: dict[tuple[str, str | None], Node] = field(default_factory=dict)  # None: any value
    beginnings: dict[str, list[tuple[str, Node]]] = field(default_factory=dict)  # of a key's values, the longest first

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
        made = self.below[key, value] = Node()
        if value is not None and value.endswith(_ANY):
            beginnings = self.beginnings.setdefault(key, [])
            beginnings.append((value[:-1], made))
            beginnings.sort(key=lambda one: -len(one[0]))
        return made


@dataclass(frozen=True, slots=True)
class Descriptors:
    """A file's limits."""

    domain: str
    root: Node

    def limit_of(self, entries: Entries) -> Limit | None:
        """The limit that a descriptor meets; ``None``: none."""
        node: Node | None = self.root
        for key, value in entries:
            node = node.next(key, value) if node else None
        return node.limit if node and entries else None


_quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring


def subject_of(domain: str, entries: Entries, limit: Limit) -> Subject:
    """What is counted for a descriptor: each value of a key has a budget of its own, whatever its text.

    Its name is the hash of ``json.dumps([domain, entries], ensure_ascii=False)``, put together here by hand.
    """
    pairs = ", ".join([f"[{_quoted(key)}, {_quoted(value)}]" for key, value in entries])
    text = f"[{_quoted(domain)}, [{pairs}]]".encode(errors="surrogatepass")
    return Subject(f"d:{hashlib.sha256(text).hexdigest()[:40]}", limit.budgets, limit.is_shadow)


def parse(text: str) -> Descriptors:
    """Read a file; raises ``DescriptorsError`` with the line and what is wrong with it."""
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise DescriptorsError(f"{_where(error.problem_mark)}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise DescriptorsError(f"line 1: {error}") from error
    if document is None:
        raise DescriptorsError("line 1: the file is empty")
    fields = _fields(document, "file")
    domain = _text(fields.get("domain"), document, "domain")
    root = Node()
    _add_all(root, fields.get("descriptors"), depth=1)
    return Descriptors(domain, root)


def _add_all(node: Node, listed: yaml.Node | None, depth: int) -> None:
    for each in _items(listed, "descriptors"):
        fields = _fields(each, "descriptor")
        key = _text(fields.get("key"), each, "key")
        value = _text(fields["value"], each, "value") if "value" in fields else None
        if (key, value) in node.below:
            raise _fault(each, f"key {key!r} with value {value!r} stands here twice")
        if depth > MAX_DEPTH:
            raise _fault(each, f"descriptors may be nested {MAX_DEPTH} deep")
        made = node.add(key, value)
        is_shadow = _truth(fields.get("shadow_mode"), "shadow_mode")
        if "rate_limit" in fields:
            made.limit = _limit(fields["rate_limit"], is_shadow=is_shadow)
        _add_all(made, fields.get("descriptors"), depth + 1)


def _limit(node: yaml.Node, *, is_shadow: bool) -> Limit:
    fields = _fields(node, "rate_limit")
    name = _text(fields["name"], node, "name") if "name" in fields else ""
    replaces = tuple(_replaced(each, name) for each in _items(fields.get("replaces"), "replaces"))
    if _truth(fields.get("unlimited"), "unlimited"):
        if "unit" in fields or "requests_per_unit" in fields:
            raise _fault(node, "unlimited: has no unit and no requests_per_unit beside it")
        return Limit(None, name=name, replaces=replaces, is_shadow=is_shadow)
    unit = _text(fields.get("unit"), node, "unit").lower()
    if unit not in WINDOWS:
        raise _fault(fields["unit"], f"unit: must be one of {', '.join(WINDOWS)}, not {unit!r}")
    return Limit(WINDOWS[unit], _number(fields.get("requests_per_unit"), node), name, replaces, is_shadow)


def _replaced(node: yaml.Node, own: str) -> str:
    name = _text(_fields(node, "replaces").get("name"), node, "name")
    if name == own:
        raise _fault(node, f"replaces: {name!r} cannot replace itself")
    return name


# Reading YAML with lines


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}" if mark is not None else "line 1"


def _fault(node: yaml.Node, rule: str) -> DescriptorsError:
    return DescriptorsError(f"{_where(node.start_mark)}: {rule}")


def _fields(node: yaml.Node, kind: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _fault(node, f"a {kind} must be a mapping")
    fields: dict[str, yaml.Node] = {}
    for name, value in node.value:
        if name.value not in _FIELDS[kind]:
            raise _fault(name, f"a {kind} has no field {name.value!r}; it has {', '.join(_FIELDS[kind])}")
        if name.value in fields:
            raise _fault(name, f"{name.value!r} stands here twice")
        fields[name.value] = value
    return fields


def _items(node: yaml.Node | None, name: str) -> Iterator[yaml.Node]:
    if node is None:
        return
    if not isinstance(node, yaml.SequenceNode):
        raise _fault(node, f"{name}: must be a list")
    yield from node.value


def _text(node: yaml.Node | None, around: yaml.Node, name: str) -> str:
    if node is None:
        raise _fault(around, f"{name}: is missing")
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _fault(node, f"{name}: must be a text")
    return str(node.value)


def _truth(node: yaml.Node | None, name: str) -> bool:
    if node is None:
        return False
    if not isinstance(node, yaml.ScalarNode) or node.value not in {"true", "false"}:
        raise _fault(node, f"{name}: must be true or false")
    return bool(node.value == "true")


def _number(node: yaml.Node | None, around: yaml.Node) -> int:
    text = _text(node, around, "requests_per_unit")
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PER_WINDOW):
        raise _fault(node or around, f"requests_per_unit: must be a whole number, 0 to {MAX_PER_WINDOW}, not {text!r}")
    return int(text)


def limits_met(file: Descriptors | None, descriptors: Sequence[Entries]) -> list[Limit | None]:
    """Which limit each descriptor of one call meets, less those that another replaces."""
    if file is None:
        return [None] * len(descriptors)
    found = [file.limit_of(entries) for entries in descriptors]
    replaced = {name for limit in found if limit is not None for name in limit.replaces}
    return [None if limit is not None and limit.name in replaced else limit for limit in found] if replaced else found
