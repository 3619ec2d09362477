"""What holds for every caller and every model server: bounds, hygiene, time limits. Pure.

The same values as plain Envoy's (``publisher.envoy.bootstrap``), as far as Envoy Gateway's policies have words for
them; what they have none for is patched (``patches``) or named in docs/limits.md.
"""

from __future__ import annotations

from typing import Any, Final

from publisher.browsers import OF_PREFLIGHTS, SERVERS_HEADERS
from publisher.envoy.bootstrap import (
    HEADERS_TIMEOUT,
    REMOVED_HEADERS,
    REMOVED_PREFIXES,
    STREAMS_PER_CONNECTION,
)
from publisher.envoy.clusters import CONNECT_TIMEOUT, MAX_UPSTREAM_CALLS
from publisher.envoy.files import IDLE_S
from publisher.envoy.listener.replies import too_large
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import Json, made, own_name
from publisher.gateway.resources.targets import gateway_target

LONGEST_SILENCE_S: Final = 3_600
"""Longest silence within a call, in seconds: the longest call that a publication may allow. Each rule says its own."""

_NO_UPGRADE: Final = "none"
"""The only protocol that a connection may be upgraded to: there is none of this name. An empty list means websocket."""


def client_policy(options: GatewayOptions) -> Json:
    """How a call is read and bounded."""
    spec: dict[str, Any] = {
        "targetRefs": [gateway_target(options)],
        "connection": {
            "bufferLimit": str(options.max_body_bytes),
            "connectionLimit": {"value": options.max_connections},
        },
        "http1": {"http10": {}},
        "http2": {
            "initialStreamWindowSize": str(options.max_body_bytes),
            "initialConnectionWindowSize": str(options.max_body_bytes),
            "maxConcurrentStreams": STREAMS_PER_CONNECTION,
        },
        "path": {"escapedSlashesAction": "RejectRequest", "disableMergeSlashes": False},
        "headers": _headers(options),
        "timeout": {
            "http": {
                "requestReceivedTimeout": f"{options.request_timeout_s}s",
                "requestHeadersReceivedTimeout": HEADERS_TIMEOUT,
                "idleTimeout": f"{IDLE_S}s",
                "streamIdleTimeout": f"{IDLE_S}s",
            }
        },
    }
    if options.trusted_hops and not options.patches:  # a patch says it better: it leaves Envoy's own header in place
        spec["clientIPDetection"] = {"xForwardedFor": {"numTrustedHops": options.trusted_hops}}
    return _made("ClientTrafficPolicy", spec, options)


def server_policy(options: GatewayOptions) -> Json:
    """How model servers are called: once, with no bound on the answer but each rule's own, which bounds silence too."""
    most = dict.fromkeys(("maxConnections", "maxPendingRequests", "maxParallelRequests"), MAX_UPSTREAM_CALLS)
    spec: dict[str, Any] = {
        "targetRefs": [gateway_target(options)],
        "circuitBreaker": most,
        "timeout": {
            "tcp": {"connectTimeout": CONNECT_TIMEOUT},
            "http": {"requestTimeout": "0s", "streamIdleTimeout": f"{LONGEST_SILENCE_S}s"},
        },
        "httpUpgrade": [{"type": _NO_UPGRADE}],
        "responseOverride": [_too_large(options)],
    }
    return _made("BackendTrafficPolicy", spec, options)


def _too_large(options: GatewayOptions) -> Json:
    """What Envoy answers by itself to a body above the bound, before Check is asked."""
    body = {"type": "Inline", "inline": too_large(options.max_body_bytes)}
    return {
        "match": {"statusCodes": [{"type": "Value", "value": 413}]},
        "source": "Local",
        "response": {"contentType": "application/json", "body": body},
    }


def _made(kind: str, spec: Json, options: GatewayOptions) -> Json:
    name = own_name(options.gateway, "traffic")
    return made(kind, name, spec, namespace=options.namespace, gateway=options.gateway)


def _headers(options: GatewayOptions) -> Json:
    """What only the gate or Envoy may say is taken off a request before anything looks at it.

    Where pages may call, every answer says that it depends on the origin: no cache gives one page's to another. What
    is removed late is removed of Envoy's own answers to preflights too, so what these say is left then.
    """
    late: dict[str, Any] = {"remove": list(SERVERS_HEADERS)}
    if options.origins:
        late["remove"] = [name for name in SERVERS_HEADERS if name not in OF_PREFLIGHTS]
        late["add"] = [{"name": "vary", "value": "Origin"}]
    return {
        "withUnderscoresAction": "DropHeader",
        "requestID": "Generate",
        "enableEnvoyHeaders": False,
        "earlyRequestHeaders": {
            "remove": list(REMOVED_HEADERS),
            "removeOnMatch": [{"type": "Prefix", "value": prefix} for prefix in REMOVED_PREFIXES],
        },
        "lateResponseHeaders": late,
        "host": {"stripTrailingHostDot": True},
    }
