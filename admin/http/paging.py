"""Lists in pages: in the order of ids, from a cursor, with a bounded look at what is there.

A page begins after the last id that the page before looked at, so that what is added or removed between two pages
neither repeats nor hides anything that was there all the time. One request looks at ``MAX_SCANNED`` ids at most: a page
may hold less than its limit, nothing even, and still say where the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeGuard, TypeVar

from admin.http.problems import Code, Fault, Rule, invalid
from admin.models.places import host_fault
from admin.people.callers import Caller
from admin.schemas.fields import is_model_name, is_tenant_name, is_user_name
from catalog.damage import CorruptRecord
from catalog.ids import SHARD_CHARACTERS, is_id, shard_of, shard_prefix
from catalog.records import Kind, Record, Role
from catalog.store.store import PAGE, CatalogStore

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 500
MAX_SCANNED: Final = 5_000
"""Most ids that one request looks at, however few of them it may show."""

GROUPS_AT_ONCE: Final = 16
"""Tenants whose ids are read in one round trip."""

Section = str | tuple[str, ...]
"""Where a list looks: at the ids that begin so, or at those of these tenants' records, whose shards are neighbours."""

_NARROWING: Final = frozenset({"model", "name", "labelSelector"})
"""Parameters that ask for records by what is lost where one is damaged."""

EVERYTHING: Final[tuple[Section, ...]] = ("",)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some records of a list and the cursor of those that follow."""

    kind: Kind
    records: list[R]
    next: str | None  # None: nothing follows
    damaged: tuple[CorruptRecord, ...] = ()  # among them by id, and as many less of the others


def _is_model_id(text: str) -> bool:
    tenant, _, name = text.partition("/")
    return is_tenant_name(tenant) and is_model_name(name)


_CURSORS: Final[Mapping[Kind, Callable[[str], bool]]] = {
    Kind.TENANT: is_tenant_name,
    Kind.MODEL: _is_model_id,
    Kind.PUBLICATION: is_id,
    Kind.KEY: is_id,
    Kind.USER: is_user_name,
    Kind.HOST: lambda text: host_fault(text) is None,
    Kind.SERVER: lambda _text: False,  # nobody lists them
}


def tenants_beneath(caller: Caller, tenant: str | None) -> Sequence[Section]:
    """Return where the ids of a tenant's records are; without one, where those of all the caller's tenants are."""
    if tenant is not None:
        return groups_of([tenant]) if is_tenant_name(tenant) else ()
    return EVERYTHING if caller.sees_all else groups_of(caller.tenants)


def groups_of(tenants: Iterable[str]) -> Sequence[Section]:
    """Return where the ids of these tenants' records are, each shard's in one section, the sections ascending."""
    sections: list[list[str]] = []
    last = -1
    for shard, name in sorted((shard_of(name), name) for name in tenants):
        if not sections or (shard != last and len(sections[-1]) >= GROUPS_AT_ONCE):
            sections.append([])
        sections[-1].append(name)
        last = shard
    return tuple(map(tuple, sections))


def models_beneath(caller: Caller, tenant: str | None) -> Sequence[Section]:
    """Return where the ids of a tenant's models begin; without one, where those of all the caller's tenants do."""
    if tenant is not None:
        return (f"{tenant}/",) if is_tenant_name(tenant) else ()
    return EVERYTHING if caller.sees_all else tuple(sorted(f"{name}/" for name in caller.tenants))


def tenants_of(caller: Caller) -> Sequence[Section]:
    """Return where the names of the caller's tenants begin."""
    if caller.sees_all:
        return EVERYTHING
    kept: list[str] = []
    for name in sorted(caller.tenants):
        if not kept or not name.startswith(kept[-1]):
            kept.append(name)
    return kept


async def page(
    store: CatalogStore,
    kind: Kind,
    form: type[R],
    query: Mapping[str, str],
    keep: Callable[[R], bool],
    *,
    caller: Caller,
    beneath: Iterable[Section] = EVERYTHING,
) -> Page[R]:
    """Return a page of the records that ``keep`` holds for; ``query`` has limit and cursor as they were sent.

    ``beneath``: where to look, ascending and apart. Damaged records are told to admins: whose they are is lost. Raises
    ``Problem`` for a limit or cursor that is none, ``StoreUnavailable``.
    """
    limit, after = limit_of(query), _cursor(query, kind)
    wanted = _wanted(form, keep, caller, query)
    kept: list[tuple[str, R | CorruptRecord]] = []
    scanned = 0
    for section in beneath:
        if _is_before(section, after):
            continue
        while ids := await _ids(store, kind, section, after):
            kept += [(one_id, one) for one_id, one in (await read_records(store, kind, ids)).items() if wanted(one)]
            if len(kept) > limit:
                return _page(kind, kept[:limit], kept[limit - 1][0])
            after, scanned = ids[-1], scanned + len(ids)
            if scanned >= MAX_SCANNED:
                return _page(kind, kept, after)
            if len(ids) < PAGE:
                break
    return _page(kind, kept, None)


def _page(kind: Kind, kept: Sequence[tuple[str, R | CorruptRecord]], following: str | None) -> Page[R]:
    damaged = tuple(one for _, one in kept if isinstance(one, CorruptRecord))
    return Page(kind, [one for _, one in kept if not isinstance(one, CorruptRecord)], following, damaged)


def _wanted(
    form: type[R], keep: Callable[[R], bool], caller: Caller, query: Mapping[str, str]
) -> Callable[[object], TypeGuard[R | CorruptRecord]]:
    """Make what says of a record, damaged or not, whether it is listed."""
    owner, is_narrowed = query.get("tenantId"), bool(query.keys() & _NARROWING)

    def wanted(one: object) -> TypeGuard[R | CorruptRecord]:
        if isinstance(one, CorruptRecord):
            return caller.role is Role.ADMIN and not is_narrowed and (not one.tenant or owner in {None, one.tenant})
        return isinstance(one, form) and keep(one)

    return wanted


def _is_before(section: Section, after: str) -> bool:
    """Whether all that a section of tenants can hold was on the pages before."""
    return isinstance(section, tuple) and shard_prefix(shard_of(section[-1])) < after[:SHARD_CHARACTERS]


async def _ids(store: CatalogStore, kind: Kind, section: Section, after: str) -> list[str]:
    if isinstance(section, tuple):
        return await store.ids_of(kind, section, after=after, limit=PAGE)
    return await store.ids(kind, after=after, prefix=section, limit=PAGE)


async def read_records(
    store: CatalogStore, kind: Kind, ids: Sequence[str]
) -> Mapping[str, Record | CorruptRecord | None]:
    """Read records; of those that were not found together with the others it is asked whether they are there at all."""
    found = await store.read_page(kind, ids)
    for one_id in [one_id for one_id, one in found.items() if one is None]:
        try:
            found[one_id] = await store.get(kind, one_id)
        except CorruptRecord as error:
            found[one_id] = error
    return found


def asks_usage(query: Mapping[str, str]) -> bool:
    """Whether a list is to say how much each of its items was used; raises ``Problem`` for what is neither."""
    text = query.get("usage", "false")
    if text not in {"true", "false"}:
        raise invalid(Code.INVALID_REQUEST, [Fault("usage", Rule.CHOICE, "must be true or false")])
    return text == "true"


def limit_of(query: Mapping[str, str]) -> int:
    """Return how many items a page may have, as ``limit`` says; raises ``Problem`` where it does not."""
    text = query.get("limit")
    if text is None:
        return DEFAULT_PAGE
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE)) and 1 <= int(text) <= MAX_PAGE:
        return int(text)
    raise invalid(Code.INVALID_REQUEST, [Fault("limit", Rule.RANGE, f"must be 1 to {MAX_PAGE}")])


def _cursor(query: Mapping[str, str], kind: Kind) -> str:
    """Return the id after which the page begins; an empty one begins the list."""
    text = query.get("cursor", "")
    if not text or _CURSORS[kind](text):
        return text
    raise bad_cursor()


def bad_cursor() -> Exception:
    """Refuse a cursor that no page gave."""
    return invalid(Code.INVALID_REQUEST, [Fault("cursor", Rule.FORMAT, "must be what next said")])
