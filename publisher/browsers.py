"""Which pages may call from a browser (CORS), in Envoy's words. Pure.

Closed unless origins are named: then a preflight, which carries no key, is answered by Envoy alone and costs nobody
anything, and answers, refusals too, can be read by those pages. No cookie is ever asked for: a caller is its key.
The two filters stand in every listener and do nothing where a host has no policy: naming origins changes routes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

MAX_AGE_S: Final = 600
"""How long a browser may remember a preflight's answer, in seconds: as long may a page go on after its origin was
taken from the list, as far as preflights go; it cannot read the answers any more."""

ANY: Final = "*"
"""Said for methods and headers. Envoy then names those that the page asks for, whatever they are: clients add headers
by themselves, others with each version. It does not answer ``*``, which browsers do not take for ``Authorization``.
What a page of a named origin may do is decided by its key, as for any other client.
"""

_LIMITS: Final = ("limit", "remaining", "reset")
_ANTHROPICS: Final = ("requests", "tokens", "input-tokens", "output-tokens")
EXPOSED_HEADERS: Final = (
    "etag",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-request-id",
    "request-id",
    *(f"x-ratelimit-{what}" for what in _LIMITS),
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in _LIMITS),
    *(f"anthropic-ratelimit-{of}-{what}" for of in _ANTHROPICS for what in _LIMITS),
)
"""What a page's script may read of an answer besides its status, type and body."""

SERVERS_HEADERS: Final = tuple(
    f"access-control-{name}"
    for name in (
        "allow-credentials",
        "allow-headers",
        "allow-methods",
        "allow-origin",
        "allow-private-network",
        "expose-headers",
        "max-age",
    )
)
"""Taken off what model servers answer: who may read is not theirs to say."""

OF_PREFLIGHTS: Final = frozenset(f"access-control-{name}" for name in ("allow-headers", "allow-methods", "max-age"))
"""Of these, what browsers heed in answers to preflights alone, which no server is asked."""

_CORS: Final = "envoy.filters.http.cors"
_VARY: Final = "envoy.filters.http.header_mutation"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http."


def browser_filters() -> list[dict[str, Any]]:
    """The filters of a listener, to stand before the one that asks for a key."""
    return [
        {"name": _VARY, "typed_config": {"@type": f"{_TYPE}header_mutation.v3.HeaderMutation"}},
        {"name": _CORS, "typed_config": {"@type": f"{_TYPE}cors.v3.Cors"}},
    ]


def browser_policy(origins: Sequence[str]) -> dict[str, Any]:
    """A host's policy by filter; ``origins`` as browsers write them: ``https://app.example``. None: no policy."""
    if not origins:
        return {}
    policy = {
        "@type": f"{_TYPE}cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in origins],
        "allow_methods": ANY,
        "allow_headers": ANY,
        "expose_headers": ", ".join(EXPOSED_HEADERS),
        "max_age": str(MAX_AGE_S),
    }
    return {_VARY: _varying(), _CORS: policy}


def _varying() -> dict[str, Any]:
    """Every answer says that it depends on the origin, so that no cache gives one page's answer to another."""
    header = {"key": "vary", "value": "Origin"}
    mutation = {"append": {"header": header, "append_action": "APPEND_IF_EXISTS_OR_ADD"}}
    return {
        "@type": f"{_TYPE}header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {"response_mutations": [mutation]},
    }
