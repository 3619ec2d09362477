"""Making and changing users: what is asked for as a record, and the rules that one field alone does not show. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec import structs

from admin.http.problems import Fault, Rule
from admin.quotas import Quotas
from admin.schemas.services import ServiceAccountChange, ServiceAccountInput
from admin.schemas.users import UserChange, UserInput
from catalog.changes import Room
from catalog.records import ALL_TENANTS, Kind, Role, ServiceAccess, UserRecord

RESERVED_NAMES: Final = frozenset({"me"})
"""Words that stand for a user in the API's paths."""


def is_acting_admin(user: UserRecord | None) -> bool:
    """Whether a person can do what an admin may: a service account's token may be lost, and nobody logs in with it."""
    return user is not None and user.role is Role.ADMIN and not user.disabled and user.service is None


def created(
    body: UserInput | ServiceAccountInput, password_hash: str, now_ms: int, service: ServiceAccess | None = None
) -> UserRecord:
    """Make the record of a new user, or of a service account by what it proves itself by."""
    return UserRecord(
        body.name,
        password_hash,
        body.role,
        tenants_of(body.role, body.tenants),
        now_ms,
        now_ms,
        token_version=now_ms,  # above any of a deleted user of this name, whose tokens must not come back to life
        disabled=body.disabled,
        service=service,
    )


def changed(user: UserRecord, body: UserChange, password_hash: str | None, now_ms: int) -> UserRecord:
    """Return a user with what was given. A new password and disabling end his tokens; role and tenants need not."""
    given = body.model_fields_set
    role = body.role if "role" in given else user.role
    disabled = body.disabled if "disabled" in given else user.disabled
    ends_tokens = password_hash is not None or (disabled and not user.disabled)
    return structs.replace(
        user,
        password_hash=password_hash or user.password_hash,
        role=role,
        tenants=tenants_of(role, body.tenants if "tenants" in given else user.tenants),
        disabled=disabled,
        token_version=user.token_version + ends_tokens,
        calls_from=None if ends_tokens else user.calls_from,
        updated_at_ms=now_ms,
    )


def with_password(user: UserRecord, password_hash: str, now_ms: int) -> UserRecord:
    """Return a user with a new password of their own; their tokens end, and what they had begun may be finished."""
    may_finish = user.token_version if user.calls_from is None else user.calls_from
    return structs.replace(logged_out(user, now_ms), password_hash=password_hash, calls_from=may_finish)


def logged_out(user: UserRecord, now_ms: int) -> UserRecord:
    """Return a user none of whose tokens is good any more, not even for calls that were begun."""
    version = user.token_version + 1
    return structs.replace(user, token_version=version, calls_from=None, updated_at_ms=now_ms)


def tenants_of(role: Role, named: Sequence[str]) -> tuple[str, ...]:
    """The tenants of a role as they are stored: an admin has every one."""
    return (ALL_TENANTS,) if role is Role.ADMIN else tuple(sorted(set(named)))


def faults_of_new(body: UserInput, known_tenants: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong with a new user. ``known_tenants``: those named that exist."""
    yield from _name_faults(body.name)
    yield from password_faults(body.password.get_secret_value(), body.name, "password")
    yield from tenants_faults(body.role, body.tenants, known_tenants)


def _name_faults(name: str) -> Iterator[Fault]:
    if name.lower() in RESERVED_NAMES:
        yield Fault("name", Rule.RESERVED, "stands for the user who asks")


def faults_of_change(user: UserRecord, body: UserChange, known_tenants: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong with a change of a user."""
    if "password" in body.model_fields_set:
        yield from password_faults(body.password.get_secret_value(), user.id, "password")
    yield from faults_of_reach(user, body, known_tenants)


def faults_of_service(body: ServiceAccountInput, known_tenants: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong with a new service account."""
    yield from _name_faults(body.name)
    yield from tenants_faults(body.role, body.tenants, known_tenants)


def faults_of_reach(
    user: UserRecord, body: UserChange | ServiceAccountChange, known_tenants: Collection[str]
) -> Iterator[Fault]:
    """Yield what is wrong with a change of role and tenants, of a person or a service account."""
    given = body.model_fields_set
    role = body.role if "role" in given else user.role
    if "tenants" in given or (user.role is Role.ADMIN and role is not Role.ADMIN):
        yield from tenants_faults(role, body.tenants, known_tenants)


def password_faults(password: str, name: str, field: str) -> Iterator[Fault]:
    """Yield what is wrong with a password beside its length."""
    if password.casefold() == name.casefold():
        yield Fault(field, Rule.RESERVED, "must not be the user's name")


def tenants_faults(role: Role, named: Sequence[str], known: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong with the tenants that are named for a role."""
    if role is Role.ADMIN:
        if named not in {(), (ALL_TENANTS,)}:
            yield Fault("tenants", Rule.FIXED, "must be absent: an admin has every tenant")
        return
    if not named:
        yield Fault("tenants", Rule.REQUIRED, "must name a tenant at least, or be * alone")
    for position, name in enumerate(named):
        if name not in known and name != ALL_TENANTS:
            yield Fault(f"tenants[{position}]", Rule.EXISTS, "there is no such tenant")


def rooms(old: UserRecord | None, new: UserRecord, quotas: Quotas) -> list[Room]:
    """What must hold so that no tenant gets more users than it may have."""
    joined = set(new.tenants) - set(old.tenants if old else ())
    return [quotas.room(Kind.USER, tenant) for tenant in sorted(joined)]


def told(user: UserRecord) -> Mapping[str, str]:
    """A user as the audit stream tells him."""
    return {"role": user.role.value, "tenants": " ".join(user.tenants), "disabled": str(user.disabled).lower()}
