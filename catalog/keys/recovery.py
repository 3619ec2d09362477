"""Key texts encrypted at rest, only where the operator turned key recovery on.

AES-256-GCM under the recovery key, a random 96-bit nonce, the key's id as associated data: a stored text
cannot be moved to another key's record. Knows no records and no store.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets

_NONCE_BYTES: Final = 12  # NIST SP 800-38D: 96 bits; random nonces are safe for 2^32 texts under one key
_FORMAT: Final = "v1:"  # base64url of nonce and ciphertext with its tag


class RecoveryError(Exception):
    """The stored text is not what was encrypted for this key under this recovery key."""


def encrypt(text: KeyText, key_id: str, secrets: Secrets, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Encrypt the text of the key of this id, for ``KeyRecord.recovery``."""
    nonce = entropy(_NONCE_BYTES)
    sealed = AESGCM(secrets.recovery_key).encrypt(nonce, text.reveal().encode(), key_id.encode())
    return _stored(nonce + sealed)


def decrypt(recovery: str, key_id: str, secrets: Secrets) -> KeyText:
    """Give the text back; raises ``RecoveryError`` when anything of it, the id or the recovery key differs."""
    try:
        sealed = _sealed(recovery)
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return KeyText(AESGCM(secrets.recovery_key).decrypt(nonce, body, key_id.encode()).decode())
    except (InvalidTag, ValueError):
        raise RecoveryError("does not decrypt under this key id and recovery key") from None


def _stored(sealed: bytes) -> str:
    return _FORMAT + base64.urlsafe_b64encode(sealed).decode()


def _sealed(stored: str) -> bytes:
    """Undo ``_stored``; raises ``ValueError`` for any other text, base64 with stray last bits included."""
    sealed = base64.urlsafe_b64decode(stored.removeprefix(_FORMAT))
    if _stored(sealed) != stored:
        raise ValueError("not what is stored")
    return sealed
