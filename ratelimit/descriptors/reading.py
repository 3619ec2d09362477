"""The text of a file of descriptors as its limits, or all that is wrong with it, by line and field. Pure.

The format is envoyproxy/ratelimit's (its README): a ``domain``, nested ``descriptors`` of ``key`` and perhaps ``value``
(one that ends in ``*`` is a beginning), each perhaps with ``rate_limit`` (``unit``, ``requests_per_unit`` or
``unlimited``, ``name``, ``replaces``) and flags. docs/descriptors.md holds it against the original, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from ratelimit.descriptors.file import ANY, Descriptors, Limit, Node
from ratelimit.windows.budgets import Window

WINDOWS: Final = {
    "second": Window.SECOND,
    "minute": Window.MINUTE,
    "hour": Window.HOUR,
    "day": Window.DAY,
    "week": Window.WEEK,
}
TAKEN: Final = "tollkeeper"
"""The domain in which Envoys of the release before say how calls end (``ratelimit.tokens.stream_done``)."""
MAX_DEPTH: Final = 16
MAX_LISTED: Final = 100_000
"""Most descriptors of a file; aliases of YAML could make many more of a few lines."""
MAX_PER_WINDOW: Final = 2**32 - 1
"""Largest limit: the protocol tells it, and what is left of it, in 32 bits."""
MAX_TOLD: Final = 20
"""Of a file's faults so many are told."""

_DAYS: Final = {"month": 30, "year": 365}
"""How long envoyproxy/ratelimit's units are that are not offered here."""
_FLAGS: Final = ("shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "file": ("domain", "descriptors"),
    "descriptor": ("key", "value", "rate_limit", "descriptors", *_FLAGS),
    "rate_limit": ("unit", "requests_per_unit", "unlimited", "name", "replaces"),
    "replaces": ("name",),
}
_NULL: Final = "tag:yaml.org,2002:null"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n", "null", "~", ""})


class DescriptorsError(ValueError):
    """A file that is not good; says the lines, the fields and the rules."""


def parse(text: str) -> Descriptors:
    """Read a file; raises ``DescriptorsError`` with all that is wrong with it."""
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        if document is None:
            raise DescriptorsError("line 1: the file is empty")
        return _Reader().file(document)
    except yaml.MarkedYAMLError as error:
        raise DescriptorsError(f"{_where(error.problem_mark)}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise DescriptorsError(f"line 1: {error}") from error
    except RecursionError:
        raise DescriptorsError("line 1: the file is nested too deep") from None


class _FaultError(Exception):
    """A part that cannot be read; it has been noted."""


class _Reader:
    """Reads one file, and goes on after a fault so that all of them are told at once."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._warnings: list[str] = []
        self._left = MAX_LISTED

    def file(self, document: yaml.Node) -> Descriptors:
        """The limits of a document."""
        domain, root = "", Node()
        try:
            fields = self._fields(document, "file", "")
            domain = self._domain(fields, document)
            self._add_all(root, fields.get("descriptors"), "", _Path())
        except _FaultError:
            pass
        if self._faults:
            raise DescriptorsError(_told(self._faults))
        return Descriptors(domain, root, tuple(self._warnings))

    def _domain(self, fields: Mapping[str, yaml.Node], around: yaml.Node) -> str:
        node = fields.get("domain")
        domain = self._text(node, "domain")
        if not domain:
            self._note(node or around, "domain", "is missing" if node is None else "must be a text")
        if domain == TAKEN:
            self._note(node or around, "domain", f"{TAKEN!r} is taken by Envoys of the release before: choose another")
        return domain

    def _add_all(self, node: Node, listed: yaml.Node | None, above: str, path: _Path) -> None:
        lines: dict[tuple[str, str | None], int] = {}  # where each stands
        for number, each in enumerate(self._items(listed, f"{above}descriptors")):
            at = f"{above}descriptors[{number}]"
            if path.depth >= MAX_DEPTH:
                self._note(each, at, f"descriptors may be nested {MAX_DEPTH} deep")
                return
            self._left -= 1
            if self._left < 0:
                raise self._fault(each, at, f"a file may have {MAX_LISTED} descriptors")
            try:
                key, value = self._add(node, each, at, path)
            except _FaultError:
                continue
            if key and (key, value) in lines:
                beside = "without a value" if value is None else f"with value {value!r}"
                first = lines[key, value]
                self._note(each, at, f"key {key!r} {beside} stands here twice, first in line {first}")
            lines.setdefault((key, value), _line(each))

    def _add(self, node: Node, each: yaml.Node, at: str, path: _Path) -> tuple[str, str | None]:
        """Take in a descriptor with all below it; its key and value."""
        fields = self._fields(each, "descriptor", f"{at}.")
        key = self._key(fields, each, at)
        value = self._text(fields.get("value"), f"{at}.value") or None
        self._warn_of_hidden(node, each, at, key, value)
        made = node.add(key, value)
        flags = {name: self._truth(fields.get(name), f"{at}.{name}") for name in _FLAGS}
        made.tells_value, made.shares = flags["value_to_metric"], flags["share_threshold"]
        if made.shares and not (value or "").endswith(ANY):
            self._note(fields["share_threshold"], f"{at}.share_threshold", f"needs a value that ends in {ANY}")
        path = path.with_node(made)
        if not _is_null(fields.get("rate_limit")):
            made.limit = self._limit(fields["rate_limit"], f"{at}.rate_limit", flags, path)
        self._add_all(made, fields.get("descriptors"), f"{at}.", path)
        return key, value

    def _key(self, fields: Mapping[str, yaml.Node], around: yaml.Node, at: str) -> str:
        key = self._text(fields.get("key"), f"{at}.key")
        if not key:
            rule = "must be a text" if "key" in fields else "is missing"
            self._note(fields.get("key", around), f"{at}.key", rule)
        if key.endswith(ANY) and _is_null(fields.get("value")):
            rule = f"ends in {ANY}, which only values may: name each key, or write value: 'beginning{ANY}'"
            self._note(fields["key"], f"{at}.key", rule)
        return key

    def _warn_of_hidden(self, node: Node, each: yaml.Node, at: str, key: str, value: str | None) -> None:
        """Say that a beginning before it takes all that this one is for."""
        if value is None or not value.endswith(ANY):
            return
        hiding = next((one for one, _ in node.beginnings.get(key, ()) if value.startswith(one)), None)
        if hiding is not None and len(self._warnings) < MAX_TOLD:
            rule = f"value {value!r} is never met, {hiding + ANY!r} stands before it: the first that fits counts"
            self._warnings.append(f"line {_line(each)}: {at}: {rule}")

    def _limit(self, node: yaml.Node, at: str, flags: Mapping[str, bool], path: _Path) -> Limit | None:
        try:
            fields = self._fields(node, "rate_limit", f"{at}.")
        except _FaultError:
            return None
        name = self._text(fields.get("name"), f"{at}.name")
        replaces = self._replaces(fields.get("replaces"), f"{at}.replaces", name)
        window, per_window = None, 0
        if not self._truth(fields.get("unlimited"), f"{at}.unlimited"):
            window, per_window = self._rate(fields, node, at)
        elif "unit" in fields or "requests_per_unit" in fields:
            self._note(node, f"{at}.unlimited", "has no unit and no requests_per_unit beside it")
        return Limit(
            window,
            per_window,
            name,
            replaces,
            is_shadow=flags["shadow_mode"],
            is_quota=flags["quota_mode"] and not flags["shadow_mode"],
            is_detailed=flags["detailed_metric"],
            tells_values=path.tells_values,
            shares=path.shares,
        )

    def _rate(self, fields: Mapping[str, yaml.Node], around: yaml.Node, at: str) -> tuple[Window | None, int]:
        per_window = self._number(fields.get("requests_per_unit"), around, f"{at}.requests_per_unit")
        node = fields.get("unit")
        unit = self._text(node, f"{at}.unit").lower()
        if node is None:
            self._note(around, f"{at}.unit", "is missing")
        elif unit in _DAYS:
            self._note(node, f"{at}.unit", _instead(unit, per_window))
        elif unit not in WINDOWS:
            self._note(node, f"{at}.unit", f"must be one of {', '.join(WINDOWS)}, not {unit!r}")
        return WINDOWS.get(unit), per_window

    def _replaces(self, listed: yaml.Node | None, at: str, own: str) -> tuple[str, ...]:
        names = []
        for number, each in enumerate(self._items(listed, at)):
            place = f"{at}[{number}]"
            try:
                name = self._text(self._fields(each, "replaces", f"{place}.").get("name"), f"{place}.name")
            except _FaultError:
                continue
            if not name:
                self._note(each, f"{place}.name", "is missing")
            elif name == own:
                self._note(each, place, f"{name!r} cannot replace itself")
            names.append(name)
        return tuple(names)

    # Reading YAML with lines

    def _fields(self, node: yaml.Node, kind: str, above: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._fault(node, above[:-1], f"a {kind} must be a mapping")
        fields: dict[str, yaml.Node] = {}
        for name, value in _own_and_merged(node):
            word = name.value if isinstance(name, yaml.ScalarNode) else "?"
            if word not in _FIELDS[kind]:
                self._note(name, above[:-1], _unknown(kind, word))
            elif word in fields:
                self._note(name, above[:-1], f"{word!r} stands here twice")
            else:
                fields[word] = value
        return fields

    def _items(self, node: yaml.Node | None, at: str) -> Iterator[yaml.Node]:
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self._note(node, at, "must be a list")
            return
        yield from node.value

    def _text(self, node: yaml.Node | None, at: str) -> str:
        """A text; "" where there is none, which YAML also calls null or ~."""
        if node is None or _is_null(node):
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self._note(node, at, "must be a text")
            return ""
        return str(node.value)

    def _truth(self, node: yaml.Node | None, at: str) -> bool:
        text = self._text(node, at).lower()
        if text not in _TRUE and text not in _FALSE and node is not None:
            self._note(node, at, f"must be true or false, not {text!r}")
        return text in _TRUE

    def _number(self, node: yaml.Node | None, around: yaml.Node, at: str) -> int:
        if node is None or _is_null(node):
            self._note(node or around, at, "is missing; envoyproxy/ratelimit takes that for 0: write 0 to refuse all")
            return 0
        text = self._text(node, at)
        number = _number_of(text)
        if number is None or number > MAX_PER_WINDOW:
            self._note(node, at, f"must be a whole number, 0 to {MAX_PER_WINDOW}, not {text!r}")
            return 0
        return number

    def _note(self, node: yaml.Node, at: str, rule: str) -> None:
        self._faults.append(f"line {_line(node)}: {at}: {rule}" if at else f"line {_line(node)}: {rule}")

    def _fault(self, node: yaml.Node, at: str, rule: str) -> _FaultError:
        self._note(node, at, rule)
        return _FaultError()


@dataclass(frozen=True, slots=True)
class _Path:
    """What the descriptors above a limit, and its own, say of all below them."""

    depth: int = 0
    tells_values: bool = False
    shares: bool = False

    def with_node(self, node: Node) -> _Path:
        """The same a level deeper."""
        return _Path(self.depth + 1, self.tells_values or node.tells_value, self.shares or node.shares)


def _told(faults: list[str]) -> str:
    more = len(faults) - MAX_TOLD
    return "; ".join(faults[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")


def _instead(unit: str, per_window: int) -> str:
    """What to write in place of a unit that is not offered."""
    days = _DAYS[unit]
    weekly = max(1, per_window * 7 // days) if per_window else 0
    return (
        f"{unit!r} is not offered, a limit's window is a week at most: "
        f"write unit: week with requests_per_unit: {weekly} (7 of envoyproxy/ratelimit's {days} days)"
    )


def _unknown(kind: str, word: str) -> str:
    homes = [home for home, names in _FIELDS.items() if word in names and home != kind]
    hint = f"; it belongs to a {homes[0]}" if homes else ""
    return f"a {kind} has no field {word!r}{hint}; it has {', '.join(_FIELDS[kind])}"


def _own_and_merged(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """A mapping's fields, and of what ``<<`` brings in those that it does not have itself."""
    own = [(name, value) for name, value in node.value if name.tag != _MERGE]
    yield from own
    known = {name.value for name, _ in own if isinstance(name, yaml.ScalarNode)}
    for name, merged in node.value:
        if name.tag != _MERGE:
            continue
        for one in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            for inner, value in _own_and_merged(one) if isinstance(one, yaml.MappingNode) else ():
                if isinstance(inner, yaml.ScalarNode) and inner.value not in known:
                    known.add(inner.value)
                    yield inner, value


def _number_of(text: str) -> int | None:
    """A number as YAML writes them, but none that begins with 0: that would be one to the base of eight."""
    try:
        return int(text, 0) if text[:1].isdigit() and text.isascii() else None
    except ValueError:
        return None


def _is_null(node: yaml.Node | None) -> bool:
    return node is None or node.tag == _NULL


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}" if mark is not None else "line 1"
