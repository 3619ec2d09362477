"""What ``meter.lua`` finds in an answer, said a second time and plainly: the whole text, byte by byte, no pieces.

The same automaton, without what makes it quick: no text is skipped, nothing is put off, nothing forgotten.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

PARTS = {
    "total": ("total_tokens", "totalTokenCount"),
    "prompt": ("prompt_tokens", "input_tokens", "promptTokenCount", "toolUsePromptTokenCount"),
    "completion": ("completion_tokens", "output_tokens", "candidatesTokenCount"),
    "cached": ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount"),
    "cache_written": ("cache_creation_input_tokens", "cache_write_tokens"),
    "reasoning": ("reasoning_tokens", "thinking_tokens", "thoughtsTokenCount"),
}
_PART_OF = {name: part for part, names in PARTS.items() for name in names}
_NUMBER = re.compile(rb'"([A-Za-z0-9_]+)"\s*:\s*([0-9][0-9.eE+-]*)')
_ANSWERS_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([A-Za-z0-9_-]+)"')
_EVENTS_ID = re.compile(rb'"response"\s*:\s*\{\s*"id"\s*:\s*"([A-Za-z0-9_-]+)"')
_SPACES = b"\t\n\r "
_KEPT_BYTES = 16_384
_KEY_BYTES = 16
_ID_BYTES = 128
_ID_WITHIN = 1_024
_MOST = 2**53

_USAGE = ("usage", "usageMetadata")
_PLACES = {
    ("answer", "{"): "top",
    ("answer", "["): "list",
    ("list", "{"): "top",
    ("top.choices", "["): "choices",
    ("choices", "{"): "choice",
    ("choice.usage", "{"): "usage",
    ("top.meta", "{"): "meta",
    ("meta.tokens", "{"): "usage",
    ("meta.billed_units", "{"): "usage",
    **{(f"top.{name}", "{"): "holder" for name in ("message", "response", "x_groq")},
    **{(f"{place}.{name}", "{"): "usage" for place in ("top", "holder") for name in _USAGE},
}
"""What opens in a place, by the key before it where the place is an object."""


@dataclass
class _Reader:
    """One document."""

    text: bytes
    told: dict[str, int]
    has_meta: bool
    places: list[str] = field(default_factory=list)  # "" for a place in which nothing counts
    key: str | None = None
    usage_at: int = 0

    def read(self) -> None:
        at = 0
        while at < len(self.text):
            match chr(self.text[at]):
                case '"':
                    end = self._string_end(at + 1)
                    self.key = self.text[at + 1 : end].decode("latin-1") if end - at - 1 <= _KEY_BYTES else None
                    at = end
                case "{" | "[" as sign:
                    self._open(at, sign)
                    self.key = None
                case "}" | "]":
                    self._close(at)
                    self.key = None
            at += 1

    def _string_end(self, at: int) -> int:
        while at < len(self.text) and self.text[at] != ord('"'):
            at += 2 if self.text[at] == ord("\\") else 1
        return at

    def _open(self, at: int, sign: str) -> None:
        inside = self.places[-1] if self.places else "answer"
        if inside in {"answer", "list", "choices"}:
            place = _PLACES.get((inside, sign), "")
        else:
            place = _PLACES.get((f"{inside}.{self.key}", sign), "") if inside and self._is_value(at) else ""
        if place == "meta" and not self.has_meta:
            place = ""
        self.places.append(place)
        if place == "usage":
            self.usage_at = at

    def _is_value(self, at: int) -> bool:
        before = self.text[:at].rstrip(_SPACES)
        while re.search(rb"[\r\n]data:$", before):
            before = before[:-6].rstrip(_SPACES)
        return before.endswith(b":") and self.key is not None

    def _close(self, at: int) -> None:
        if self.places and self.places.pop() == "usage" and at - self.usage_at < _KEPT_BYTES:
            note_usage(self.told, self.text[self.usage_at : at + 1])


def note_usage(told: dict[str, int], usage: bytes) -> None:
    """Take up the numbers of one usage object."""
    numbers: dict[str, int] = {}
    for name, written in _NUMBER.findall(re.sub(rb"[\r\n]data:", b" ", usage)):
        try:
            number = float(written)
        except ValueError:
            continue
        if name.decode() in _PART_OF:
            whole = _MOST if number >= _MOST else math.ceil(number)
            numbers[name.decode()] = max(numbers.get(name.decode(), 0), whole)
    found = [(_PART_OF[name], number) for name, number in numbers.items()]
    if "thoughtsTokenCount" in numbers:
        found.append(("completion", numbers.get("candidatesTokenCount", 0) + numbers["thoughtsTokenCount"]))
    if "toolUsePromptTokenCount" in numbers:
        found.append(("prompt", numbers.get("promptTokenCount", 0) + numbers["toolUsePromptTokenCount"]))
    beside = [numbers[name] for name in ("cache_read_input_tokens", "cache_creation_input_tokens") if name in numbers]
    if beside and not numbers.keys() & {"prompt_tokens", "total_tokens"}:
        found.append(("apart", sum(beside)))
    for part, number in found:
        told[part] = max(told.get(part, 0), min(number, _MOST))


def usage_of_json(text: bytes) -> dict[str, int]:
    """What is told of a JSON answer."""
    told: dict[str, int] = {}
    _Reader(text, told, has_meta=True).read()
    return told


def usage_of_events(text: bytes) -> dict[str, int]:
    """What is told of server-sent events."""
    told: dict[str, int] = {}
    counted = 0
    for event in _events(text):
        fields, found, data = event.partition(b"data:")
        if found:
            _Reader(data, told, has_meta=False).read()
            counted += _is_content(fields, data)
    return told | ({"events": counted} if counted else {})


def _events(text: bytes) -> list[bytes]:
    ending = re.search(rb"\r\n|\n|\r(?=.)", text, re.DOTALL)
    return text.split(ending.group() * 2) if ending else [text]


def _is_content(fields: bytes, data: bytes) -> bool:
    name = re.search(rb"event: ?([^\r\n]*)", fields)
    if name and (name[1] == b"ping" or (re.search(rb"[._]", name[1]) and not name[1].endswith(b"delta"))):
        return False
    first = data.removeprefix(b" ")[:1]
    return first not in {b"", b"\r", b"\n", b"["}


def id_of_json(first: bytes) -> str:
    """The id of an answer that begins so, "" where it begins with none; read of its first slice alone."""
    return _id(_ANSWERS_ID.match(first))


def id_of_events(text: bytes) -> str:
    """The id that is told of events which come in one piece: none behind the first with content."""
    for event in _events(text):
        if found := _EVENTS_ID.search(event[:_ID_WITHIN]):
            return _id(found)
        fields, has_data, data = event.partition(b"data:")
        if has_data and _is_content(fields, data):
            break
    return ""


def ids_of_events(text: bytes) -> set[str]:
    """All that may be told, however they are cut: then one may be looked for before it is there."""
    return {"", *(_id(_EVENTS_ID.search(event[:_ID_WITHIN])) for event in _events(text))}


def _id(found: re.Match[bytes] | None) -> str:
    return found[1].decode() if found and len(found[1]) <= _ID_BYTES else ""
