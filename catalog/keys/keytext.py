"""The text of a key: ``tk_<id>_<secret><check>``, how it is made, recognised and masked.

Pure: randomness and secrets are arguments. Knows no records and no store.

* id: where the record is found, 19 characters (``catalog.ids``);
* secret: 256 bits from the OS, 43 characters of base62;
* check: 48 bits of HMAC-SHA256 over all that stands before it, 9 characters of base62, under a key of its own,
  so that a text that was never minted is refused without asking the store.
"""

from __future__ import annotations

import enum
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, final

from catalog.ids import ID_CHARACTERS, ID_PATTERN, is_id
from catalog.keys.secrets import Secrets

SECRET_BYTES: Final = 32  # 256 bits: beyond guessing, so a plain HMAC of it may be stored
SECRET_CHARACTERS: Final = 43  # 62^43 > 2^256
CHECK_BYTES: Final = 6  # 48 bits: one forged text in 2.8e14 costs a look in the store, and no more
CHECK_CHARACTERS: Final = 9  # 62^9 > 2^48
MASK_CHARACTERS: Final = 6  # of the id: its shard and 15 random bits, enough to tell two keys of a list apart

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # in ASCII order
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
PREFIX: Final = "tk_"
_FORM: Final = re.compile(
    f"{PREFIX}(?P<id>{ID_PATTERN})_"
    f"(?P<secret>[0-9A-Za-z]{{{SECRET_CHARACTERS}}})(?P<check>[0-9A-Za-z]{{{CHECK_CHARACTERS}}})"
)
TEXT_CHARACTERS: Final = len(PREFIX) + ID_CHARACTERS + 1 + SECRET_CHARACTERS + CHECK_CHARACTERS  # 75


@final
class KeyText:
    """A whole key text, which cannot print itself: ``reveal()`` is the only way to see it.

    Neither a ``str`` nor a dataclass, so no log line, f-string, ``asdict``, JSON or pickle takes the text along.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text itself: for hashing, and for the one answer that shows it to its owner."""
        return self._text

    def __repr__(self) -> str:
        """Say that there is a text, not which."""
        return "KeyText(***)"

    def __format__(self, spec: str) -> str:
        """Format as ``repr`` does, so that no f-string shows more."""
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, KeyText):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Hash as ``==`` demands; seeded by the interpreter, so it tells nothing."""
        return hash((KeyText, self._text))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a text never changes."""
        raise AttributeError("a KeyText cannot be changed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: copying and pickling would take the text along."""
        raise TypeError("a KeyText is neither copied nor pickled; reveal() it where it must be shown")


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A text that some of our MAC keys checked: it was minted here."""

    id: str  # where the key's record is found
    text: KeyText


class Malformed(enum.Enum):
    """Why a text is no key of ours. Callers are told neither."""

    FORM = "form"  # wrong length, alphabet or number
    CHECK = "check"  # the form is right, no valid MAC key made its check


def mint(key_id: str, secrets: Secrets, entropy: Callable[[int], bytes]) -> KeyText:
    """Make a new text for the key of this id; ``entropy`` gives that many random bytes (``os.urandom``).

    Raises ``ValueError`` when ``key_id`` is not an id.
    """
    if not is_id(key_id):
        raise ValueError("key id: must be 3 hexadecimal characters and 16 of a-z, 2-7")
    return with_secret(f"{PREFIX}{key_id}_", secrets, entropy)


def with_secret(head: str, secrets: Secrets, entropy: Callable[[int], bytes]) -> KeyText:
    """Put a new secret and its check behind ``head``, which says whose text it is."""
    checked = head + _base62(int.from_bytes(entropy(SECRET_BYTES)), SECRET_CHARACTERS)
    return KeyText(checked + _check(checked, secrets.mac_keys[secrets.current_mac_key]))


def has_check(text: str, secrets: Secrets) -> bool:
    """Whether a text of at least a check's length ends in the check of one of our MAC keys."""
    return _checks(text[:-CHECK_CHARACTERS], text[-CHECK_CHARACTERS:], secrets)


def parse(text: str, secrets: Secrets) -> ParsedKey | Malformed:
    """Recognise a text minted under any of the MAC keys; no other text than the minted one is accepted."""
    form = _FORM.fullmatch(text) if len(text) == TEXT_CHARACTERS else None
    if form is None or form["secret"] > _LARGEST_SECRET:
        return Malformed.FORM
    if not _checks(text[:-CHECK_CHARACTERS], form["check"], secrets):
        return Malformed.CHECK
    return ParsedKey(form["id"], KeyText(text))


def has_form(text: str) -> bool:
    """Whether a text looks like a key, which is all that says which of several headers is meant for us."""
    return len(text) == TEXT_CHARACTERS and text.startswith(PREFIX)


def holds_form(text: str) -> bool:
    """Whether a key's text stands anywhere in this one, whoever minted it."""
    return PREFIX in text and _FORM.search(text) is not None


def mask(key: str | KeyText) -> str:
    """Show which key is meant: the text's own beginning, ``tk_`` and 6 characters of its id, ``tk_0a1q7x…``.

    ``key`` is a key's id or its text; of any other string nothing is shown: ``tk_…``.
    """
    key_id = _id_part(key.reveal()) if isinstance(key, KeyText) else key
    shown = key_id[:MASK_CHARACTERS] if is_id(key_id) else ""
    return f"{PREFIX}{shown}…"


def _id_part(text: str) -> str:
    return text[len(PREFIX) : len(PREFIX) + ID_CHARACTERS]


def _checks(checked: str, check: str, secrets: Secrets) -> bool:
    """Compare with the check of every MAC key, always all of them, each in constant time."""
    verdicts = [hmac.compare_digest(check, _check(checked, key)) for key in secrets.mac_keys.values()]
    return any(verdicts)


def _check(checked: str, mac_key: bytes) -> str:
    mac = hmac.digest(mac_key, checked.encode(), "sha256")[:CHECK_BYTES]
    return _base62(int.from_bytes(mac), CHECK_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    pairs = []
    for _ in range(characters // 2):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    if characters % 2:
        pairs.append(_ALPHABET[number % len(_ALPHABET)])
    pairs.reverse()
    return "".join(pairs)


_LARGEST_SECRET: Final = _base62(2 ** (8 * SECRET_BYTES) - 1, SECRET_CHARACTERS)  # compares as the number does
