"""Who may do what: each call of the table names the least role it needs, and here that is held.

A caller without the role is refused, and hears 404 rather than 403 where the path names something that does not exist
for him. Callers with it are let through: their handlers find what the path names, or answer 404 themselves.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from admin import lookups
from admin.http.problems import Code, Problem
from admin.people.callers import Caller
from catalog.records import Role
from catalog.store.store import CatalogStore

Words = Mapping[str, str]
"""The variables of a path, or its query: names and values."""


class Access(enum.Enum):
    """Who may call."""

    OPEN = "open"  # anybody, without logging in
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that may call, the least first; none are asked for where anybody may."""
        return _ROLES[self]


_ROLES: Final[Mapping[Access, tuple[Role, ...]]] = {  # Python 3.11.2 loses an empty tuple as a member's value
    Access.OPEN: (),
    Access.READ: (Role.VIEWER, Role.OPERATOR, Role.ADMIN),
    Access.OPERATE: (Role.OPERATOR, Role.ADMIN),
    Access.ADMIN: (Role.ADMIN,),
}


async def _find_model(store: CatalogStore, caller: Caller, path: Words, query: Words) -> None:
    await lookups.model(store, caller, path["m"], query.get("tenantId"))


async def _find_tenant(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.tenant(store, caller, path["t"])


async def _find_user(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.user(store, caller, path["u"])


async def _find_service(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.service_account(store, caller, path["s"])


async def _find_key(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.key(store, caller, path["k"])


async def _find_publication(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.publication(store, caller, path["p"])


async def _find_host(store: CatalogStore, caller: Caller, path: Words, _query: Words) -> None:
    await lookups.granted_host(store, caller, path["h"])


Finder = Callable[[CatalogStore, Caller, Words, Words], Awaitable[None]]
FINDERS: Final[Mapping[str, Finder]] = {
    "m": _find_model,
    "t": _find_tenant,
    "u": _find_user,
    "s": _find_service,
    "k": _find_key,
    "p": _find_publication,
    "h": _find_host,
}
"""By a path's variable: raises ``Problem`` where what it names does not exist for the caller."""


async def require_permission(store: CatalogStore, caller: Caller, access: Access, path: Words, query: Words) -> None:
    """Raise ``Problem`` where the caller may not: that it does not exist, else FORBIDDEN."""
    if not access.roles or caller.role in access.roles:
        return
    for variable in path:
        await FINDERS[variable](store, caller, path, query)
    raise Problem(Code.FORBIDDEN, f"it takes the role {' or '.join(role.value for role in access.roles)}")
