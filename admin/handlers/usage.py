"""How much keys and published models are used: in all, today, over time, and what is left of their budgets."""

from __future__ import annotations

from admin import lookups
from admin.acts.tenants import is_of
from admin.http.calls import ApiCall, Reply
from admin.http.problems import Problem
from admin.models.cells import shard_of_tenant
from admin.schemas.schemas import LearnedCosts
from admin.views import records as views
from catalog.ids import is_id
from catalog.records import UNLIMITED, Kind, Limits, PublicationRecord, Role, TenantRecord
from extauth.records.entries import limits_held, subject_of
from ratelimit.usage.facts import Usage
from ratelimit.windows.budgets import Subject
from ratelimit.windows.levels import Level


async def show_key_usage(call: ApiCall) -> Reply:
    """Show what a key was used; of one that is no more as long as it is kept."""
    key_id = call.path["k"]
    try:
        key = await lookups.key(call.services.store, call.caller, key_id)
    except Problem as gone:
        return await _show_past(call, Level.KEY, key_id, gone)
    shard = await shard_of_tenant(call.services.store, key.tenant)
    return await _show(call, _subject(Level.KEY, key.id, key.limits), shard)


async def show_model_usage(call: ApiCall) -> Reply:
    """Show what a published model was used since it was published, by all its callers."""
    model = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    return await _show_publication(call, (await lookups.publication_of(call.services.store, model)).publication)


async def show_publication_usage(call: ApiCall) -> Reply:
    """Show the same by the publication's uid; of one that is no more as long as it is kept."""
    uid = call.path["p"]
    try:
        publication = await lookups.publication(call.services.store, call.caller, uid)
    except Problem as gone:
        return await _show_past(call, Level.PUBLICATION, uid, gone)
    return await _show_publication(call, publication)


async def _show_publication(call: ApiCall, publication: PublicationRecord) -> Reply:
    subject = _subject(Level.PUBLICATION, publication.uid, limits_held(publication))
    shard = await shard_of_tenant(call.services.store, publication.tenant)
    lessons = await call.services.lessons(subject.name, shard)
    return await _show(call, subject, shard, views.learned_costs(lessons))


async def _show_past(call: ApiCall, level: Level, record_id: str, gone: Problem) -> Reply:
    """Show the usage of what is no more to those whose it was, and to admins; raises ``gone`` where there is none."""
    if not is_id(record_id):
        raise gone
    subject = subject_of(level, record_id, UNLIMITED)
    owner = await call.services.past_owner(subject.name)
    if owner is None or not (call.caller.role is Role.ADMIN or await _was_theirs(call, subject.name, owner)):
        raise gone
    return await _show(call, subject, shard=0)  # it has no budgets any more


async def _was_theirs(call: ApiCall, subject: str, owner: str) -> bool:
    """Whether what is no more was of a tenant of the caller's, and not of one that had its name before.

    Whatever was of that one was called last before its end, and the name was given again after.
    """
    if not owner or not call.caller.sees(owner):
        return False
    tenant = await lookups.record(call.services.store, Kind.TENANT, owner, TenantRecord)
    counted = (await call.services.usages([subject], await call.services.store.now_ms()))[subject]
    return is_of(tenant, counted.last_access_ms if counted else 0)


def _subject(level: Level, record_id: str, limits: Limits) -> Subject:
    """Name what is counted and limited; without its limits where they are none that a budget can have."""
    try:
        return subject_of(level, record_id, limits)
    except ValueError:
        return subject_of(level, record_id, UNLIMITED)


async def _show(call: ApiCall, subject: Subject, shard: int, learned: LearnedCosts | None = None) -> Reply:
    services, name = call.services, subject.name
    now_ms = await services.store.now_ms()
    counted, series = (await services.usages([name], now_ms))[name], await services.series(name, now_ms)
    shown = views.usage_series(counted or Usage(), series, now_ms, await services.budgets(subject, shard))
    return Reply(200, shown.model_copy(update={"learned": learned}))
