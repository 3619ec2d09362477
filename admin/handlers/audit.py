"""What was done: the audit stream, newest first, as far as the caller may see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from admin import lookups
from admin.acts.tenants import is_of
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.problems import Code, Fault, Rule, invalid
from admin.people.callers import Caller
from admin.schemas.schemas import Act, Acts
from admin.views.records import at
from catalog.records import Role
from catalog.store.store import PAGE, AuditEntry

_CURSOR: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which acts are asked for."""

    tenant: str | None
    actor: str | None
    action: str | None
    since_ms: int
    before: str  # id of an entry: only older ones; "" for all

    def holds_for(self, entry: AuditEntry) -> bool:
        """Whether an act is one of them."""
        told = ((self.tenant, entry.audit.tenant), (self.actor, entry.audit.actor), (self.action, entry.audit.action))
        return entry.time_ms >= self.since_ms and all(wanted in {None, found} for wanted, found in told)


async def list_acts(call: ApiCall) -> Reply:
    """List acts, newest first. Looks at a bounded number of them: a page may be short and still have a next."""
    wish, limit = _read_wish(call.query), paging.limit_of(call.query)
    kept: list[AuditEntry] = []
    before, scanned = wish.before, 0
    while scanned < paging.MAX_SCANNED and len(kept) <= limit:
        entries = await call.services.store.audit_page(before=before, limit=PAGE)
        seen = [entry for entry in entries if wish.holds_for(entry) and _may_see(call.caller, entry)]
        kept += await _of_todays(call, seen)
        if len(entries) < PAGE or _began_ms(entries[-1]) < wish.since_ms:
            before = ""
            break
        before, scanned = entries[-1].id, scanned + len(entries)
    following = kept[limit - 1].id if len(kept) > limit else before or None
    return Reply(200, Acts(items=[_shown(entry) for entry in kept[:limit]], next=following))


def _may_see(caller: Caller, entry: AuditEntry) -> bool:
    """What is no tenant's (users, hosts) is an admin's to see."""
    return caller.role is Role.ADMIN or (entry.audit.tenant != "" and caller.sees(entry.audit.tenant))


async def _of_todays(call: ApiCall, entries: list[AuditEntry]) -> list[AuditEntry]:
    """Leave out what was done to a tenant that had the name before, but for admins, who see all."""
    if call.caller.role is Role.ADMIN:
        return entries
    names = {entry.audit.tenant for entry in entries}
    tenants = await lookups.known_tenants(call.services.store, call.caller, names)
    return [entry for entry in entries if is_of(tenants.get(entry.audit.tenant), entry.time_ms)]


def _began_ms(entry: AuditEntry) -> int:
    """The time in an entry's id, which never goes back, even where the store's clock did."""
    return int(entry.id.partition("-")[0])


def _read_wish(query: Mapping[str, str]) -> _Wish:
    faults: list[Fault] = []
    since_ms, until_ms = (_time_ms(query, name, faults) for name in ("since", "until"))
    if faults:
        raise invalid(Code.INVALID_REQUEST, faults)
    before = query.get("cursor", "")
    if before and not _CURSOR.fullmatch(before):
        raise paging.bad_cursor()
    if until_ms is not None and (not before or int(before.partition("-")[0]) >= until_ms):
        before = f"{until_ms}-0"
    return _Wish(query.get("tenantId"), query.get("actor"), query.get("action"), since_ms or 0, before)


def _time_ms(query: Mapping[str, str], name: str, faults: list[Fault]) -> int | None:
    """Return a time of the query in milliseconds; a text that is none is a fault."""
    if name not in query:
        return None
    try:
        time = datetime.fromisoformat(query[name])
        if time.tzinfo is not None:
            return max(0, int(time.timestamp() * 1000))
    except (ValueError, OverflowError):
        pass
    faults.append(Fault(name, Rule.FORMAT, "must be RFC 3339 with a zone: 2026-01-31T12:00:00Z"))
    return None


def _shown(entry: AuditEntry) -> Act:
    audit = entry.audit
    return Act(
        id=entry.id,
        time=at(entry.time_ms),
        actor=audit.actor,
        action=audit.action,
        target=audit.target,
        tenant_id=audit.tenant,
        request_id=audit.request_id,
        detail=dict(audit.detail),
    )
