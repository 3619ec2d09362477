"""Making, changing and rotating keys. Pure: secrets, randomness and the store's time are arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import structs

from admin.acts import limits
from admin.schemas.keys import KeyChange, KeyInput
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import KeyText, mint
from catalog.keys.recovery import encrypt
from catalog.keys.secrets import Secrets
from catalog.records import UNLIMITED, Credential, KeyRecord, PublicationRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Mint:
    """What key texts are made with."""

    current: Callable[[], Secrets]  # the secrets in force
    entropy: Entropy
    recovery: bool  # keep the text, encrypted

    @property
    def secrets(self) -> Secrets:
        """The secrets in force."""
        return self.current()

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


def made(body: KeyInput, tenant: str, publications: tuple[str, ...], mint: Mint, now_ms: int) -> NewText:
    """Make a further key of a tenant, for these publications (uids)."""
    key_id = mint.new_id(shard_of(tenant))
    text = mint.text(key_id)
    record = KeyRecord(
        id=key_id,
        tenant=tenant,
        name=body.name,
        publications=publications,
        current=hash_key(text, mint.secrets),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        expires_at_ms=in_ms(body.expires_at),
        limits=limits.merged(UNLIMITED, body.rate_limiting),
        recovery=mint.sealed(text, key_id),
        description=body.description or None,
        owner=body.owner or None,
        labels=body.labels or None,
    )
    return NewText(record, text)


def changed(key: KeyRecord, body: KeyChange, publications: tuple[str, ...] | None, now_ms: int) -> KeyRecord:
    """Return a key with what the body says; everything else is kept. ``publications``: uids, where they were given."""
    given = body.model_fields_set
    return structs.replace(
        key,
        name=body.name if "name" in given else key.name,
        publications=key.publications if publications is None else publications,
        limits=limits.merged(key.limits, body.rate_limiting),
        expires_at_ms=in_ms(body.expires_at) if "expires_at" in given else key.expires_at_ms,
        disabled=body.disabled if "disabled" in given else key.disabled,
        description=(body.description or None) if "description" in given else key.description,
        owner=(body.owner or None) if "owner" in given else key.owner,
        labels=(body.labels or None) if "labels" in given else key.labels,
        updated_at_ms=now_ms,
    )


def in_ms(time: datetime | None) -> int | None:
    """A time as it is stored: milliseconds since the epoch."""
    return None if time is None else (time - _EPOCH) // timedelta(milliseconds=1)


def rotated(key: KeyRecord, mint: Mint, *, grace_ms: int, now_ms: int) -> NewText:
    """Give a key a new text. The one it had stays accepted for ``grace_ms``; any text before that is dead."""
    text = mint.text(key.id)
    record = structs.replace(
        key,
        current=hash_key(text, mint.secrets),
        previous=_in_grace(key.current, now_ms + grace_ms) if grace_ms else None,
        updated_at_ms=now_ms,
        recovery=mint.sealed(text, key.id),
    )
    return NewText(record, text)


def _in_grace(credential: Credential, until_ms: int) -> Credential:
    return structs.replace(credential, valid_until_ms=until_ms)
