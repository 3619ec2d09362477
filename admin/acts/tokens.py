"""How a publication's tokens are held back and charged: as it is typed, as it is stored, as it is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import structs
from pydantic.alias_generators import to_camel

from admin.schemas.schemas import Tokens, TokensInput
from catalog.records import USUAL_CONTEXT_TOKENS, ContextFrom, PublicationRecord, TokenPolicy

_STORED_AS: Final = {"reservation_timeout_seconds": "reservation_timeout_s"}
"""Names of fields of a record that are not the API's."""
_SHOWN_AS: Final = {stored: name for name, stored in _STORED_AS.items()}
_CONTEXT: Final = "context_tokens"
"""A field that says besides who said so."""


def merged(current: TokenPolicy, given: TokensInput, server_tokens: int | None) -> TokenPolicy:
    """Return ``current`` with what was given: an absent field keeps. ``server_tokens``: the context its server told."""
    named = given.model_fields_set
    policy = structs.replace(
        current, **{_STORED_AS.get(name, name): getattr(given, name) for name in named - {_CONTEXT}}
    )
    if given.context_tokens is not None:
        return structs.replace(policy, context_tokens=given.context_tokens, context_tokens_from=ContextFrom.SETTING)
    return _as_told(policy, server_tokens) if _CONTEXT in named else following(policy, server_tokens)


def following(policy: TokenPolicy, server_tokens: int | None) -> TokenPolicy:
    """Return a policy with the context that the model's server tells, unless an operator gave one."""
    return policy if policy.context_from is ContextFrom.SETTING else _as_told(policy, server_tokens)


def _as_told(policy: TokenPolicy, server_tokens: int | None) -> TokenPolicy:
    told = ContextFrom.DEFAULT if server_tokens is None else ContextFrom.SERVER
    return structs.replace(policy, context_tokens=server_tokens or USUAL_CONTEXT_TOKENS, context_tokens_from=told)


def shown(publication: PublicationRecord) -> Tokens:
    """A publication's policy as the API shows it."""
    policy = publication.tokens
    return Tokens(
        context_tokens=policy.context_tokens,
        context_tokens_from=policy.context_from,
        server_context_tokens=publication.server_context_tokens,
        context_tokens_hint=context_hint(policy, publication.server_context_tokens),
        default_completion_tokens=policy.default_completion_tokens,
        media_part_tokens=policy.media_part_tokens,
        reservation=policy.reservation,
        missing_usage=policy.missing_usage,
        bytes_per_token=policy.bytes_per_token,
        stream_bytes_per_token=policy.stream_bytes_per_token,
        clamp_usage=policy.clamp_usage,
        reservation_timeout_seconds=policy.reservation_timeout_s,
    )


def context_hint(policy: TokenPolicy, server_tokens: int | None) -> str:
    """What is amiss where an operator's context is another than the server's; empty where nothing is."""
    if server_tokens is None or policy.context_tokens == server_tokens:
        return ""
    if policy.context_tokens > server_tokens:
        return f"the server tells a context of {server_tokens}: calls hold back more than they can cost"
    return f"the server tells a context of {server_tokens}: calls may cost more than they hold back"


def told(policy: TokenPolicy) -> Mapping[str, str]:
    """The policy as the audit stream tells it: ``tokens.contextTokens`` -> ``8192``."""
    noted = structs.asdict(structs.replace(policy, context_tokens_from=policy.context_from))
    return {f"tokens.{to_camel(_SHOWN_AS.get(name, name))}": _word(value) for name, value in noted.items()}


def _word(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
