"""Budgets as they are typed and as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from admin.schemas.schemas import RateLimiting, RateLimitingInput
from catalog.records import Limits, ModelType

_TRADITIONAL: Final = Limits(burst=10, per_minute=100, per_hour=5_000)
_OPENAI: Final = Limits(burst=10, per_minute=100, per_hour=5_000, tokens_per_hour=100_000)


def defaults(kind: ModelType) -> Limits:
    """Budgets of a publication that is given none."""
    return _OPENAI if kind is ModelType.OPENAI else _TRADITIONAL


def merged(current: Limits, given: RateLimitingInput) -> Limits:
    """Return ``current`` with what was given: an absent field keeps, null is unlimited."""
    named = given.model_fields_set
    return Limits(
        burst=given.burst_limit if "burst_limit" in named else current.burst,
        per_minute=given.requests_per_minute if "requests_per_minute" in named else current.per_minute,
        per_hour=given.requests_per_hour if "requests_per_hour" in named else current.per_hour,
        tokens_per_hour=given.tokens_per_hour if "tokens_per_hour" in named else current.tokens_per_hour,
    )


def shown(limits: Limits) -> RateLimiting:
    """Budgets as the API shows them."""
    return RateLimiting(
        requests_per_minute=limits.per_minute,
        requests_per_hour=limits.per_hour,
        tokens_per_hour=limits.tokens_per_hour,
        burst_limit=limits.burst,
    )


def told(limits: Limits) -> Mapping[str, str]:
    """Budgets as the audit stream tells them: ``rateLimiting.burstLimit`` -> ``10``."""
    values = shown(limits).model_dump()
    return {f"rateLimiting.{name}": "unlimited" if v is None else str(v) for name, v in values.items()}
