"""Making, changing and rotating service accounts. Pure: secrets, randomness and the store's time are arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from admin.acts.keys import Mint, in_ms
from admin.acts.people import users
from admin.schemas.services import ServiceAccountChange, ServiceAccountInput
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import KeyText
from catalog.keys.servicetext import mint_token
from catalog.records import ServiceAccess, UserRecord


@dataclass(frozen=True, slots=True)
class NewToken:
    """A service account as it is to be stored, and the one token that opens it."""

    record: UserRecord
    text: KeyText


def access_of(account: UserRecord) -> ServiceAccess:
    """What an account proves itself by; raises ``TypeError`` of a person."""
    if account.service is None:
        raise TypeError(f"{account.id} is no service account")
    return account.service


def created(body: ServiceAccountInput, password_hash: str, mint: Mint, now_ms: int) -> NewToken:
    """Make a new account; ``password_hash``: of a password that nobody knows."""
    text = mint_token(body.name, mint.secrets, mint.entropy)
    access = ServiceAccess(hash_key(text, mint.secrets), None, in_ms(body.expires_at), body.description)
    return NewToken(users.created(body, password_hash, now_ms, access), text)


def changed(account: UserRecord, body: ServiceAccountChange, now_ms: int) -> UserRecord:
    """Return an account with what was given."""
    given, access = body.model_fields_set, access_of(account)
    role = body.role if "role" in given else account.role
    return structs.replace(
        account,
        role=role,
        tenants=users.tenants_of(role, body.tenants if "tenants" in given else account.tenants),
        disabled=body.disabled if "disabled" in given else account.disabled,
        updated_at_ms=now_ms,
        service=structs.replace(
            access,
            expires_at_ms=in_ms(body.expires_at) if "expires_at" in given else access.expires_at_ms,
            description=body.description if "description" in given else access.description,
        ),
    )


def rotated(account: UserRecord, mint: Mint, *, grace_ms: int, now_ms: int) -> NewToken:
    """Give an account a new token. The one it had stays accepted for ``grace_ms``; any before that is dead."""
    text, access = mint_token(account.id, mint.secrets, mint.entropy), access_of(account)
    before = structs.replace(access.current, valid_until_ms=now_ms + grace_ms) if grace_ms else None
    service = structs.replace(access, current=hash_key(text, mint.secrets), previous=before)
    return NewToken(structs.replace(account, service=service, updated_at_ms=now_ms), text)


def told(account: UserRecord) -> Mapping[str, str]:
    """An account as the audit stream tells it."""
    access = access_of(account)
    return {
        "role": account.role.value,
        "tenants": " ".join(account.tenants),
        "disabled": str(account.disabled).lower(),
        "expiresAtMs": "never" if access.expires_at_ms is None else str(access.expires_at_ms),
        "description": access.description or "-",
    }
