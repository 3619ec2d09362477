"""Keys: made, shown, changed, rotated and revoked. The ones that publications are born with are among them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from admin import lookups
from admin.acts import cells, differences, warnings
from admin.acts.keys import NewText, changed, in_ms, made
from admin.acts.tenants import is_of
from admin.committing import until_settled
from admin.handlers.discarding import discard_key, require_admin
from admin.handlers.rotation import rotate
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.models import naming
from admin.models.cells import tenants_known
from admin.schemas import labels
from admin.schemas.keys import DeletedKeys, KeyChange, KeyInput, Keys
from admin.schemas.schemas import WarningAnswer
from admin.views.keys import reveal, show, show_deleted, show_page, shown_new
from catalog.actors import told
from catalog.changes import Bury, Change, Check, Delete, Put
from catalog.damage import CorruptRecord
from catalog.keys.keytext import mask
from catalog.records import KeyRecord, Kind, PublicationRecord, Role, TenantRecord
from catalog.store.store import NoRoom
from catalog.tombstones import deleted_at_ms, tombstone
from ratelimit.names import usage_key

_NO_STORE: Final = {"Cache-Control": "no-store"}
_PLACE: Final = re.compile(r"[0-9]{13}:[0-9a-z]{19}")
_BORN_WITH: Final = "must name the publication that the key was born with"
_REVOKE: Final = "rotate it, disable it with PATCH, or unpublish the model"


async def list_keys(call: ApiCall) -> Reply:
    """List the caller's keys."""
    owner, named, name = call.query.get("tenantId"), call.query.get("model"), call.query.get("name")
    selector = _selector(call.query.get("labelSelector", ""))
    published = None if named is None else await _named_by(call, named)
    page = await paging.page(
        call.services.store,
        Kind.KEY,
        KeyRecord,
        call.query,
        lambda one: (
            call.caller.sees(one.tenant)
            and owner in {None, one.tenant}
            and (published is None or published.uid in one.publications)
            and name in {None, one.name}
            and labels.holds(selector, one.labels)
        ),
        caller=call.caller,
        beneath=_beneath(call, owner, published),
    )
    items, damaged = await show_page(call.services, page, with_usage=paging.asks_usage(call.query))
    return Reply(200, Keys(items=items, damaged=damaged, next=page.next), _NO_STORE)


async def list_deleted_keys(call: ApiCall) -> Reply:
    """List what stays of a tenant's deleted keys, the newest first."""
    store, limit, before = call.services.store, paging.limit_of(call.query), call.query.get("cursor", "")
    if before and not _PLACE.fullmatch(before):
        raise paging.bad_cursor()
    named = call.query.get("tenantId") or await lookups.usual_tenant(store, call.caller)
    if named is None:
        raise invalid(Code.INVALID_REQUEST, [Fault("tenantId", Rule.REQUIRED, "is required: there are several")])
    tenant = await lookups.tenant(store, call.caller, named)
    read = await store.tombstones(tenant.id, before=before, limit=limit)
    if call.caller.role is not Role.ADMIN:  # of what is older nobody else is told, nor that it is there
        read = [(place, stone) for place, stone in read if is_of(tenant, deleted_at_ms(place))]
    stones = [stone for _, stone in read if stone is not None]
    items = await show_deleted(call.services, stones, with_usage=paging.asks_usage(call.query))
    following = read[-1][0] if len(read) == limit else None
    return Reply(200, DeletedKeys(items=items, next=following), _NO_STORE)


def _selector(text: str) -> labels.Selector:
    try:
        return labels.parse_selector(text)
    except ValueError as error:
        raise invalid(Code.INVALID_REQUEST, [Fault("labelSelector", Rule.FORMAT, str(error))]) from None


def _beneath(call: ApiCall, owner: str | None, published: PublicationRecord | None) -> Sequence[paging.Section]:
    """Return where the keys are that are asked for: those that may call a model are its allowed tenants'."""
    if published is None:
        return paging.tenants_beneath(call.caller, owner)
    allowed = [one for one in published.allowed_tenants if call.caller.sees(one) and owner in {None, one}]
    return paging.groups_of(allowed)


async def _named_by(call: ApiCall, name: str) -> PublicationRecord:
    """Return the publication that ``?model=`` names: NAME, or TENANT/NAME; raises ``Problem`` where there is none."""
    owner, _, model_name = name.rpartition("/")
    model = await lookups.model(call.services.store, call.caller, model_name, owner or None)
    return (await lookups.publication_of(call.services.store, model)).publication


async def show_key(call: ApiCall) -> Reply:
    """Show a key."""
    key = await lookups.key(call.services.store, call.caller, call.path["k"])
    shown = await show(call.services, key, text=await reveal(call, key))
    return Reply(200, shown, {**_NO_STORE, **tagged(key)})


async def create_key(call: ApiCall) -> Reply:
    """Make a key; the answer alone has its whole text."""
    body = call.body(KeyInput)
    tenant = await _tenant_of(call, body)
    warned = await _name_warnings(call, tenant, body.name)
    new, named = await until_settled(lambda: _create(call, body, tenant))
    warned += warnings.of_key(body.rate_limiting, new.record.limits, named)
    headers = {**_NO_STORE, **tagged(new.record), "Location": f"/api/keys/{new.record.id}"}
    return Reply(201, shown_new(new, named).model_copy(update={"warnings": warned}), headers)


async def _name_warnings(call: ApiCall, tenant: str, name: str, besides: str = "") -> list[WarningAnswer]:
    """Say whether another key of the tenant has a name; asked before the commit, with a bound."""
    if await lookups.has_key_named(call.services.store, tenant, name, besides):
        return [warnings.name_twice()]
    return []


async def _tenant_of(call: ApiCall, body: KeyInput) -> str:
    """Return the new key's tenant: the one named, else the usual one."""
    if body.tenant_id:
        await lookups.require_tenant(call.services.store, call.caller, body.tenant_id, "tenantId")
        return body.tenant_id
    usual = await lookups.usual_tenant(call.services.store, call.caller)
    if usual is None:
        raise invalid(Code.INVALID_REQUEST, [Fault("tenantId", Rule.REQUIRED, "is required: there are several")])
    return usual


async def _create(call: ApiCall, body: KeyInput, tenant: str) -> tuple[NewText, Sequence[PublicationRecord]]:
    """Read, decide and commit once."""
    services = call.services
    now_ms = await services.store.now_ms()
    owner = await lookups.record(services.store, Kind.TENANT, tenant, TenantRecord)
    if owner is None:
        raise Problem(Code.INVALID_TENANT, "tenantId: there is no such tenant")
    named = await _named(call, tenant, body.publications, now_ms, in_ms(body.expires_at))
    new = made(body, tenant, tuple(sorted(one.uid for one in named)), services.mint, now_ms)
    names = [naming.name_for(tenant, one) for one in named]
    detail = {**differences.of_key(new.record, names), "apiKey": mask(new.record.id)}
    changes: list[Change] = [
        Put(new.record, 0),
        Check.of(owner),
        services.quotas.room(Kind.KEY, tenant),
        *_stay(named),
    ]
    try:
        await services.committer.commit(changes, call.audit("key.create", new.record.id, tenant, detail))
    except NoRoom as full:
        raise services.quotas.reached(full) from None
    return new, named


def _stay(publications: Collection[PublicationRecord]) -> list[Check]:
    """Let the commit happen only if the publications are as they were seen: none is named that allows no more."""
    return [Check.of(one) for one in publications]


async def _named(
    call: ApiCall, tenant: str, names: Collection[str], now_ms: int, expires_at_ms: int | None
) -> Sequence[PublicationRecord]:
    """Return the publications named, each once; raises ``Problem`` naming every fault of names and expiry."""
    found = await naming.resolve(call.services.store, tenant, names)
    owners = await tenants_known(call.services.store, [tenant, *(one.tenant for one in found.values())])
    faults = [*_name_faults(call, tenant, names, found, owners)]
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        faults.append(Fault("expiresAt", Rule.RANGE, "must be in the future"))
    if faults:
        raise invalid(Code.INVALID_REQUEST, faults)
    return list({one.uid: one for one in found.values()}.values())


def _name_faults(
    call: ApiCall,
    tenant: str,
    names: Collection[str],
    found: Mapping[str, PublicationRecord],
    known: Mapping[str, TenantRecord],
) -> list[Fault]:
    absent = ((position, name) for position, name in enumerate(names) if name not in found)
    owners = ((position, found[name].tenant) for position, name in enumerate(names) if name in found)
    return [
        *(Fault(f"publications[{position}]", Rule.EXISTS, naming.not_there(name)) for position, name in absent),
        *cells.faults_of(tenant, owners, known, call.services.cells, "publications"),
    ]


async def change_key(call: ApiCall) -> Reply:
    """Change a key: what is absent is kept."""
    body = call.body(KeyChange)
    old = await lookups.key(call.services.store, call.caller, call.path["k"])
    renamed = "name" in body.model_fields_set and body.name != old.name
    warned = await _name_warnings(call, old.tenant, body.name, old.id) if renamed else []
    key = await until_settled(lambda: _change(call, body))
    known = await lookups.publications(call.services.store, key.publications)
    warned += warnings.of_key(body.rate_limiting, key.limits, known.values())
    answer = (await show(call.services, key, known)).model_copy(update={"warnings": warned})
    return Reply(200, answer, {**_NO_STORE, **tagged(key)})


async def _change(call: ApiCall, body: KeyChange) -> KeyRecord:
    """Merge into the key as it is at the write, once."""
    store = call.services.store
    key = await lookups.key(store, call.caller, call.path["k"])
    call.require_match(key)
    now_ms = await store.now_ms()
    known = await lookups.publications(store, key.publications)
    named = await _named(call, key.tenant, body.publications, now_ms, in_ms(body.expires_at))
    given = tuple(sorted(one.uid for one in named)) if "publications" in body.model_fields_set else None
    if given is not None and (own := _own_publication(key, known)) and own.uid not in given:
        raise invalid(Code.INVALID_REQUEST, [Fault("publications", Rule.FIXED, _BORN_WITH)])
    new = changed(key, body, given, now_ms)
    if differences.is_none(key, new):
        return key
    known = {**known, **{one.uid: one for one in named}}
    audit = call.audit("key.change", key.id, key.tenant, _difference(key, new, known))
    committed = await call.services.committer.commit([Put(new, key.version), *_stay(named)], audit)
    return next(one for one in committed.records.values() if isinstance(one, KeyRecord))


def _difference(old: KeyRecord, new: KeyRecord, known: Mapping[str, PublicationRecord]) -> Mapping[str, str]:
    def told(key: KeyRecord) -> dict[str, str]:
        names = [naming.name_for(key.tenant, known[uid]) for uid in key.publications if uid in known]
        return differences.of_key(key, names)

    return differences.between(told(old), told(new))


def _own_publication(key: KeyRecord, known: Mapping[str, PublicationRecord]) -> PublicationRecord | None:
    """Return the publication that the key was born with."""
    return next((one for one in known.values() if one.key_id == key.id), None)


async def delete_key(call: ApiCall) -> Reply:
    """Revoke a key for good."""
    await until_settled(lambda: _delete(call))
    return Reply(204)


async def _delete(call: ApiCall) -> None:
    store = call.services.store
    try:
        key = await lookups.key(store, call.caller, call.path["k"])
    except CorruptRecord as damaged:
        await discard_key(call, require_admin(call, damaged, Kind.KEY))
        return
    call.require_match(key)
    if own := _own_publication(key, await lookups.publications(store, key.publications)):
        raise Problem(Code.PUBLICATION_KEY, f"it was born with {own.tenant}/{own.model}: {_REVOKE}")
    stone = Bury(tombstone(key, told(call.caller.acting), await store.now_ms()))
    changes: list[Change] = [Delete(Kind.KEY, key.id, key.version), stone]
    audit = call.audit("key.delete", key.id, key.tenant, {"name": key.name, "apiKey": mask(key.id)})
    await call.services.committer.commit(changes, audit, [usage_key(call.services.cell(key.id), f"k:{key.id}")])


async def rotate_key_by_id(call: ApiCall) -> Reply:
    """Give a key a new text; without a body the old one dies now."""
    store = call.services.store
    key = await lookups.key(store, call.caller, call.path["k"])
    call.require_match(key)
    known = await lookups.publications(store, key.publications)
    new = await rotate(call, key, key.id)
    return Reply(200, await show(call.services, new.record, known, new.text), {**_NO_STORE, **tagged(new.record)})
