"""Secret texts encrypted at rest: AES-256-GCM, a random 96-bit nonce, and what a text belongs to as associated data.

So a stored text cannot be moved to another record. Knows no records, no store, and not what the texts are.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES: Final = 12  # NIST SP 800-38D: 96 bits; random nonces are safe for 2^32 texts under one key
_FORMAT: Final = "v1:"  # base64url of nonce and ciphertext with its tag


class UnsealError(Exception):
    """The stored text is not what was sealed for this owner under this key."""


def seal(text: str, owner: bytes, key: bytes, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Encrypt a text under ``key`` (32 bytes) for what it belongs to."""
    nonce = entropy(_NONCE_BYTES)
    return _stored(nonce + AESGCM(key).encrypt(nonce, text.encode(), owner))


def unseal(stored: str, owner: bytes, key: bytes) -> str:
    """Give a text back; raises ``UnsealError`` when anything of it, its owner or the key differs."""
    try:
        sealed = _sealed(stored)
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, body, owner).decode()
    except (InvalidTag, ValueError):
        raise UnsealError("does not decrypt for this owner under this key") from None


def _stored(sealed: bytes) -> str:
    return _FORMAT + base64.urlsafe_b64encode(sealed).decode()


def _sealed(stored: str) -> bytes:
    """Undo ``_stored``; raises ``ValueError`` for any other text, base64 with stray last bits included."""
    sealed = base64.urlsafe_b64decode(stored.removeprefix(_FORMAT))
    if _stored(sealed) != stored:
        raise ValueError("not what is stored")
    return sealed
