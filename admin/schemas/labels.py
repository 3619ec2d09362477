"""Labels of keys and the selectors that find them, by Kubernetes' rules. Pure.

A label's key is a name of 63 characters at most, perhaps behind a DNS name and a slash; its value is such a name or
empty. A selector is requirements joined by commas, all of which must hold: ``team=red``, ``team!=red``,
``team in (red, blue)``, ``team notin (red)``, ``team``, ``!team``. ``!=`` and ``notin`` hold also where there is no
such label, as Kubernetes has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from admin.models.places import HOST_PATTERN, MAX_HOST

MAX_LABELS: Final = 64  # of a key
MAX_LABEL: Final = 63
MAX_SELECTOR: Final = 1_000  # characters
MAX_REQUIREMENTS: Final = 32  # of a selector

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_NAME: Final = re.compile(HOST_PATTERN)
_TOKEN: Final = re.compile(r"\s*(?:([A-Za-z0-9._/-]+)|(!=|==|[=!(),]))\s*")
_VALUE_RULE: Final = f"must be empty, or 1 to {MAX_LABEL} letters, digits and . _ - , these not at an end"
_KEY_RULE: Final = f"must be 1 to {MAX_LABEL} letters, digits and . _ - , these not at an end, perhaps behind HOST/"


def key_fault(key: str) -> str | None:
    """Say what is wrong with a label's key; ``None`` when nothing is."""
    prefix, slash, name = key.rpartition("/")
    is_good = _NAME.fullmatch(name) and (not slash or _is_dns_name(prefix))
    return None if is_good else _KEY_RULE


def value_fault(value: str) -> str | None:
    """Say what is wrong with a label's value; ``None`` when nothing is."""
    return None if not value or _NAME.fullmatch(value) else _VALUE_RULE


def _is_dns_name(prefix: str) -> bool:
    return len(prefix) <= MAX_HOST and _DNS_NAME.fullmatch(prefix) is not None


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one label must be."""

    key: str
    values: frozenset[str] | None  # None: whatever it is
    is_wanted: bool  # False: none of them, or no such label

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels are so."""
        has = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return has is self.is_wanted


Selector = tuple[Requirement, ...]


def holds(selector: Selector, labels: Mapping[str, str] | None) -> bool:
    """Whether labels are as a selector asks; one that asks nothing takes all."""
    return all(one.holds(labels or {}) for one in selector)


def parse_selector(text: str) -> Selector:
    """Read a selector; raises ``ValueError`` with the rule that it breaks and where, never with what stands there."""
    if len(text) > MAX_SELECTOR:
        raise ValueError(f"must have at most {MAX_SELECTOR} characters")
    if not text.strip():
        return ()
    found = tuple(_Reader(tuple(_tokens(text))).requirements())
    if len(found) > MAX_REQUIREMENTS:
        raise ValueError(f"must be at most {MAX_REQUIREMENTS} requirements")
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    """A word or a sign."""

    text: str  # empty: the end
    where: str  # "at character 1"


_END: Final = _Token("", "at the end")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"character {at + 1} cannot stand there")
        group = 1 if found[1] else 2
        yield _Token(found[group], f"at character {found.start(group) + 1}")
        at = found.end()


_SIGNS: Final = frozenset({"=", "==", "!=", "!", "(", ")", ",", ""})


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def requirements(self) -> Iterator[Requirement]:
        """Yield each."""
        yield self._requirement()
        while self._next().text:
            self._expect(",")
            yield self._requirement()

    def _next(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _take(self) -> _Token:
        token = self._next()
        self._at += 1
        return token

    def _expect(self, sign: str) -> None:
        token = self._take()
        if token.text != sign:
            raise ValueError(f"expected {sign} {token.where}")

    def _requirement(self) -> Requirement:
        if self._next().text == "!":
            self._take()
            return Requirement(self._key(), None, is_wanted=False)
        key = self._key()
        if self._next().text in {"", ","}:
            return Requirement(key, None, is_wanted=True)
        token = self._take()
        match token.text:
            case "=" | "==":
                return Requirement(key, frozenset({self._value()}), is_wanted=True)
            case "!=":
                return Requirement(key, frozenset({self._value()}), is_wanted=False)
            case "in" | "notin" as word:
                return Requirement(key, self._values(), is_wanted=word == "in")
        raise ValueError(f"expected =, ==, !=, in or notin {token.where}")

    def _key(self) -> str:
        token = self._take()
        if token.text in _SIGNS:
            raise ValueError(f"expected a label's key {token.where}")
        if fault := key_fault(token.text):
            raise ValueError(f"a label's key {fault} ({token.where})")
        return token.text

    def _value(self) -> str:
        """A value, which may be empty: ``team=`` asks for the empty one."""
        token = self._next()
        value = "" if token.text in _SIGNS else self._take().text
        if fault := value_fault(value):
            raise ValueError(f"a label's value {fault} ({token.where})")
        return value

    def _values(self) -> frozenset[str]:
        self._expect("(")
        found = {self._value()}
        while self._next().text == ",":
            self._take()
            found.add(self._value())
        self._expect(")")
        return frozenset(found)
