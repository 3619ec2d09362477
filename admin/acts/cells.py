"""In which cell a tenant's calls are counted: chosen when it is made, changed by moving it. Pure.

Tenants who share a model must be in one cell. The shard in a tenant's record says which, whatever the ids of its keys
and publications begin with; tenants of one shard are together under any number of cells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import structs

from admin.http.problems import Code, Fault, Rule, invalid
from catalog.changes import Change, Check, Put, Room
from catalog.ids import SHARDS, cell_of, shard_of
from catalog.records import Kind, PublicationRecord, TenantRecord

NOT_TOGETHER = (
    "its budgets are kept in another cell of the store: it cannot call this publication. A tenant is made in another's "
    "cell by cellOf, and moved there by 'tollkeeper cells move'"
)


def home_of(tenant: str, known: Mapping[str, TenantRecord]) -> int:
    """The shard of a tenant; of one that is not known, that of its name."""
    return known[tenant].shard if tenant in known else shard_of(tenant)


def faults_of(
    owner: str, tenants: Iterable[tuple[int, str]], known: Mapping[str, TenantRecord], cells: int, field: str
) -> Iterator[Fault]:
    """Yield CROSS_CELL for each (position, tenant) whose calls could not be counted together with the owner's."""
    home = cell_of(home_of(owner, known), cells)
    for position, tenant in tenants:
        if cell_of(home_of(tenant, known), cells) != home:
            yield Fault(f"{field}[{position}]", Rule.CROSS_CELL, NOT_TOGETHER)


def shard_in(cell: int, tenant: str, cells: int) -> int:
    """A shard of this cell, the nearest to the one of the tenant's name; raises ``Problem`` where there is none."""
    if not 0 <= cell < cells:
        raise invalid(Code.INVALID_REQUEST, [Fault("cell", Rule.RANGE, _range(cells))])
    own = shard_of(tenant)
    near = own - own % cells + cell
    return near if near < SHARDS else near - cells


def _range(cells: int) -> str:
    return f"must be 0 to {cells - 1}" if cells > 1 else "must be 0: budgets are not split (--cells 1)"


def moved(
    tenants: Sequence[TenantRecord], shard: int, publications: Collection[PublicationRecord], now_ms: int
) -> list[Change]:
    """The changes that move tenants together. ``publications``: all that are theirs, or that one of them may call.

    They hold that there are no others, and that none allows anybody else by then.
    """
    changes: list[Change] = [
        Put(structs.replace(one, shard=shard, updated_at_ms=now_ms), one.version) for one in tenants
    ]
    for one in tenants:
        own = sum(publication.tenant == one.id for publication in publications)
        allowing = sum(one.id in publication.allowed_tenants for publication in publications)
        changes += [
            Room(Kind.PUBLICATION, one.id, own),
            Room(Kind.PUBLICATION, one.id, allowing, allowed=True),
        ]
    return [*changes, *(Check.of(one) for one in publications)]


def left_behind(
    moving: Collection[str],
    shard: int,
    publications: Iterable[PublicationRecord],
    known: Mapping[str, TenantRecord],
    cells: int,
) -> list[str]:
    """Name the tenants that share a model with one that moves, and would be in another cell afterwards."""
    partners = {name for one in publications for name in (one.tenant, *one.allowed_tenants)}
    cell = cell_of(shard, cells)
    return sorted(name for name in partners if name not in moving and cell_of(home_of(name, known), cells) != cell)
