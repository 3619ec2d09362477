"""The text of a file of descriptors as its limits, or all that is wrong with it, by line and field. Pure.

The format is envoyproxy/ratelimit's (its README): a ``domain``, nested ``descriptors`` of ``key`` and perhaps ``value``
(one that ends in ``*`` is a beginning), each perhaps with ``rate_limit`` (``unit``, ``requests_per_unit`` or
``unlimited``, ``name``, ``replaces``) and flags. docs/descriptors.md holds it against the original, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import yaml

from ratelimit.descriptors.fields import FLAGS, FaultError, Fields, is_null, line_of
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
MAX_COMPARED: Final = 1_000
"""With so many of a key's beginnings another is compared, to warn where one of them hides it."""
MAX_TOLD: Final = 20
"""Of a file's faults so many are told."""

_DAYS: Final = {"month": 30, "year": 365}
"""How long envoyproxy/ratelimit's units are that are not offered here."""


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


class _Reader(Fields):
    """Reads one file."""

    def __init__(self) -> None:
        super().__init__()
        self._warnings: list[str] = []
        self._left = MAX_LISTED

    def file(self, document: yaml.Node) -> Descriptors:
        """The limits of a document."""
        domain, root = "", Node()
        try:
            fields = self.fields(document, "file", "")
            domain = self._domain(fields, document)
            self._add_all(root, fields.get("descriptors"), "", _Path())
        except FaultError:
            pass
        if self.faults:
            raise DescriptorsError(_told(self.faults))
        return Descriptors(domain, root, tuple(self._warnings))

    def _domain(self, fields: Mapping[str, yaml.Node], around: yaml.Node) -> str:
        node = fields.get("domain")
        domain = self.text(node, "domain")
        if not domain:
            self.note(node or around, "domain", "is missing" if node is None else "must be a text")
        if domain == TAKEN:
            self.note(node or around, "domain", f"{TAKEN!r} is taken by Envoys of the release before: choose another")
        return domain

    def _add_all(self, node: Node, listed: yaml.Node | None, above: str, path: _Path) -> None:
        lines: dict[tuple[str, str | None], int] = {}  # where each stands
        for number, each in enumerate(self.items(listed, f"{above}descriptors")):
            at = f"{above}descriptors[{number}]"
            if path.depth >= MAX_DEPTH:
                self.note(each, at, f"descriptors may be nested {MAX_DEPTH} deep")
                return
            self._left -= 1
            if self._left < 0:
                raise self.fault(each, at, f"a file may have {MAX_LISTED} descriptors")
            try:
                key, value = self._add(node, each, at, path)
            except FaultError:
                continue
            if key and (key, value) in lines:
                beside = "without a value" if value is None else f"with value {value!r}"
                first = lines[key, value]
                self.note(each, at, f"key {key!r} {beside} stands here twice, first in line {first}")
            lines.setdefault((key, value), line_of(each))

    def _add(self, node: Node, each: yaml.Node, at: str, path: _Path) -> tuple[str, str | None]:
        """Take in a descriptor with all below it; its key and value."""
        fields = self.fields(each, "descriptor", f"{at}.")
        key = self._key(fields, each, at)
        value = self.text(fields.get("value"), f"{at}.value") or None
        self._warn_of_hidden(node, each, at, key, value)
        made = node.add(key, value)
        flags = {name: self.truth(fields.get(name), f"{at}.{name}") for name in FLAGS}
        made.tells_value, made.shares = flags["value_to_metric"], flags["share_threshold"]
        if made.shares and not (value or "").endswith(ANY):
            self.note(fields["share_threshold"], f"{at}.share_threshold", f"needs a value that ends in {ANY}")
        path = path.with_node(made)
        if not is_null(fields.get("rate_limit")):
            made.limit = self._limit(fields["rate_limit"], f"{at}.rate_limit", flags, path)
        self._add_all(made, fields.get("descriptors"), f"{at}.", path)
        return key, value

    def _key(self, fields: Mapping[str, yaml.Node], around: yaml.Node, at: str) -> str:
        key = self.text(fields.get("key"), f"{at}.key")
        if not key:
            rule = "must be a text" if "key" in fields else "is missing"
            self.note(fields.get("key", around), f"{at}.key", rule)
        if key.endswith(ANY) and is_null(fields.get("value")):
            rule = f"ends in {ANY}, which only values may: name each key, or write value: 'beginning{ANY}'"
            self.note(fields["key"], f"{at}.key", rule)
        return key

    def _warn_of_hidden(self, node: Node, each: yaml.Node, at: str, key: str, value: str | None) -> None:
        """Say that a beginning before it takes all that this one is for."""
        if value is None or not value.endswith(ANY):
            return
        before = islice(node.beginnings.get(key, ()), MAX_COMPARED)
        hiding = next((one for one, _ in before if value.startswith(one)), None)
        if hiding is not None and len(self._warnings) < MAX_TOLD:
            rule = f"value {value!r} is never met, {hiding + ANY!r} stands before it: the first that fits counts"
            self._warnings.append(f"line {line_of(each)}: {at}: {rule}")

    def _limit(self, node: yaml.Node, at: str, flags: Mapping[str, bool], path: _Path) -> Limit | None:
        try:
            fields = self.fields(node, "rate_limit", f"{at}.")
        except FaultError:
            return None
        name = self.text(fields.get("name"), f"{at}.name")
        replaces = self._replaces(fields.get("replaces"), f"{at}.replaces", name)
        window, per_window = None, 0
        if not self.truth(fields.get("unlimited"), f"{at}.unlimited"):
            window, per_window = self._rate(fields, node, at)
        elif "unit" in fields or "requests_per_unit" in fields:
            self.note(node, f"{at}.unlimited", "has no unit and no requests_per_unit beside it")
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
        per_window = self.number(fields.get("requests_per_unit"), around, f"{at}.requests_per_unit")
        node = fields.get("unit")
        unit = self.text(node, f"{at}.unit").lower()
        if node is None:
            self.note(around, f"{at}.unit", "is missing")
        elif unit in _DAYS:
            self.note(node, f"{at}.unit", _instead(unit, per_window))
        elif unit not in WINDOWS:
            self.note(node, f"{at}.unit", f"must be one of {', '.join(WINDOWS)}, not {unit!r}")
        return WINDOWS.get(unit), per_window

    def _replaces(self, listed: yaml.Node | None, at: str, own: str) -> tuple[str, ...]:
        names = []
        for number, each in enumerate(self.items(listed, at)):
            place = f"{at}[{number}]"
            try:
                name = self.text(self.fields(each, "replaces", f"{place}.").get("name"), f"{place}.name")
            except FaultError:
                continue
            if not name:
                self.note(each, f"{place}.name", "is missing")
            elif name == own:
                self.note(each, place, f"{name!r} cannot replace itself")
            names.append(name)
        return tuple(names)


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


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}" if mark is not None else "line 1"
