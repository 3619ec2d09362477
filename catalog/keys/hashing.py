"""How key texts are stored and compared: HMAC-SHA256 under versioned peppers.

Pure: secrets are arguments. Knows the credential of a record, not where records are kept.

A text's hash is ``HMAC(pepper 1, text)``. A pepper is replaced without the text by wrapping the stored hash,
``HMAC(pepper 2, HMAC(pepper 1, text))``: the credential lists the peppers in the order applied.
HMAC with a pepper is enough and no slow hash is needed, because the text carries 256 random bits.
"""

from __future__ import annotations

import base64
import enum
import hmac

from msgspec import structs

from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets
from catalog.records import Credential


class Match(enum.Enum):
    """What comparing a text with a credential found."""

    YES = "yes"
    NO = "no"
    UNKNOWN_PEPPER = "unknown_pepper"  # our secrets file lacks a pepper of the credential: an operator's fault


def hash_key(text: KeyText, secrets: Secrets) -> Credential:
    """Hash a text that was just minted under the current pepper, without an end of its own."""
    peppers = (secrets.current_pepper,)
    hashed = _encoded(_fold(text.reveal().encode(), peppers, secrets))
    return Credential(hash=hashed, peppers=peppers, mac_key=secrets.current_mac_key)


def compare(credential: Credential, text: KeyText, secrets: Secrets) -> Match:
    """Compare in constant time; looks at no clock, so the caller judges ``valid_until_ms``."""
    if not credential.peppers:
        return Match.UNKNOWN_PEPPER
    try:
        computed = _fold(text.reveal().encode(), credential.peppers, secrets)
    except KeyError:
        return Match.UNKNOWN_PEPPER
    same = hmac.compare_digest(base64.urlsafe_b64encode(computed), credential.hash.encode())
    return Match.YES if same else Match.NO


def matches(credential: Credential, text: KeyText, secrets: Secrets) -> bool:
    """Say whether the text is the credential's; False when it cannot be told (``compare`` says why)."""
    return compare(credential, text, secrets) is Match.YES


def needs_wrap(credential: Credential, secrets: Secrets) -> bool:
    """Say whether the credential's outermost pepper is not the current one."""
    return credential.peppers[-1:] != (secrets.current_pepper,)


def wrap(credential: Credential, secrets: Secrets) -> Credential:
    """Put the credential under the current pepper without its text; one that is there already stays as it is."""
    if not needs_wrap(credential, secrets):
        return credential
    outer = (secrets.current_pepper,)
    wrapped = _fold(base64.urlsafe_b64decode(credential.hash), outer, secrets)
    return structs.replace(credential, hash=_encoded(wrapped), peppers=credential.peppers + outer)


def _fold(value: bytes, peppers: tuple[int, ...], secrets: Secrets) -> bytes:
    for version in peppers:
        value = hmac.digest(secrets.peppers[version], value, "sha256")
    return value


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
