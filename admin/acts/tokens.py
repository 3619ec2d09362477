"""How a publication's tokens are held back and charged: as it is typed, as it is stored, as it is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from admin.schemas.schemas import Tokens, TokensInput
from catalog.records import TokenPolicy


def merged(current: TokenPolicy, given: TokensInput) -> TokenPolicy:
    """Return ``current`` with what was given: an absent field keeps."""
    named, timeout_s = given.model_fields_set, given.reservation_timeout_seconds
    return TokenPolicy(
        context_tokens=given.context_tokens if "context_tokens" in named else current.context_tokens,
        reservation=given.reservation if "reservation" in named else current.reservation,
        missing_usage=given.missing_usage if "missing_usage" in named else current.missing_usage,
        reservation_timeout_s=timeout_s if "reservation_timeout_seconds" in named else current.reservation_timeout_s,
    )


def shown(policy: TokenPolicy) -> Tokens:
    """The policy as the API shows it."""
    return Tokens(
        context_tokens=policy.context_tokens,
        reservation=policy.reservation,
        missing_usage=policy.missing_usage,
        reservation_timeout_seconds=policy.reservation_timeout_s,
    )


def told(policy: TokenPolicy) -> Mapping[str, str]:
    """The policy as the audit stream tells it: ``tokens.contextTokens`` -> ``8192``."""
    return {f"tokens.{name}": str(value) for name, value in shown(policy).model_dump(mode="json").items()}
