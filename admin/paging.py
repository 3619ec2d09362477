"""Lists in pages: in the order of ids, from a cursor, with a bounded look at what is there.

A page begins after the last id that the page before looked at, so that what is added or removed between two pages
neither repeats nor hides anything that was there all the time. One request looks at ``MAX_SCANNED`` ids at most: a page
may hold less than its limit, nothing even, and still say where the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from admin.callers import Caller
from admin.fields import is_model_name, is_tenant_name, is_user_name
from admin.problems import Code, Fault, Rule, invalid
from catalog.ids import is_id, shard_of, shard_prefix
from catalog.records import Kind, Record
from catalog.store import PAGE, CatalogStore

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 500
MAX_SCANNED: Final = 5_000
"""Most ids that one request looks at, however few of them it may show."""

EVERYTHING: Final = ("",)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some records of a list and the cursor of those that follow."""

    records: list[R]
    next: str | None  # None: nothing follows


def _is_model_id(text: str) -> bool:
    tenant, _, name = text.partition("/")
    return is_tenant_name(tenant) and is_model_name(name)


_CURSORS: Final[Mapping[Kind, Callable[[str], bool]]] = {
    Kind.TENANT: is_tenant_name,
    Kind.MODEL: _is_model_id,
    Kind.PUBLICATION: is_id,
    Kind.KEY: is_id,
    Kind.USER: is_user_name,
}


def shards_of(caller: Caller, tenant: str | None) -> Sequence[str]:
    """Return where ids of a tenant's records begin; without one, where those of all the caller's tenants do."""
    return _beginnings(caller, tenant, lambda name: shard_prefix(shard_of(name)))


def models_beneath(caller: Caller, tenant: str | None) -> Sequence[str]:
    """Return where the ids of a tenant's models begin; without one, where those of all the caller's tenants do."""
    return _beginnings(caller, tenant, lambda name: f"{name}/")


def tenants_of(caller: Caller) -> Sequence[str]:
    """Return where the names of the caller's tenants begin."""
    if caller.sees_all:
        return EVERYTHING
    kept: list[str] = []
    for name in sorted(caller.tenants):
        if not kept or not name.startswith(kept[-1]):
            kept.append(name)
    return kept


def _beginnings(caller: Caller, tenant: str | None, beginning: Callable[[str], str]) -> Sequence[str]:
    if tenant is not None:
        return (beginning(tenant),)
    return EVERYTHING if caller.sees_all else tuple(sorted({beginning(name) for name in caller.tenants}))


async def page(
    store: CatalogStore,
    kind: Kind,
    form: type[R],
    query: Mapping[str, str],
    keep: Callable[[R], bool],
    *,
    beneath: Iterable[str] = EVERYTHING,
) -> Page[R]:
    """Return a page of the records that ``keep`` holds for; ``query`` has limit and cursor as they were sent.

    ``beneath``: beginnings of the ids to look at, ascending, none the beginning of another. Raises ``Problem``
    for a limit or cursor that is none, ``StoreUnavailable``.
    """
    limit, after = limit_of(query), _cursor(query, kind)
    kept: list[R] = []
    scanned = 0
    for beginning in beneath:
        while ids := await store.ids(kind, after=after, prefix=beginning, limit=PAGE):
            found = await store.get_many(kind, ids)
            kept += [one for one in found.values() if isinstance(one, form) and keep(one)]
            if len(kept) > limit:
                return Page(kept[:limit], kept[limit - 1].id)
            after, scanned = ids[-1], scanned + len(ids)
            if scanned >= MAX_SCANNED:
                return Page(kept, after)
            if len(ids) < PAGE:
                break
    return Page(kept, None)


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
