"""What stands on a page of a list: each record as it is shown, and those that cannot be shown, told as damaged.

One record never takes a list with it: neither one that cannot be read nor one that shows a fault of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from admin.http.paging import Page
from admin.metrics import AdminMetrics
from admin.schemas.schemas import Damaged
from catalog.damage import CorruptRecord
from catalog.ids import shard_of, shard_prefix
from catalog.records import HostRecord, Kind, Record, UserRecord

_PATHS: Final = {
    Kind.TENANT: "/api/tenants/{}",
    Kind.PUBLICATION: "/api/published-models/{}",
    Kind.KEY: "/api/keys/{}",
    Kind.USER: "/api/users/{}",
    Kind.HOST: "/api/hosts/{}",
}
_log: Final = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
T = TypeVar("T")


def listed(metrics: AdminMetrics, page: Page[R], show: Callable[[R], T]) -> tuple[list[T], list[Damaged]]:
    """Show a page: its items, and what is damaged among them."""
    damaged = told_damaged(metrics, page.damaged)
    items: list[T] = []
    for record in page.records:
        try:
            items.append(show(record))
        except Exception:  # noqa: BLE001  whatever it is, the others are shown; logged and counted
            _log.exception("%s:%s cannot be shown", page.kind.value, record.id)
            damaged.append(_told(metrics, page.kind, record.id, _owner(record)))
    return items, sorted(damaged, key=lambda one: one.id)


def told_damaged(metrics: AdminMetrics, errors: Iterable[CorruptRecord]) -> list[Damaged]:
    """Say which records cannot be read, and count them."""
    return [_told(metrics, one.kind, one.id, _tenant_of(one)) for one in errors]


def _told(metrics: AdminMetrics, kind: Kind, record_id: str, tenant: str) -> Damaged:
    metrics.damaged.labels(kind.value).inc()
    return Damaged(id=record_id, tenant_id=tenant or None, remove=f"DELETE {_path(kind, record_id)}")


def _path(kind: Kind, record_id: str) -> str:
    if kind is Kind.MODEL:
        tenant, _, name = record_id.partition("/")
        return f"/api/models/{name}?tenantId={tenant}"
    return _PATHS[kind].format(record_id)


def _owner(record: Record) -> str:
    return "" if isinstance(record, UserRecord | HostRecord) else getattr(record, "tenant", record.id)


def _tenant_of(error: CorruptRecord) -> str:
    """Return whose a damaged record is, where its id proves what is left of it or says so itself."""
    if error.kind is Kind.TENANT:
        return error.id
    if error.kind is Kind.MODEL:
        return error.id.partition("/")[0]
    is_proven = error.tenant and error.id.startswith(shard_prefix(shard_of(error.tenant)))
    return error.tenant if is_proven and error.kind in {Kind.KEY, Kind.PUBLICATION} else ""
