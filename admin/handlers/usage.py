"""How much keys and published models are used: in all, today, over time, and what is left of their budgets."""

from __future__ import annotations

from admin import lookups
from admin.calls import ApiCall, Reply
from admin.handlers import views
from admin.schemas import LearnedCosts
from catalog.records import UNLIMITED, Limits
from extauth.entries import limits_held, subject_of
from ratelimit.budgets import Subject
from ratelimit.levels import Level
from ratelimit.usage import Usage


async def show_key_usage(call: ApiCall) -> Reply:
    """Show what a key was used."""
    key = await lookups.key(call.services.store, call.caller, call.path["k"])
    return await _show(call, _subject(Level.KEY, key.id, key.limits))


async def show_model_usage(call: ApiCall) -> Reply:
    """Show what a published model was used since it was published, by all its callers."""
    model = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    publication = (await lookups.publication_of(call.services.store, model)).publication
    subject = _subject(Level.PUBLICATION, publication.uid, limits_held(publication))
    lessons = await call.services.lessons(subject.name)
    return await _show(call, subject, views.learned_costs(lessons))


def _subject(level: Level, record_id: str, limits: Limits) -> Subject:
    """Name what is counted and limited; without its limits where they are none that a budget can have."""
    try:
        return subject_of(level, record_id, limits)
    except ValueError:
        return subject_of(level, record_id, UNLIMITED)


async def _show(call: ApiCall, subject: Subject, learned: LearnedCosts | None = None) -> Reply:
    services, name = call.services, subject.name
    now_ms = await services.store.now_ms()
    counted, series = (await services.usages([name], now_ms))[name], await services.series(name, now_ms)
    shown = views.usage_series(counted or Usage(), series, now_ms, await services.budgets(subject))
    return Reply(200, shown.model_copy(update={"learned": learned}))
