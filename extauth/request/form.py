"""A form's fields (multipart/form-data), by the parser that Starlette's servers use. Pure.

Kept are the values of fields that are no file, as far as they may decide something; of files their number and bytes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # else each bad form that is sent writes a line

FORM_TYPE: Final = "multipart/form-data"
MAX_PARTS: Final = 200
MAX_VALUE_BYTES: Final = 4_096
"""Largest value of a field that is kept; a prompt may be longer and decides nothing."""
MAX_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""

_BOUNDARIES: Final = re.compile(r";[ \t]*boundary[^=;]*=", re.IGNORECASE)
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]*")
"""Of these RFC 2046 has boundaries made, and of spaces; not of "!", which Envoy puts for a byte that is not UTF-8."""
_TWO_READINGS: Final = re.compile(r"[\\%\x00-\x1f\x7f]|^ | $")
"""In a part's name: what one server undoes or cuts off, and the next does not."""
_EMPTY_LINE: Final = b"\r\n\r\n"
_TWO_NAMES: Final = re.compile(r";[ \t]*name\*|;[ \t]*name[ \t]*=.*;[ \t]*name[ \t]*=", re.IGNORECASE)
"""Servers differ in which of these they take, and RFC 7578 (4.2) forbids the extended form."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a form says."""

    fields: Sequence[tuple[str, str]]  # in order, without files; values cut at MAX_VALUE_BYTES
    head_ends: Sequence[int]  # of these: where what their heads say ends, in bytes of the body
    file_names: Sequence[str]  # of the parts that are files
    file_bytes: int


class NoFormError(Exception):
    """It cannot be read as a form; says why in words for the caller."""


def is_form(content_type: str) -> bool:
    """Whether a Content-Type names a form."""
    return content_type.partition(";")[0].strip(" \t").lower() == FORM_TYPE


def read_form(raw: bytes, content_type: str) -> Form:
    """Read a form; raises ``NoFormError``."""
    boundary = _boundary(content_type)
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise NoFormError(f"The form's Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters.")
    collected = _Collected()
    parser = MultipartParser(boundary, collected.callbacks())
    try:
        parser.write(raw)
        parser.finalize()
    except (MultipartParseError, UnicodeError) as error:
        raise NoFormError("The body cannot be read as the form that its Content-Type says it is.") from error
    if not collected.ended:
        raise NoFormError("The form has no end.")
    return Form(collected.fields, collected.head_ends, collected.file_names, collected.file_bytes)


def place_of_field(raw: bytes, content_type: str, name: str) -> tuple[int, int] | None:
    """Where the value of a form's field begins and ends, in bytes; ``None`` where it has none that was kept whole.

    Raises ``NoFormError`` as ``read_form``.
    """
    form = read_form(raw, content_type)
    for (field_name, text), head_end in zip(form.fields, form.head_ends, strict=True):
        value, begin = text.encode(), raw.find(_EMPTY_LINE, head_end) + len(_EMPTY_LINE)
        if field_name == name and raw.startswith(value + b"\r\n--", begin):
            return begin, begin + len(value)
    return None


def _boundary(content_type: str) -> bytes:
    if len(_BOUNDARIES.findall(content_type)) != 1:
        raise NoFormError("The form's Content-Type must name its boundary once.")
    try:
        _, options = parse_options_header(content_type)
    except UnicodeError:  # it is not of a header's characters
        return b""
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise NoFormError("The form's boundary may hold letters, digits and '()+_,-./:=? only.")
    return boundary


@dataclass(slots=True)
class _Collected:
    """What the parser's calls have told so far; raises ``NoFormError`` of a part that could be read in two ways."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    head_ends: list[int] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    file_bytes: int = 0
    ended: bool = False
    _name: str | None = None  # of the part that is read; None: it has none
    _is_file: bool = False
    _value: bytearray = field(default_factory=bytearray)
    _header: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _header_ended: int = 0  # where the last header that has a value did, before its line's end
    _parts: int = 0

    def callbacks(self) -> MultipartCallbacks:
        """What the parser is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": self._take_header_value,
            "on_header_end": self._take_header,
            "on_part_data": self._take_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise NoFormError(f"The form has more than {MAX_PARTS} parts.")
        self._name, self._is_file = None, False
        self._value.clear()

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value.extend(data[start:end])
        self._header_ended = end

    def _take_header(self) -> None:
        header, value = self._header.decode("latin-1").lower(), self._header_value.decode("latin-1")
        self._header.clear()
        self._header_value.clear()
        if header != "content-disposition":
            return
        if self._name is not None:
            raise NoFormError("A part of the form has two Content-Dispositions.")
        if _TWO_NAMES.search(value):
            raise NoFormError("A part of the form has a name that can be read in two ways.")
        _, options = parse_options_header(value)
        self._name = options.get(b"name", b"").decode()
        if _TWO_READINGS.search(self._name):
            raise NoFormError("A part of the form has a name that can be read in two ways.")
        self._is_file = b"filename" in options

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.file_bytes += end - start
        else:
            self._value += data[start : min(end, start + MAX_VALUE_BYTES)]

    def _end(self) -> None:
        if self._is_file:
            self.file_names.append(self._name or "")
        elif self._name:
            self.fields.append((self._name, self._value[:MAX_VALUE_BYTES].decode(errors="replace")))
            self.head_ends.append(self._header_ended)

    def _finish(self) -> None:
        self.ended = True
