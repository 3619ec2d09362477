"""The few forms of protobuf's wire format that an answer is put together from. Pure.

A message is its fields one after another, and messages that are concatenated are merged ("Encoding: last one wins",
protobuf.dev). So an answer is made of pieces that were encoded once and of the call's own numbers between them. The
numbers of the fields stand in ``protos/external_auth.proto`` and its like; that what is made here is what protobuf
would make is a test's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_SHORT: Final = 128
"""Lengths below it take one byte, seven bits each byte more."""
_LENGTH_DELIMITED: Final = 2
_MOST_LENGTHS: Final = 1_024

OVERWRITE: Final = b"\x18\x02"
"""HeaderValueOption.append_action = OVERWRITE_IF_EXISTS_OR_ADD: what ends every header."""


def varint(number: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    if number < _SHORT:
        return bytes((number,))
    parts = []
    while number >= _SHORT:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes((*parts, number))


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A field of a whole number that is not negative."""
    return varint(number << 3) + varint(value)


def header(number: int, name: bytes, value: bytes) -> bytes:
    """A field that holds a header which replaces one of its name: a HeaderValueOption."""
    return field(number, field(1, field(1, name) + field(2, value)) + OVERWRITE)


def text_entry(number: int, name: bytes, value: bytes) -> bytes:
    """A field that holds one text of a Struct: an entry of its map."""
    return field(number, field(1, name) + field(2, field(3, value)))


class Slot:
    """A piece of an answer around a value that changes: all that stands before it, by the value's length.

    The lengths of what a value stands in depend on its own, so what was made for a length is kept.
    """

    __slots__ = ("_before", "_ending", "_make")

    def __init__(self, make: Callable[[bytes], bytes], ending: bytes = b"") -> None:
        """``make``: the whole piece of a value, which ends with ``ending``."""
        self._make = make
        self._ending = ending
        self._before: dict[int, bytes] = {}

    def of(self, value: bytes) -> bytes:
        """The piece with this value."""
        before = self._before.get(len(value))
        return (self._prepared(len(value)) if before is None else before) + value + self._ending

    def _prepared(self, length: int) -> bytes:
        whole = self._make(b"0" * length)
        before = whole[: len(whole) - length - len(self._ending)]
        if len(self._before) < _MOST_LENGTHS:
            self._before[length] = before
        return before


def header_slot(number: int, name: bytes, ending: bytes = b"") -> Slot:
    """A header whose value changes; ``ending``: what follows it: ``b"s"`` of seconds."""
    return Slot(lambda value: header(number, name, value + ending), ending + OVERWRITE)
