"""What is allowed and will hardly be meant: said beside a good answer, before callers find out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from admin.schemas.schemas import ConfigInput, RateLimitingInput, WarningAnswer, WarningCode
from catalog.records import Limits, ModelType, PublicationRecord, TokenPolicy

_RATES: Final = "rateLimiting"


def _warned(code: WarningCode, field: str, message: str) -> WarningAnswer:
    return WarningAnswer(code=code, field=field, message=message)


@dataclass(frozen=True, slots=True)
class _Cap:
    """What another limit lets through in a limit's period."""

    by: str  # the other's field
    most: int


def of_limits(given: RateLimitingInput, limits: Limits, prefix: str = "") -> Iterator[WarningAnswer]:
    """Yield the limits given now that another of the same subject keeps callers from reaching."""
    for name, field, limit, caps in _capped(limits):
        least = min(caps, key=lambda cap: cap.most, default=None)
        if name in given.model_fields_set and limit is not None and least is not None and limit > least.most:
            message = f"is never reached: {least.by} lets {least.most} through in that time at most"
            yield _warned(WarningCode.LIMIT_UNREACHABLE, f"{prefix}{_RATES}.{field}", message)


def _capped(limits: Limits) -> Iterator[tuple[str, str, int | None, list[_Cap]]]:
    """Yield each limit of calls, and what the others let through in its period, which all are true windows."""
    seconds = {"burstLimit": 1, "requestsPerMinute": 60, "requestsPerHour": 3_600}
    of = {"burstLimit": limits.burst, "requestsPerMinute": limits.per_minute, "requestsPerHour": limits.per_hour}
    names = {"burstLimit": "burst_limit", "requestsPerMinute": "requests_per_minute"}
    for field, limit in of.items():
        others = [(other, most) for other, most in of.items() if other != field and most is not None]
        caps = [_Cap(other, most * max(1, seconds[field] // seconds[other])) for other, most in others]
        yield names.get(field, "requests_per_hour"), field, limit, caps


def hold_of(tokens: TokenPolicy) -> int:
    """The least tokens that a call holds which names no most (max_tokens), whatever its prompt."""
    return min(tokens.context_tokens, tokens.default_completion_tokens)


def of_publication(config: ConfigInput, publication: PublicationRecord) -> Iterator[WarningAnswer]:
    """Yield what of a config, as it is merged into a publication, will hardly be meant."""
    yield from of_limits(config.rate_limiting, publication.limits, "config.")
    is_given = "tokens_per_hour" in config.rate_limiting.model_fields_set or bool(config.tokens.model_fields_set)
    if is_given and publication.type is ModelType.OPENAI:
        yield from of_tokens(publication.limits, [hold_of(publication.tokens)], "config.")


def of_tokens(limits: Limits, holds: Iterable[int], prefix: str = "") -> Iterator[WarningAnswer]:
    """Yield whether calls that name no most are refused for good by a budget of tokens."""
    hold = max(holds, default=0)
    if limits.tokens_per_hour is not None and limits.tokens_per_hour < hold:
        message = f"is below what a call without max_tokens holds, {hold} (defaultCompletionTokens): each is refused"
        yield _warned(WarningCode.TOKENS_BELOW_HOLD, f"{prefix}{_RATES}.tokensPerHour", message)


def of_key(given: RateLimitingInput, limits: Limits, named: Iterable[PublicationRecord]) -> Iterator[WarningAnswer]:
    """Yield the same of a key; ``named``: the publications that it may call."""
    yield from of_limits(given, limits)
    if "tokens_per_hour" in given.model_fields_set:
        yield from of_tokens(limits, [hold_of(one.tokens) for one in named if one.type is ModelType.OPENAI])


def of_tenant(given: RateLimitingInput, limits: Limits) -> Iterator[WarningAnswer]:
    """Yield the same of a tenant, by what a publication holds of which nobody said otherwise."""
    yield from of_limits(given, limits)
    if "tokens_per_hour" in given.model_fields_set:
        yield from of_tokens(limits, [hold_of(TokenPolicy())])


def name_twice(field: str = "name") -> WarningAnswer:
    """A name that another key of the tenant has."""
    return _warned(WarningCode.NAME_TWICE, field, "another key of the tenant has this name: only their ids differ")


def host_unresolved() -> WarningAnswer:
    """A host of which no address is known."""
    message = "has no address here: callers find it once a name server says so (or by a Host header meanwhile)"
    return _warned(WarningCode.HOST_UNRESOLVED, "config.publicHostname", message)
