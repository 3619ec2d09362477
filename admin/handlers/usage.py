"""How much keys and published models are used: in all, today, and over the last day and hour."""

from __future__ import annotations

from admin import lookups
from admin.calls import ApiCall, Reply
from admin.handlers import views


async def show_key_usage(call: ApiCall) -> Reply:
    """Show what a key was used."""
    key = await lookups.key(call.services.store, call.caller, call.path["k"])
    return await _show(call, f"k:{key.id}")


async def show_model_usage(call: ApiCall) -> Reply:
    """Show what a published model was used since it was published, by all its callers."""
    model = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    publication = (await lookups.publication_of(call.services.store, model)).publication
    return await _show(call, f"p:{publication.uid}")


async def _show(call: ApiCall, subject: str) -> Reply:
    now_ms = await call.services.store.now_ms()
    counted, series = await call.services.usage(subject, now_ms), await call.services.series(subject, now_ms)
    return Reply(200, views.usage_series(counted, series, now_ms))
