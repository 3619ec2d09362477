"""Whether a key text is good for anything now, and until when. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catalog.keys.hashing import matches
from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets
from catalog.records import Credential, KeyRecord, PublicationRecord, TenantRecord


@dataclass(frozen=True, slots=True)
class Accepted:
    """A text that is accepted now."""

    until_ms: int | None  # when it stops being accepted; None: it has no end of its own


def accepted(key: KeyRecord, text: KeyText, secrets: Secrets, now_ms: int) -> Accepted | None:
    """Say whether the text is one of the key's and still in force."""
    for credential in _credentials(key):
        if matches(credential, text, secrets):
            ends = [end for end in (credential.valid_until_ms, key.expires_at_ms) if end is not None]
            in_force = not key.disabled and all(now_ms < end for end in ends)
            return Accepted(min(ends, default=None)) if in_force else None
    return None


def _credentials(key: KeyRecord) -> Iterator[Credential]:
    yield key.current
    if key.previous is not None:
        yield key.previous


def may_call(tenant: TenantRecord | None, publication: PublicationRecord | None) -> bool:
    """Say whether a key of this tenant is let through to this publication."""
    if tenant is None or tenant.disabled or publication is None:
        return False
    return tenant.id in publication.allowed_tenants
