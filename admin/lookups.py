"""Finding what a call is about, among what its caller may see. What he may not see is answered like what is not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

from admin.http.problems import Code, Fault, Problem, Rule
from admin.people.callers import Caller
from admin.schemas.fields import is_model_name, is_tenant_name, is_user_name
from catalog.damage import CorruptRecord
from catalog.ids import is_id
from catalog.records import (
    HostRecord,
    KeyRecord,
    Kind,
    ModelRecord,
    PublicationRecord,
    Record,
    Role,
    TenantRecord,
    UserRecord,
)
from catalog.store.store import PAGE, CatalogStore

DEFAULT_TENANT: Final = "default"
"""Made with the first admin of a new installation; meant where a tenant is left out, as long as it is there."""

NAMES_READ: Final = 1_000
"""Keys of a tenant among which a name is looked for: as many as it may have unless the quota says otherwise."""

_TENANTS_TOLD: Final = 10
_NO_NAME: Final = "what stands in the path is not a name"
_NO_MODEL_NAME: Final = f"{_NO_NAME}: a model has a name of letters, digits, . _ - beside its modelId (GET /api/models)"
R = TypeVar("R", bound=Record)


async def record(store: CatalogStore, kind: Kind, record_id: str, form: type[R]) -> R | None:
    """Read a record whose form its kind promises."""
    found = await store.get(kind, record_id)
    return found if isinstance(found, form) else None


async def tenant(store: CatalogStore, caller: Caller, name: str) -> TenantRecord:
    """Return a tenant; raises ``Problem`` TENANT_NOT_FOUND."""
    if is_tenant_name(name) and caller.sees(name):
        found = await record(store, Kind.TENANT, name, TenantRecord)
        if found:
            return found
    raise Problem(Code.TENANT_NOT_FOUND, f"there is no tenant {name}" if is_tenant_name(name) else _NO_NAME)


async def user(store: CatalogStore, caller: Caller, name: str) -> UserRecord:
    """Return a user who shares a tenant with the caller; raises ``Problem`` USER_NOT_FOUND."""
    found = await _account(store, caller, name)
    if found and found.service is None:
        return found
    raise Problem(Code.USER_NOT_FOUND, f"there is no user {name}" if is_user_name(name) else _NO_NAME)


async def _account(store: CatalogStore, caller: Caller, name: str) -> UserRecord | None:
    """Return a person or service account who shares a tenant with the caller; raises ``CorruptRecord`` to an admin."""
    if not is_user_name(name):
        return None
    try:
        found = await record(store, Kind.USER, name, UserRecord)
    except CorruptRecord:
        if caller.role is Role.ADMIN:  # whose it was cannot be told, so it is nobody else's
            raise
        return None
    return found if found and (caller.sees_all or caller.tenants & set(found.tenants)) else None


async def require_tenant(store: CatalogStore, caller: Caller, name: str, field: str) -> TenantRecord:
    """Return a tenant that a body names; raises ``Problem`` INVALID_TENANT where it is none that the caller sees."""
    if caller.sees(name) and (found := await record(store, Kind.TENANT, name, TenantRecord)):
        return found
    fault = Fault(field, Rule.EXISTS, "there is no such tenant")
    raise Problem(Code.INVALID_TENANT, f"{field}: {fault.message}", [fault])


async def usual_tenant(store: CatalogStore, caller: Caller) -> str | None:
    """Return the tenant that is meant where none is named: the caller's only one; of several, ``default`` if there."""
    mine = await store.ids(Kind.TENANT, limit=2) if caller.sees_all else sorted(caller.tenants)
    if len(mine) == 1:
        return mine[0]
    found = await known_tenants(store, caller, [DEFAULT_TENANT])
    return DEFAULT_TENANT if found else None


async def known_tenants(store: CatalogStore, caller: Caller, names: Collection[str]) -> dict[str, TenantRecord]:
    """Return those of the named tenants that there are for the caller."""
    found = await store.get_many(Kind.TENANT, sorted({name for name in names if caller.sees(name)}))
    return {name: one for name, one in found.items() if isinstance(one, TenantRecord)}


async def models_named(store: CatalogStore, caller: Caller, name: str) -> list[ModelRecord]:
    """Return the models of this name among the caller's tenants."""
    if not is_model_name(name):
        return []
    owners = await _all_tenants(store) if caller.sees_all else sorted(caller.tenants)
    found = await store.get_many(Kind.MODEL, [f"{owner}/{name}" for owner in owners])
    return [one for one in found.values() if isinstance(one, ModelRecord)]


async def _all_tenants(store: CatalogStore) -> list[str]:
    names: list[str] = []
    while True:
        page = await store.ids(Kind.TENANT, after=names[-1] if names else "", limit=PAGE)
        names += page
        if len(page) < PAGE:
            return names


async def service_account(store: CatalogStore, caller: Caller, name: str) -> UserRecord:
    """Return a service account likewise; raises ``Problem`` SERVICE_ACCOUNT_NOT_FOUND."""
    found = await _account(store, caller, name)
    if found and found.service:
        return found
    detail = f"there is no service account {name}" if is_user_name(name) else _NO_NAME
    raise Problem(Code.SERVICE_ACCOUNT_NOT_FOUND, detail)


async def model(store: CatalogStore, caller: Caller, name: str, owner: str | None) -> ModelRecord:
    """Return the caller's model of this name, of the tenant ``owner`` where one is given.

    Raises ``Problem`` MODEL_NOT_FOUND, or AMBIGUOUS_MODEL when several tenants have it and none was given.
    """
    named = await models_named(store, caller, name)
    found = [one for one in named if owner is None or one.tenant == owner]
    if not found:
        await _refuse_damaged(store, caller, name, owner)
        raise Problem(Code.MODEL_NOT_FOUND, _not_found(caller, name, owner))
    if len(found) > 1:
        raise Problem(Code.AMBIGUOUS_MODEL, "say whose it is: ?tenantId=…")
    return found[0]


async def _refuse_damaged(store: CatalogStore, caller: Caller, name: str, owner: str | None) -> None:
    """Raise ``CorruptRecord`` where the model is there and cannot be read, and it is clear whose it would be."""
    whose = owner if owner is not None or len(caller.tenants) != 1 else next(iter(caller.tenants))
    if whose is not None and is_tenant_name(whose) and caller.sees(whose) and is_model_name(name):
        await store.get(Kind.MODEL, f"{whose}/{name}")


def _not_found(caller: Caller, name: str, owner: str | None) -> str:
    """Say what was looked for and where; of a tenant that is not the caller's no more than of one that is not."""
    if not is_model_name(name):
        return _NO_MODEL_NAME
    if owner is not None:
        return f"no model {name} in tenant {owner}" if is_tenant_name(owner) else f"no model {name}: no such tenant"
    if caller.sees_all:
        return f"no model {name} in any tenant"
    mine = sorted(caller.tenants)
    more = ", …" if len(mine) > _TENANTS_TOLD else ""
    return f"no model {name} in your tenants: {', '.join(mine[:_TENANTS_TOLD])}{more}"


@dataclass(frozen=True, slots=True)
class Published:
    """A model and its publication."""

    model: ModelRecord
    publication: PublicationRecord


async def publication_of(store: CatalogStore, found: ModelRecord) -> Published:
    """Return a model with its publication; raises ``Problem`` NOT_PUBLISHED."""
    if found.publication:
        publication = await record(store, Kind.PUBLICATION, found.publication, PublicationRecord)
        if publication:
            return Published(found, publication)
    raise not_published(found.id)


def not_published(model_id: str) -> Problem:
    """Refuse what needs a publication that ``model_id`` (``tenant-a/my-model``) has not."""
    name = model_id.rpartition("/")[2]
    return Problem(Code.NOT_PUBLISHED, f"{model_id} is not published: POST /api/models/{name}/publish publishes it")


async def key_of(store: CatalogStore, publication: PublicationRecord) -> KeyRecord | None:
    """Return a publication's own key."""
    return await record(store, Kind.KEY, publication.key_id, KeyRecord)


async def key(store: CatalogStore, caller: Caller, key_id: str) -> KeyRecord:
    """Return one of the caller's keys; raises ``Problem`` KEY_NOT_FOUND, and to an admin ``CorruptRecord``."""
    try:
        found = await record(store, Kind.KEY, key_id, KeyRecord) if is_id(key_id) else None
    except CorruptRecord:
        if caller.role is Role.ADMIN:  # whose it was cannot be told, so it is nobody else's
            raise
        found = None
    if found is None or not caller.sees(found.tenant):
        raise Problem(Code.KEY_NOT_FOUND, f"there is no key {key_id}" if is_id(key_id) else "that is no key's id")
    return found


async def has_key_named(store: CatalogStore, tenant: str, name: str, besides: str) -> bool:
    """Whether another key of a tenant than ``besides`` has a name, among the first ``NAMES_READ`` of its keys."""
    after = ""
    for _ in range(0, NAMES_READ, PAGE):
        ids = await store.ids_of(Kind.KEY, [tenant], after=after, limit=PAGE)
        found = (await store.get_many(Kind.KEY, ids)).values()
        if any(isinstance(one, KeyRecord) and one.name == name and one.id != besides for one in found):
            return True
        if len(ids) < PAGE:
            return False
        after = ids[-1]
    return False


async def publication(store: CatalogStore, caller: Caller, uid: str) -> PublicationRecord:
    """Return a publication; raises ``Problem`` NOT_PUBLISHED, and to an admin ``CorruptRecord``."""
    try:
        found = await record(store, Kind.PUBLICATION, uid, PublicationRecord) if is_id(uid) else None
    except CorruptRecord:
        if caller.role is Role.ADMIN:
            raise
        found = None
    if found is None or not caller.sees(found.tenant):
        raise Problem(Code.NOT_PUBLISHED, f"there is no publication {uid}" if is_id(uid) else "that is no uid")
    return found


async def host(store: CatalogStore, name: str) -> HostRecord | None:
    """Return a host's table."""
    return await record(store, Kind.HOST, name, HostRecord)


async def granted_host(store: CatalogStore, caller: Caller, name: str) -> None:
    """Raise ``Problem`` HOST_NOT_FOUND where a host is granted to none of the caller's tenants, who may see all."""
    mine = {} if caller.sees_all else await known_tenants(store, caller, caller.tenants)
    if not caller.sees_all and not any(name in one.hosts for one in mine.values()):
        raise Problem(Code.HOST_NOT_FOUND)


async def publications(store: CatalogStore, uids: Collection[str]) -> dict[str, PublicationRecord]:
    """Return those of the publications that can be read, by uid."""
    known = await store.get_many(Kind.PUBLICATION, sorted(uids))
    return {uid: one for uid, one in known.items() if isinstance(one, PublicationRecord)}
