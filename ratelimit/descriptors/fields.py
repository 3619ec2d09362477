"""YAML's nodes as the fields of a file of descriptors, each fault noted with its line and place. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import yaml

MAX_PER_WINDOW: Final = 2**32 - 1
"""Largest limit: the protocol tells it, and what is left of it, in 32 bits."""
MAX_MERGED: Final = 1_000_000
"""Most fields that ``<<`` brings into a file's mappings; aliases of YAML could make many more of a few lines."""

FLAGS: Final = ("shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "file": ("domain", "descriptors"),
    "descriptor": ("key", "value", "rate_limit", "descriptors", *FLAGS),
    "rate_limit": ("unit", "requests_per_unit", "unlimited", "name", "replaces"),
    "replaces": ("name",),
}
_NULL: Final = "tag:yaml.org,2002:null"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n", "null", "~", ""})


class FaultError(Exception):
    """A part that cannot be read; it has been noted."""


class Fields:
    """Reads nodes, and goes on after a fault so that all of them are told at once."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._merged_left = MAX_MERGED

    def fields(self, node: yaml.Node, kind: str, above: str) -> dict[str, yaml.Node]:
        """The fields of a mapping of a kind; raises ``FaultError`` where it is none."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, above[:-1], f"a {kind} must be a mapping")
        fields: dict[str, yaml.Node] = {}
        for name, value in self._own_and_merged(node):
            word = name.value if isinstance(name, yaml.ScalarNode) else "?"
            if word not in _FIELDS[kind]:
                self.note(name, above[:-1], _unknown(kind, word))
            elif word in fields:
                self.note(name, above[:-1], f"{word!r} stands here twice")
            else:
                fields[word] = value
        return fields

    def items(self, node: yaml.Node | None, at: str) -> Iterator[yaml.Node]:
        """What stands in a list; of nothing, nothing."""
        if node is None or is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self.note(node, at, "must be a list")
            return
        yield from node.value

    def text(self, node: yaml.Node | None, at: str) -> str:
        """A text; "" where there is none, which YAML also calls null or ~."""
        if node is None or is_null(node):
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self.note(node, at, "must be a text")
            return ""
        return str(node.value)

    def truth(self, node: yaml.Node | None, at: str) -> bool:
        """True or false; false where there is none."""
        text = self.text(node, at).lower()
        if text not in _TRUE and text not in _FALSE and node is not None:
            self.note(node, at, f"must be true or false, not {text!r}")
        return text in _TRUE

    def number(self, node: yaml.Node | None, around: yaml.Node, at: str) -> int:
        """A limit; 0 where it is none."""
        if node is None or is_null(node):
            self.note(node or around, at, "is missing; envoyproxy/ratelimit takes that for 0: write 0 to refuse all")
            return 0
        text = self.text(node, at)
        number = _number_of(text)
        if number is None or number > MAX_PER_WINDOW:
            self.note(node, at, f"must be a whole number, 0 to {MAX_PER_WINDOW}, not {text!r}")
            return 0
        return number

    def note(self, node: yaml.Node, at: str, rule: str) -> None:
        """Say what is wrong with a node."""
        self.faults.append(f"line {line_of(node)}: {at}: {rule}" if at else f"line {line_of(node)}: {rule}")

    def fault(self, node: yaml.Node, at: str, rule: str) -> FaultError:
        """Say it, and return what to raise where nothing can be read on."""
        self.note(node, at, rule)
        return FaultError()

    def _own_and_merged(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """A mapping's fields, and of what ``<<`` brings in those that it does not have itself."""
        own = [(name, value) for name, value in node.value if name.tag != _MERGE]
        yield from own
        known = {name.value for name, _ in own if isinstance(name, yaml.ScalarNode)}
        for name, merged in node.value:
            if name.tag != _MERGE:
                continue
            for one in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
                for inner, value in self._own_and_merged(one) if isinstance(one, yaml.MappingNode) else ():
                    self._merged_left -= 1
                    if self._merged_left < 0:
                        raise self.fault(node, "", f"a file may bring {MAX_MERGED} fields into mappings by <<")
                    if isinstance(inner, yaml.ScalarNode) and inner.value not in known:
                        known.add(inner.value)
                        yield inner, value


def _unknown(kind: str, word: str) -> str:
    homes = [home for home, names in _FIELDS.items() if word in names and home != kind]
    hint = f"; it belongs to a {homes[0]}" if homes else ""
    return f"a {kind} has no field {word!r}{hint}; it has {', '.join(_FIELDS[kind])}"


def _number_of(text: str) -> int | None:
    """A number as YAML writes them, but none that begins with 0: that would be one to the base of eight."""
    try:
        return int(text, 0) if text[:1].isdigit() and text.isascii() else None
    except ValueError:
        return None


def is_null(node: yaml.Node | None) -> bool:
    """Whether there is no value."""
    return node is None or node.tag == _NULL


def line_of(node: yaml.Node) -> int:
    """Where a node begins."""
    return int(node.start_mark.line) + 1
