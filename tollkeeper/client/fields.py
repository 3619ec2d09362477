"""Options of the command line and the fields of bodies that they give. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}")
_BROKEN: Final = re.compile(r"[+-]?[0-9]{1,30}\.[0-9]{1,30}")
NONE: Final = "none"
"""What takes a limit, or an end, away."""


class Kind(enum.Enum):
    """What an option's words are, and what becomes of them."""

    TEXT = "TEXT"
    NUMBER = "NUMBER"
    LIMIT = "NUMBER|none"  # none: null
    TIME = "TIME|none"  # likewise; the API reads it
    WORDS = "NAME"  # given several times, or parted by commas: a list
    PAIRS = "NAME=VALUE"  # given several times: an object; "" alone is an empty one
    SWITCH = "switch"
    PASSWORD = "FILE"  # noqa: S105  a kind of option: the first line of a file, - is standard input  # nosec B105
    SERVERS = "URL[=WEIGHT]"  # given several times


@dataclass(frozen=True, slots=True)
class Field:
    """One option and the field that it gives."""

    option: str  # --requests-per-minute
    path: tuple[str, ...]  # ("rateLimiting", "requestsPerMinute")
    kind: Kind
    help: str
    required: bool = False

    @property
    def name(self) -> str:
        """The option's name among the values that were given."""
        return named(self.option)

    @property
    def dotted(self) -> str:
        """The field as the API names it in errors."""
        return ".".join(self.path)


def named(option: str) -> str:
    """What click calls an option's value: ``--disabled/--enabled`` is ``disabled``."""
    return option.partition("/")[0].removeprefix("--").replace("-", "_")


class BadOption(ValueError):  # noqa: N818  what it says is the name
    """A word that cannot be what its option takes."""

    def __init__(self, field: Field, rule: str) -> None:
        super().__init__(f"{field.option}: {rule}")


def body_of(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a body together of the options that were given; raises ``BadOption``."""
    body: dict[str, Any] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None or value == ():
            continue
        _put(body, field.path, _read(field, value))
    return body


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one body over another: objects are merged, everything else is replaced."""
    result = dict(base)
    for name, value in more.items():
        before = result.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def options_of(fields: Sequence[Field]) -> dict[str, str]:
    """By the API's name of a field: the option that gives it."""
    return {field.dotted: field.option for field in fields}


def _put(body: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *outer, last = path
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value


def _read(field: Field, value: Any) -> object:
    if field.kind in _CAN_BE_NONE and value == NONE:
        return None
    read = _READERS.get(field.kind)
    return value if read is None else read(field, value)


def _number(field: Field, text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BROKEN.fullmatch(text):  # the API says what is wrong with it
        return float(text)
    raise BadOption(field, f"must be a number{', or none' if field.kind is Kind.LIMIT else ''}, not {text!r}")


def _pair(field: Field, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise BadOption(field, f"must be NAME=VALUE, not {text!r}")
    return name, value


def _server(field: Field, text: str) -> dict[str, object]:
    url, sign, weight = text.rpartition("=")
    if not sign or not weight.isdecimal():
        return {"url": text}
    return {"url": url, "weight": _number(field, weight)}


def _words(_field: Field, given: Sequence[str]) -> list[str]:
    return [word for words in given for word in words.split(",") if word]


_CAN_BE_NONE: Final = frozenset({Kind.LIMIT, Kind.TIME})
_READERS: Final[Mapping[Kind, Callable[[Field, Any], object]]] = {
    Kind.NUMBER: _number,
    Kind.LIMIT: _number,
    Kind.WORDS: _words,
    Kind.PAIRS: lambda field, given: dict(_pair(field, pair) for pair in given if pair or len(given) > 1),
    Kind.SERVERS: lambda field, given: [_server(field, server) for server in given],
}
