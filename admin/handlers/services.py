"""Service accounts: made, changed, rotated and deleted by admins. They are users that have a token and never log in."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import differences
from admin.acts.people import services, users
from admin.acts.people.services import NewToken
from admin.committing import until_settled
from admin.handlers.users import commit_people, discard, known_tenants_of, require_new, unchanged
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Problem, invalid
from admin.schemas.schemas import RotateInput
from admin.schemas.services import ServiceAccount, ServiceAccountChange, ServiceAccountInput, ServiceAccounts
from admin.views.listing import listed
from admin.views.services import service_account
from catalog.changes import Delete, Put
from catalog.damage import CorruptRecord
from catalog.keys.keytext import KeyText
from catalog.records import Kind, UserRecord
from catalog.store.store import Conflict

_NO_STORE: Final = {"Cache-Control": "no-store"}
_UNKNOWN_BYTES: Final = 32


async def list_services(call: ApiCall) -> Reply:
    """List service accounts."""
    page = await paging.page(
        call.services.store,
        Kind.USER,
        UserRecord,
        call.query,
        lambda one: one.service is not None,
        caller=call.caller,
    )
    used_ms = await call.services.last_used.read([one.id for one in page.records])
    items, damaged = listed(call.services.metrics, page, lambda one: service_account(one, used_ms))
    return Reply(200, ServiceAccounts(items=items, damaged=damaged, next=page.next), _NO_STORE)


async def show_service(call: ApiCall) -> Reply:
    """Show a service account."""
    account = await _found(call)
    return Reply(200, await _shown(call, account), {**_NO_STORE, **tagged(account)})


async def create_service(call: ApiCall) -> Reply:
    """Make a service account; the answer alone has its whole token."""
    body = call.body(ServiceAccountInput)
    await require_new(call.services.store, body.name)
    # An admin of a release that knows no service accounts asks for a password: this is one that nobody has.
    hashed = await call.services.passwords.hash(secrets.token_urlsafe(_UNKNOWN_BYTES))
    made = await until_settled(lambda: _create(call, body, hashed))
    headers = {**_NO_STORE, **tagged(made.record), "Location": f"/api/service-accounts/{made.record.id}"}
    return Reply(201, await _shown(call, made.record, made.text), headers)


async def _create(call: ApiCall, body: ServiceAccountInput, hashed: str) -> NewToken:
    await require_new(call.services.store, body.name)
    tenants = await known_tenants_of(call, body.tenants)
    if faults := list(users.faults_of_service(body, tenants)):
        raise invalid(Code.INVALID_REQUEST, faults)
    made = services.created(body, hashed, call.services.mint, await call.services.store.now_ms())
    audit = call.audit("service.create", made.record.id, "", services.told(made.record))
    room = users.rooms(None, made.record, call.services.quotas)
    await commit_people(call, [Put(made.record, 0), *unchanged(tenants.values()), *room], audit)
    return made


async def change_service(call: ApiCall) -> Reply:
    """Change a service account."""
    body = call.body(ServiceAccountChange)
    changed = await until_settled(lambda: _change(call, body))
    return Reply(200, await _shown(call, changed), {**_NO_STORE, **tagged(changed)})


async def _change(call: ApiCall, body: ServiceAccountChange) -> UserRecord:
    old = await _found(call)
    call.require_match(old)
    tenants = await known_tenants_of(call, body.tenants)
    if faults := list(users.faults_of_reach(old, body, tenants)):
        raise invalid(Code.INVALID_REQUEST, faults)
    new = services.changed(old, body, await call.services.store.now_ms())
    if differences.is_none(old, new):
        return old
    detail = differences.between(services.told(old), services.told(new))
    room = users.rooms(old, new, call.services.quotas)
    audit = call.audit("service.change", new.id, "", detail)
    await commit_people(call, [Put(new, old.version), *unchanged(tenants.values()), *room], audit)
    return structs.replace(new, version=old.version + 1)


async def rotate_service(call: ApiCall) -> Reply:
    """Give a service account a new token; of two rotations at once one is refused."""
    old = await _found(call)
    call.require_match(old)
    grace_s = call.body(RotateInput).grace_period_seconds if call.raw_body else 0
    now_ms = await call.services.store.now_ms()
    new = services.rotated(old, call.services.mint, grace_ms=grace_s * 1000, now_ms=now_ms)
    audit = call.audit("service.rotate", old.id, "", {"gracePeriodSeconds": str(grace_s)})
    try:
        await commit_people(call, [Put(new.record, old.version)], audit)
    except Conflict:
        code = Code.PRECONDITION_FAILED if call.if_match else Code.CONFLICT
        raise Problem(code, "it was changed by someone else meanwhile; nothing was rotated") from None
    new = dataclasses.replace(new, record=structs.replace(new.record, version=old.version + 1))
    return Reply(200, await _shown(call, new.record, new.text), {**_NO_STORE, **tagged(new.record)})


async def delete_service(call: ApiCall) -> Reply:
    """Delete a service account; its tokens die with it."""
    await until_settled(lambda: _delete(call))
    return Reply(204)


async def _delete(call: ApiCall) -> None:
    try:
        old = await _found(call)
    except CorruptRecord as damaged:  # whether it was a person or an account cannot be told
        await discard(call, damaged)
        return
    call.require_match(old)
    audit = call.audit("service.delete", old.id, "", services.told(old))
    await commit_people(call, [Delete(Kind.USER, old.id, old.version, old.created_at_ms)], audit)


async def _found(call: ApiCall) -> UserRecord:
    return await lookups.service_account(call.services.store, call.caller, call.path["s"])


async def _shown(call: ApiCall, account: UserRecord, text: KeyText | None = None) -> ServiceAccount:
    used: Sequence[str] = [] if text else [account.id]  # nothing that may fail stands before the one whole token
    return service_account(account, await call.services.last_used.read(used), text)
