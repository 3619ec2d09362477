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

METHODS: Final = ("GET", "POST", "DELETE")

_STAINLESS: Final = (
    "arch",
    "custom-poll-interval",
    "helper-method",
    "lang",
    "os",
    "package-version",
    "poll-helper",
    "retry-count",
    "runtime",
    "runtime-version",
    "timeout",
)
ALLOWED_HEADERS: Final = (
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "user-agent",
    *(f"x-stainless-{name}" for name in _STAINLESS),
)
"""What a page may send: a key, a body's type, and what OpenAI's client adds by itself (openai-node, src/client.ts)."""

EXPOSED_HEADERS: Final = (
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
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
        "allow_methods": ", ".join(METHODS),
        "allow_headers": ", ".join(ALLOWED_HEADERS),
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
