"""Key texts encrypted at rest, only where the operator turned key recovery on.

Sealed under the recovery key for the key's id. Knows no records and no store.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from catalog.keys.keytext import KeyText
from catalog.keys.sealing import UnsealError, seal, unseal
from catalog.keys.secrets import Secrets


class RecoveryError(Exception):
    """The stored text is not what was encrypted for this key under this recovery key."""


def encrypt(text: KeyText, key_id: str, secrets: Secrets, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Encrypt the text of the key of this id, for ``KeyRecord.recovery``."""
    return seal(text.reveal(), key_id.encode(), secrets.recovery_key, entropy)


def decrypt(recovery: str, key_id: str, secrets: Secrets) -> KeyText:
    """Give the text back; raises ``RecoveryError`` when anything of it, the id or the recovery key differs."""
    try:
        return KeyText(unseal(recovery, key_id.encode(), secrets.recovery_key))
    except UnsealError:
        raise RecoveryError("does not decrypt under this key id and recovery key") from None
