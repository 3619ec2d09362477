"""Whether a key is valid: asked without logging in, so throttled, and of an invalid one nothing is told."""

from __future__ import annotations

import logging
from typing import Final

from admin import lookups
from admin.acts.validation import Accepted, accepted, may_call
from admin.http.calls import ApiCall, Reply
from admin.people.throttle import validate_throttles
from admin.schemas.schemas import ValidateInput, Validation
from admin.services import Services
from admin.views.records import at_or_never
from catalog.damage import CorruptRecord
from catalog.keys.keytext import ParsedKey, parse
from catalog.records import KeyRecord, Kind, PublicationRecord, TenantRecord

_log: Final = logging.getLogger(__name__)
_INVALID: Final = Validation(valid=False)


async def validate_key(call: ApiCall) -> Reply:
    """Say whether a key is accepted now, and for which model."""
    await call.services.throttler.attempt(validate_throttles(call.address))
    text = call.body(ValidateInput).api_key.get_secret_value()
    parsed = parse(text.strip(), call.services.mint.secrets)
    answer = await _validate(call.services, parsed) if isinstance(parsed, ParsedKey) else _INVALID
    return Reply(200, answer, {"Cache-Control": "no-store"})


async def _validate(services: Services, parsed: ParsedKey) -> Validation:
    try:
        key = await lookups.record(services.store, Kind.KEY, parsed.id, KeyRecord)
        if key is None:
            return _INVALID
        verdict = accepted(key, parsed.text, services.mint.secrets, await services.store.now_ms())
        return _INVALID if verdict is None else await _described(services, key, verdict)
    except CorruptRecord as damaged:  # of the key or its tenant: no call with it is let through
        _log.error("%s", damaged)
        return _INVALID


async def _described(services: Services, key: KeyRecord, verdict: Accepted) -> Validation:
    tenant = await lookups.record(services.store, Kind.TENANT, key.tenant, TenantRecord)
    found = await services.store.get_many(Kind.PUBLICATION, key.publications)
    for publication in found.values():
        if isinstance(publication, PublicationRecord) and may_call(tenant, publication):
            return Validation(
                valid=True,
                tenant_id=key.tenant,
                model_name=publication.model,
                external_url=services.gateway.external_url(publication),
                expires_at=at_or_never(verdict.until_ms),
            )
    return _INVALID
