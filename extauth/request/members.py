"""A JSON object's members one level deep: each name, its value's own text, and which names stand there twice. Pure.

Most bodies are read by msgspec, which looks through a value without making anything of it (some 2 ns a byte) but keeps
the last of two equal names silently; that none that decides is doubled is proved by the length of the text, by a count,
or by a walk along it. What msgspec refuses and many servers read (``NaN``, half of a surrogate pair) is read by the
standard library: some 30 times as slowly, so up to ``SLOW_BYTES`` only.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]  # C's, not in the stubs
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

MAX_MEMBERS: Final = 1_000
"""Most names of one object; a walk along so many takes under a millisecond."""
SLOW_BYTES: Final = 1024 * 1024
"""Largest body that is read by the standard library: up to 50 ms, in which nothing else is decided."""

ALTERED: Final = "!"
"""What Envoy writes in place of a byte that is not UTF-8 where it hands a body over as text."""

_BOM: Final = b"\xef\xbb\xbf"
_FAST: Final = msgspec.json.Decoder(dict[str, Raw])
_NAME: Final = rb'[ \t\n\r]*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\n\r]*+:[ \t\n\r]*+'
_FIRST: Final = re.compile(rb"[ \t\n\r]*+\{" + _NAME, re.DOTALL)
_NEXT: Final = re.compile(rb"[ \t\n\r]*+," + _NAME, re.DOTALL)
_END: Final = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*")
_EMPTY: Final = re.compile(rb"[ \t\n\r]*\{[ \t\n\r]*\}[ \t\n\r]*")
_SPACE: Final = re.compile(r"[ \t\n\r]*")


MAX_SHAPES: Final = 1_024
"""Sets of names of which it is kept what they say; beyond it all is found out anew."""
MAX_SHAPE: Final = 32
"""Most names of such a set,"""
MAX_SHAPE_CHARACTERS: Final = 1_000
"""and most characters of these."""


class Shape(NamedTuple):
    """What the names of an object say of it, whatever it says by them: those of most bodies are the same few."""

    length: int  # of the object without its values: names, quotation marks, colons, commas and braces
    needles: tuple[bytes, ...]  # its names that decide, as they stand in its text
    is_plain: bool  # none of the others is one that decides in other letters, or holds what Envoy puts for a byte


class Members(NamedTuple):
    """What an object names, and what it names twice."""

    values: Mapping[str, Raw]  # of a doubled name the last
    shape: Shape
    doubled: frozenset[str] = frozenset()


class UnreadableError(Exception):
    """It is no JSON object, or none that is read here; says why in words for the caller."""


def members(raw: bytes, deciding: frozenset[str], slow_bytes: int = SLOW_BYTES) -> Members:
    """Read an object in UTF-8; raises ``UnreadableError``.

    ``deciding``: the names of which it must be known whether they stand there twice; plain letters.
    ``slow_bytes``: up to so many it is read by the standard library where it must be.
    Nothing is said of what stands in its values but that they are JSON, with ``NaN`` and the infinities.
    """
    text = raw.removeprefix(_BOM)
    if not text.isascii():
        _hold_to_utf8(text)
    try:
        values = _FAST.decode(text)
    except msgspec.ValidationError as error:
        raise UnreadableError("The body must be a JSON object.") from error
    except RecursionError as deep:
        raise UnreadableError("The body is nested too deeply to be read.") from deep
    except msgspec.DecodeError as fault:
        return _slowly(text, fault, deciding, slow_bytes)
    if len(values) > MAX_MEMBERS:
        raise UnreadableError(f"The body has more than {MAX_MEMBERS} names.")
    shape = shape_of(values, deciding)
    if _is_compact(text, values, shape) or _stand_once(text, shape) or _is_plain(text, values):
        return Members(values, shape)
    return _slowly(text, None, deciding, slow_bytes)


def _hold_to_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"The body must be encoded in UTF-8; byte {error.start} of it cannot be.") from error


def shape_of(values: Mapping[str, Raw], deciding: frozenset[str]) -> Shape:
    """What these names say, where such of them decide."""
    names, known = tuple(values), _SHAPES[deciding]
    shape = known.get(names)
    if shape is None:
        shape = _shape_of(names, deciding)
        if len(names) <= MAX_SHAPE and shape.length <= MAX_SHAPE_CHARACTERS:
            if len(known) >= MAX_SHAPES:
                known.clear()
            known[names] = shape
    return shape


_SHAPES: Final = defaultdict[frozenset[str], dict[tuple[str, ...], Shape]](dict)
"""By which names decide: a few sets, all of them named in code."""


def _shape_of(names: tuple[str, ...], deciding: frozenset[str]) -> Shape:
    odd = any(name not in deciding and (name.casefold() in deciding or ALTERED in name) for name in names)
    needles = tuple([b'"%s"' % name.encode() for name in names if name in deciding])
    return Shape(4 * len(names) + 1 + sum(map(len, names)), needles, not odd)


def _is_compact(text: bytes, values: Mapping[str, Raw], shape: Shape) -> bool:
    """Whether the members, each once and without a space between them, are as long as the text.

    Spaces, escapes in names and members that msgspec has dropped make the text longer, and nothing makes it shorter.
    """
    return len(text) == shape.length + sum(map(len, values.values()))


def _stand_once(text: bytes, shape: Shape) -> bool:
    """Whether none of the names that decide stands anywhere in the text a second time, at whatever depth.

    A letter may be written by its number, so a text in which any character is tells nothing.
    """
    if b"\\" in text and rb"\u" in text:  # one byte is found sooner than two
        return False
    for needle in shape.needles:  # noqa: SIM110  a generator takes as long as all the counts
        if text.count(needle) != 1:
            return False
    return True


def _is_plain(text: bytes, values: Mapping[str, Raw]) -> bool:
    """Whether the text is these members in this order, each once.

    Each step begins where a member does. The value there begins as the one that msgspec kept for that name; of two JSON
    values at one place none is the beginning of the other but for numbers, and what follows a number is looked at.
    """
    at, step = 0, _FIRST
    for name, value in values.items():
        named = step.match(text, at)
        if named is None or _name(named[1]) != name or not text.startswith(value, named.end()):
            return False
        at, step = named.end() + len(value), _NEXT
    found = (_END if values else _EMPTY).match(text, at)
    return found is not None and found.end() == len(text)


def place_of_member(raw: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a member begins and ends, in bytes, of an object that ``members`` reads and that has it once.

    ``None`` where it has none of this name. Raises ``UnreadableError``. By the standard library no more is looked for
    than ``members`` has read by it.
    """
    text = raw.removeprefix(_BOM)
    before = len(raw) - len(text)
    values = members(text, frozenset((name,))).values
    if name not in values:
        return None
    place = _walked(text, values, name) or _needled(text, values[name], name) or _slowly_found(text, name)
    return place and (before + place[0], before + place[1])


def _needled(text: bytes, value: Raw, name: str) -> tuple[int, int] | None:
    """As ``_stand_once`` counts: a name that is nowhere else in the text is the member's own."""
    shape = _shape_of((name,), frozenset((name,)))
    if not _stand_once(text, shape):
        return None
    (needle,) = shape.needles
    colon = text.index(b":", text.index(needle) + len(needle))
    begin = text.index(value, colon + 1)
    return begin, begin + len(value)


def _walked(text: bytes, values: Mapping[str, Raw], wanted: str) -> tuple[int, int] | None:
    """As ``_is_plain`` goes, up to one of the members; ``None`` where its way ends before."""
    at, step = 0, _FIRST
    for name, value in values.items():
        named = step.match(text, at)
        if named is None or _name(named[1]) != name or not text.startswith(value, named.end()):
            return None
        at, step = named.end() + len(value), _NEXT
        if name == wanted:
            return named.end(), at
    return None


def _slowly_found(text: bytes, wanted: str) -> tuple[int, int] | None:
    """By the standard library, of what names something else twice or is not quite JSON."""
    if len(text) > SLOW_BYTES:
        return None
    written = text.decode()
    for name, begin, end in _spans(written):
        if name == wanted:
            before = len(written[:begin].encode())
            return before, before + len(written[begin:end].encode())
    return None


def _name(literal: bytes) -> str:
    if b"\\" not in literal:
        return literal.decode()
    return str(json.loads(b'"%s"' % literal))


def _slowly(text: bytes, error: msgspec.DecodeError | None, deciding: frozenset[str], slow_bytes: int) -> Members:
    """Read it by the standard library, member by member; ``error``: why msgspec did not, None of a doubled name."""
    if len(text) > slow_bytes:
        what = "cannot be read as JSON" if error else "names something twice"
        rule = f"one above {slow_bytes} bytes may hold no NaN, no half of a surrogate pair and no name twice"
        raise UnreadableError(f"The body {what}; {rule}.")
    try:
        pairs = list(_pairs(text.decode()))
    except RecursionError as deep:
        raise UnreadableError("The body is nested too deeply to be read.") from deep
    except ValueError as fault:
        where = f": {fault.msg} (character {fault.pos})" if isinstance(fault, json.JSONDecodeError) else ""
        raise UnreadableError(f"The body cannot be read as JSON{where}.") from fault
    counted = Counter(name for name, _ in pairs)
    values = dict(pairs)
    return Members(values, shape_of(values, deciding), frozenset(name for name, times in counted.items() if times > 1))


_SCANNER: Final = json.JSONDecoder(parse_int=float)
"""Its numbers are not looked at; ``int`` would refuse more than 4,300 digits."""


def _pairs(text: str) -> Iterator[tuple[str, Raw]]:
    """An object's members, each as it is written; raises as ``_spans``."""
    return ((name, Raw(text[begin:end].encode())) for name, begin, end in _spans(text))


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Walk along an object's members, each with where its value stands; raises ``ValueError`` where it is none."""
    at = _expect(text, 0, "{")
    if text.startswith("}", at):
        _expect_end(text, at + 1)
        return
    for _ in range(MAX_MEMBERS):
        name, at = scanstring(text, _expect(text, at, '"'), True)
        begin = _expect(text, at, ":")
        _, end = _SCANNER.raw_decode(text, begin)
        yield name, begin, end
        at = _skip(text, end)
        if text.startswith("}", at):
            _expect_end(text, at + 1)
            return
        at = _expect(text, at, ",")
    raise UnreadableError(f"The body has more than {MAX_MEMBERS} names.")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, mark: str) -> int:
    """Where it goes on after a mark; after that of a string at once, else behind the space."""
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, at)
    return at + 1 if mark == '"' else _skip(text, at + 1)


def _expect_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
