"""The text of a service account's token: ``tka_<name>_<secret><check>``, how it is made and recognised.

Pure: randomness and secrets are arguments. Secret and check are those of a key's text (``catalog.keys.keytext``), so a
text that was never made here is refused without asking the store. The name says whose it is to whoever finds one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from catalog.keys.keytext import CHECK_CHARACTERS, SECRET_CHARACTERS, KeyText, has_check, with_secret
from catalog.keys.secrets import Secrets

PREFIX: Final = "tka_"
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}"
"""Names of users and service accounts; no ``_``, which parts a token."""
TEXT_PATTERN: Final = f"{PREFIX}{NAME_PATTERN}_[0-9A-Za-z]{{{SECRET_CHARACTERS + CHECK_CHARACTERS}}}"
_TEXT: Final = re.compile(f"{PREFIX}({NAME_PATTERN})_[0-9A-Za-z]{{{SECRET_CHARACTERS + CHECK_CHARACTERS}}}")


class ParsedToken(NamedTuple):
    """A text that one of our MAC keys checked: it was made here."""

    name: str  # of the service account
    text: KeyText


def mint_token(name: str, secrets: Secrets, entropy: Callable[[int], bytes]) -> KeyText:
    """Make a new token for a service account; raises ``ValueError`` where none can have the name."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError("a service account: its name has 1 to 63 of A-Z a-z 0-9 . @ -")
    return with_secret(f"{PREFIX}{name}_", secrets, entropy)


def parse_token(text: str, secrets: Secrets) -> ParsedToken | None:
    """Recognise a token made under any of the MAC keys; None: it is none of ours."""
    form = _TEXT.fullmatch(text)
    if form is None or not has_check(text, secrets):
        return None
    return ParsedToken(form[1], KeyText(text))


def is_token(text: str) -> bool:
    """Whether a text means to be a service account's token."""
    return text.startswith(PREFIX)
