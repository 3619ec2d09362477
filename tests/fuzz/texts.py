"""Odd texts and odd bytes, from a seeded source of chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ODD: Final = (
    "\0",
    "\n",
    "\r",
    "\t",
    " ",
    ",",
    "\u200b",
    "\ufeff",
    "\u0130",
    "\uff41",
    "é",
    "😀",
    "%",
    '"',
    "\x7f",
    "_",
)
MAX_TEXT: Final = 100_000


def odd_text(rng: random.Random) -> str:
    """Any text at all."""
    kind = rng.randrange(5)
    if kind == 0:
        return ""
    if kind == 1:
        return "".join(rng.choices(ALPHABET, k=rng.randrange(90)))
    if kind == 2:
        return "".join(rng.choices(ODD, k=rng.randrange(1, 30)))
    if kind == 3:
        return "".join(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))) for _ in range(20))
    return rng.choice(ALPHABET) * rng.choice((75, 76, 255, 4096, MAX_TEXT))


def _replace(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(ALPHABET) + text[at + 1 :]


def _swap_case(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice((text.swapcase(), text.upper(), text[:at] + text[at : at + 1].swapcase() + text[at + 1 :]))


def _insert(rng: random.Random, text: str) -> str:
    at = rng.choice((0, len(text), rng.randrange(len(text) + 1)))
    return text[:at] + rng.choice(ODD) + text[at:]


def _cut(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice((text[:at], text[at:], text[:at] + text[at + 1 :]))


def _prefix(rng: random.Random, text: str) -> str:
    return rng.choice(("tk-", "TK_", "tk", "", "sk_", "tk__", "Tk_")) + text[3:]


def _double(rng: random.Random, text: str) -> str:
    return rng.choice((text + text, f"{text},{text}", f"{text} {text}", text * 1_300, text[::-1]))


def _disguise(rng: random.Random, text: str) -> str:
    return rng.choice((f'"{text}"', f"%74{text[1:]}", f"Bearer {text}", text.replace("_", "-"), f"{text}="))


def _digits(rng: random.Random, text: str) -> str:
    return text[:23] + "".join(rng.choices(ALPHABET, k=max(0, len(text) - 23)))


_TWISTS: Final[Sequence[Callable[[random.Random, str], str]]] = (
    _replace, _swap_case, _insert, _cut, _prefix, _double, _disguise, _digits,
)  # fmt: skip


def twisted(rng: random.Random, text: str) -> str:
    """A text near to this one; now and then the very same."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(_TWISTS)(rng, text)[:MAX_TEXT]
    return text


def crossed(rng: random.Random, one: str, other: str) -> str:
    """The beginning of one text with the end of another: an id with a foreign secret, a secret with a foreign check."""
    at = rng.choice((22, 23, 66, rng.randrange(len(one) + 1)))
    return one[:at] + other[at:]


def mutated(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Bytes near to these."""
    bent = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(bent) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(bent):
            bent[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            bent[at : at + 1] = rng.randbytes(1)
        elif kind == 2:
            bent[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        elif kind == 3:
            del bent[at : at + rng.choice((1, 2, 16))]
        elif kind == 4:
            bent[at:] = other[at:] if other else bent[at:] * 2
        else:
            bent[at:at] = bent[at : at + 16]
    return bytes(bent)
