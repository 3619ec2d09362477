"""Users: made, changed and deleted by admins. The last admin who can act stays, whoever meets whom at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import differences
from admin.acts.differences import CHANGED
from admin.acts.people import users
from admin.committing import until_settled
from admin.handlers.discarding import require_admin
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Problem, invalid
from admin.people.users import acting_admins
from admin.schemas.users import UserAccounts, UserChange, UserInput
from admin.views import records as views
from admin.views.listing import listed
from catalog.changes import Audit, Change, Check, Delete, Put
from catalog.damage import CorruptRecord
from catalog.records import Kind, TenantRecord, UserRecord
from catalog.store.store import CatalogStore, NoRoom

_LAST: Final = "there is no other admin who can act: make or enable one first"


async def list_users(call: ApiCall) -> Reply:
    """List users."""
    page = await paging.page(
        call.services.store, Kind.USER, UserRecord, call.query, lambda one: one.service is None, caller=call.caller
    )
    items, damaged = listed(call.services.metrics, page, views.user)
    return Reply(200, UserAccounts(items=items, damaged=damaged, next=page.next))


async def show_user(call: ApiCall) -> Reply:
    """Show a user."""
    found = await lookups.user(call.services.store, call.caller, call.path["u"])
    return Reply(200, views.user(found), tagged(found))


async def create_user(call: ApiCall) -> Reply:
    """Make a user."""
    body = call.body(UserInput)
    known = await known_tenants_of(call, body.tenants)
    if faults := list(users.faults_of_new(body, known)):
        raise invalid(Code.INVALID_REQUEST, faults)
    await require_new(call.services.store, body.name)
    hashed = await call.services.passwords.hash(body.password.get_secret_value())
    made = await until_settled(lambda: _create(call, body, hashed))
    return Reply(201, views.user(made), tagged(made))


async def _create(call: ApiCall, body: UserInput, hashed: str) -> UserRecord:
    await require_new(call.services.store, body.name)
    made = users.created(body, hashed, await call.services.store.now_ms())
    tenants = await known_tenants_of(call, body.tenants)
    if faults := list(users.faults_of_new(body, tenants)):
        raise invalid(Code.INVALID_REQUEST, faults)
    audit = call.audit("user.create", made.id, "", users.told(made))
    await commit_people(
        call, [Put(made, 0), *unchanged(tenants.values()), *users.rooms(None, made, call.services.quotas)], audit
    )
    return made


async def require_new(store: CatalogStore, name: str) -> None:
    """Raise ``Problem`` USER_EXISTS where a user or a service account has the name."""
    known = await lookups.record(store, Kind.USER, name, UserRecord)
    if known is not None and known.service is not None:
        raise Problem(Code.USER_EXISTS, f"there is a service account {name}")
    if known is not None:
        raise Problem(Code.USER_EXISTS, f"there is a user {name}: PATCH /api/users/{name} changes them")


async def change_user(call: ApiCall) -> Reply:
    """Change a user's password, role or tenants, or disable him."""
    body = call.body(UserChange)
    await _require_good(call, await lookups.user(call.services.store, call.caller, call.path["u"]), body)
    hashed = None
    if "password" in body.model_fields_set:
        hashed = await call.services.passwords.hash(body.password.get_secret_value())
    changed = await until_settled(lambda: _change(call, body, hashed))
    return Reply(200, views.user(changed), tagged(changed))


async def _require_good(call: ApiCall, user: UserRecord, body: UserChange) -> Collection[TenantRecord]:
    """Return the tenants that are named; raises ``Problem`` naming every fault."""
    known = await known_tenants_of(call, body.tenants)
    if faults := list(users.faults_of_change(user, body, known)):
        raise invalid(Code.INVALID_REQUEST, faults)
    return known.values()


async def _change(call: ApiCall, body: UserChange, hashed: str | None) -> UserRecord:
    old = await lookups.user(call.services.store, call.caller, call.path["u"])
    call.require_match(old)
    named = await _require_good(call, old, body)
    new = users.changed(old, body, hashed, await call.services.store.now_ms())
    if differences.is_none(old, new):
        return old
    changes: list[Change] = [Put(new, old.version), *unchanged(named), *users.rooms(old, new, call.services.quotas)]
    if users.is_acting_admin(old) and not users.is_acting_admin(new):
        changes += await _remaining_admin(call, old)
    detail = differences.between(users.told(old), users.told(new)) | ({"password": CHANGED} if hashed else {})
    await commit_people(call, changes, call.audit("user.change", new.id, "", detail))
    return structs.replace(new, version=old.version + 1)


async def delete_user(call: ApiCall) -> Reply:
    """Delete a user; his tokens die with him."""
    await until_settled(lambda: _delete(call))
    return Reply(204)


async def _delete(call: ApiCall) -> None:
    try:
        old = await lookups.user(call.services.store, call.caller, call.path["u"])
    except CorruptRecord as damaged:
        await discard(call, damaged)
        return
    call.require_match(old)
    changes: list[Change] = [Delete(Kind.USER, old.id, old.version, old.created_at_ms)]
    if users.is_acting_admin(old):
        changes += await _remaining_admin(call, old)
    await commit_people(call, changes, call.audit("user.delete", old.id, "", users.told(old)))


async def discard(call: ApiCall, damaged: CorruptRecord) -> None:
    """Remove a person or account who cannot be read, hence cannot act: it is not the last admin who can."""
    removal = require_admin(call, damaged, Kind.USER)
    await call.services.committer.commit([removal], call.audit("user.discard", damaged.id, "", {}))


async def _remaining_admin(call: ApiCall, leaving: UserRecord) -> list[Check]:
    """Hold an admin who stays: somebody else where the caller leaves; the caller is held by each of their commits.

    Of two admins who remove each other at once, the second finds that they are none any more.
    """
    if leaving.id != call.caller.user:
        return []
    others = [one for one in await acting_admins(call.services.store) if one.id != leaving.id]
    if not others:
        raise Problem(Code.LAST_ADMIN, _LAST)
    return [Check.of(others[0])]


async def known_tenants_of(call: ApiCall, names: Collection[str]) -> dict[str, TenantRecord]:
    """Return those of the tenants that are there, and the caller's to see."""
    return await lookups.known_tenants(call.services.store, call.caller, names)


def unchanged(tenants: Collection[TenantRecord]) -> list[Check]:
    """Hold tenants as they were read: they are still there at the commit."""
    return [Check.of(one) for one in tenants]


async def commit_people(call: ApiCall, changes: list[Change], audit: Audit) -> None:
    """Commit; raises ``Problem`` QUOTA_REACHED where a tenant has as many as it may have."""
    try:
        await call.services.committer.commit(changes, audit)
    except NoRoom as full:
        raise call.services.quotas.reached(full) from None
