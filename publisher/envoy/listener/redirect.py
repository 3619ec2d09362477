"""A listener that lets nothing through: whoever calls it over http is sent to https. Pure.

It has no way to the gate, nor to any server: a key that comes here is neither looked at nor passed on.
"""

from __future__ import annotations

from typing import Final

from publisher.envoy.files import Json

STAT_PREFIX: Final = "redirect"
_TYPE: Final = "type.googleapis.com/envoy."
_KEEPS_METHOD: Final = "PERMANENT_REDIRECT"
"""308: callers send the same again, a POST with its body."""
_NAMES_A_PORT: Final = ".*:[0-9]+"


def redirecting_manager(port: int, bounds: Json, router: Json) -> Json:
    """Answer every call 308. Who named a port in the host is sent to ``port``, who did not to https' own."""
    redirects = [
        _redirect({"port_redirect": port}, headers=[{"name": ":authority", "string_match": _regex(_NAMES_A_PORT)}]),
        _redirect({}),
    ]
    return {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "server_name": "tollkeeper",
        **bounds,
        "route_config": {
            "name": STAT_PREFIX,
            "virtual_hosts": [{"name": "any", "domains": ["*"], "routes": redirects}],
        },
        "http_filters": [router],
    }


def _redirect(more: Json, **match: object) -> Json:
    return {
        "match": {"prefix": "/", **match},
        "redirect": {"https_redirect": True, "response_code": _KEEPS_METHOD, **more},
    }


def _regex(text: str) -> Json:
    return {"safe_regex": {"regex": text}}
