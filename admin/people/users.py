"""The admins a process starts with: the first is made or given his password; who else there is can be told."""

from __future__ import annotations

import secrets
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts.people.users import is_acting_admin, logged_out
from admin.committing import until_settled
from admin.people.passwords import Passwords
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.ids import shard_of
from catalog.records import ALL_TENANTS, Kind, Role, TenantRecord, UserRecord
from catalog.store.store import PAGE, CatalogStore, Conflict

_GENERATED_BYTES: Final = 18  # 144 bits: 24 characters to copy once


async def ensure_admin(store: CatalogStore, passwords: Passwords, *, name: str, password: str | None) -> str | None:
    """Make sure that an admin can log in.

    A given password is the admin's from now on; if it is another than before, their tokens die and what they had begun
    is not finished. Without one, and without any user, a password is made and returned: show it once. Raises
    ``StoreUnavailable``, ``OutcomeUnknown``, ``CorruptRecord`` of the admin whose password is given.
    """
    if password is not None:
        await until_settled(lambda: _set_password(store, passwords, name, password))
        return None
    if await store.ids(Kind.USER, limit=1):
        return None
    made = secrets.token_urlsafe(_GENERATED_BYTES)
    try:
        await _create(store, await passwords.hash(made), name)
    except Conflict:  # another process was first and shows its own
        return None
    return made


async def acting_admins(store: CatalogStore) -> list[UserRecord]:
    """Return the admins who can log in, by name; there are as many users of every tenant as the quota lets be."""
    found: list[UserRecord] = []
    after = ""
    while ids := await store.ids(Kind.USER, after=after, limit=PAGE):
        read = (await store.get_many(Kind.USER, ids)).values()
        found += [one for one in read if isinstance(one, UserRecord) and is_acting_admin(one)]
        after = ids[-1]
    return found


async def _set_password(store: CatalogStore, passwords: Passwords, name: str, password: str) -> None:
    user = await lookups.record(store, Kind.USER, name, UserRecord)
    if user is None:
        await _create(store, await passwords.hash(password), name)
    elif user.service is not None or not await passwords.verify(user.password_hash, password):
        await _change(store, user, await passwords.hash(password))


async def _create(store: CatalogStore, hashed: str, name: str) -> None:
    now_ms = await store.now_ms()
    made = UserRecord(name, hashed, Role.ADMIN, (ALL_TENANTS,), now_ms, now_ms, token_version=now_ms)
    first = [Put(_default_tenant(now_ms), 0)] if await _is_new(store) else []
    await store.commit([Put(made, 0), *first], audit=_audit("user.create", name))


async def _is_new(store: CatalogStore) -> bool:
    """Whether nothing was ever made here: what an admin deleted does not come back."""
    return not (await store.ids(Kind.USER, limit=1) or await store.ids(Kind.TENANT, limit=1))


def _default_tenant(now_ms: int) -> TenantRecord:
    name = lookups.DEFAULT_TENANT
    return TenantRecord(name, shard_of(name), now_ms, now_ms)


async def _change(store: CatalogStore, user: UserRecord, hashed: str) -> None:
    gone = logged_out(user, await store.now_ms())
    changed = structs.replace(gone, password_hash=hashed, service=None)  # given; a person from now on
    await store.commit([Put(changed, user.version)], audit=_audit("user.password", user.id))


def _audit(action: str, name: str) -> Audit:
    return Audit(Recordless.START, action, name, tenant="", request_id="")
