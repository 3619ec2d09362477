"""The value of a header that a model's servers want, encrypted at rest.

Sealed under a key made of the recovery key, for the model, the header and the very origins that are to get it: whoever
can write the store, and has no secrets file, can send it to no other server. Knows no store.
"""

from __future__ import annotations

import json
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from catalog.keys.keytext import KeyText
from catalog.keys.sealing import seal, unseal
from catalog.keys.secrets import SECRET_BYTES, Secrets
from catalog.records import ModelRecord, PublicationRecord, UpstreamAuth, servers_of

_PURPOSE: Final = b"tollkeeper upstreamAuth"  # HKDF's info (RFC 5869): no other text is sealed under this key


def owner_of(record: ModelRecord | PublicationRecord, header: str) -> bytes:
    """What a value belongs to: the same of a model and of its publication."""
    model = record.model if isinstance(record, PublicationRecord) else record.name
    origins = sorted(one.url for one in servers_of(record))
    return json.dumps([record.tenant, model, header, origins]).encode()


def sealed(value: KeyText, header: str, record: ModelRecord | PublicationRecord, secrets: Secrets) -> UpstreamAuth:
    """Encrypt a value for the servers of a record, as the record is."""
    return UpstreamAuth(header, seal(value.reveal(), owner_of(record, header), _key(secrets)))


def unsealed(stored: str, owner: bytes, secrets: Secrets) -> KeyText:
    """Give a value back; raises ``UnsealError`` where it was sealed for others, or by another secrets file."""
    return KeyText(unseal(stored, owner, _key(secrets)))


def _key(secrets: Secrets) -> bytes:
    return HKDF(hashes.SHA256(), SECRET_BYTES, salt=None, info=_PURPOSE).derive(secrets.recovery_key)
