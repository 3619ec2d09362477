"""Hosts that models are published on: their tables, listed, and made again where they cannot be read."""

from __future__ import annotations

from admin import lookups
from admin.committing import until_settled
from admin.handlers.discarding import discard_host, repair_places, require_admin
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.problems import Code, Problem
from admin.models.places import host_fault
from admin.models.sites import publications_on
from admin.models.tables import is_damaged
from admin.schemas.schemas import Hosts
from admin.views import records as views
from admin.views.listing import listed
from catalog.damage import CorruptRecord
from catalog.records import HostRecord, Kind


async def list_hosts(call: ApiCall) -> Reply:
    """List the hosts that models are published on."""
    page = await paging.page(call.services.store, Kind.HOST, HostRecord, call.query, lambda _: True, caller=call.caller)
    counts = await publications_on(call.services.store, page.records)
    items, damaged = listed(call.services.metrics, page, lambda one: views.host(one, counts[one.id]))
    return Reply(200, Hosts(items=items, damaged=damaged, next=page.next))


async def repair_host(call: ApiCall) -> Reply:
    """Make the table of a host again from what is published there, where it cannot be read."""
    await until_settled(lambda: _repair(call))
    return Reply(204)


async def _repair(call: ApiCall) -> None:
    name = call.path["h"]
    try:
        found = None if host_fault(name) else await lookups.host(call.services.store, name)
    except CorruptRecord as damaged:
        await discard_host(call, require_admin(call, damaged, Kind.HOST))
        return
    if found is None:
        raise Problem(Code.HOST_NOT_FOUND, "nothing is published on such a host")
    if found.is_closed and (found.is_opening or await is_damaged(call.services.store, name)):
        await repair_places(call, found)
        return
    raise Problem(Code.HOST_IN_USE, f"models are published on {name}: DELETE these; it goes with the last")
