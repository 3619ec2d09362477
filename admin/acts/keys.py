"""Making and rotating the key of a publication. Pure: secrets, randomness and the store's time are arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from catalog.hashing import hash_key
from catalog.ids import new_id
from catalog.keytext import KeyText, mint
from catalog.records import Credential, KeyRecord, PublicationRecord
from catalog.recovery import encrypt
from catalog.secrets import Secrets

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Mint:
    """What key texts are made with."""

    secrets: Secrets
    entropy: Entropy
    recovery: bool  # keep the text, encrypted

    def new_id(self, shard: int) -> str:
        """Make an id in a tenant's shard."""
        return new_id(shard, self.entropy)

    def text(self, key_id: str) -> KeyText:
        """Make a new text for a key."""
        return mint(key_id, self.secrets, self.entropy)

    def sealed(self, text: KeyText, key_id: str) -> str | None:
        """The text as it is stored for recovery; ``None`` where recovery is off."""
        return encrypt(text, key_id, self.secrets, self.entropy) if self.recovery else None


@dataclass(frozen=True, slots=True)
class NewText:
    """A key as it is to be stored, and the one text that opens it."""

    record: KeyRecord
    text: KeyText


def publication_key(publication: PublicationRecord, mint: Mint) -> NewText:
    """Make the key that a publication is born with."""
    text = mint.text(publication.key_id)
    record = KeyRecord(
        id=publication.key_id,
        tenant=publication.tenant,
        name=publication.model,
        publications=(publication.uid,),
        current=hash_key(text, mint.secrets),
        created_at_ms=publication.created_at_ms,
        updated_at_ms=publication.created_at_ms,
        recovery=mint.sealed(text, publication.key_id),
    )
    return NewText(record, text)


def rotated(key: KeyRecord, mint: Mint, *, grace_ms: int, now_ms: int) -> NewText:
    """Give a key a new text. The one it had stays accepted for ``grace_ms``; any text before that is dead."""
    text = mint.text(key.id)
    record = dataclasses.replace(
        key,
        current=hash_key(text, mint.secrets),
        previous=_in_grace(key.current, now_ms + grace_ms) if grace_ms else None,
        updated_at_ms=now_ms,
        recovery=mint.sealed(text, key.id),
    )
    return NewText(record, text)


def _in_grace(credential: Credential, until_ms: int) -> Credential:
    return dataclasses.replace(credential, valid_until_ms=until_ms)
