"""How gates hear how calls ended: Envoy's gRPC access log, a sink of the EnvoyProxy beside the usual log. Pure.

Whoever owns the EnvoyProxy owns the Backend that it names too: a Gateway whose proxy names one that is not there is
not accepted, and its Envoy logs nothing. An entry is sent of each call to which Check gave a reservation, with all that
Envoy's filters noted of it. Envoy Gateway has no word for how long entries may wait: Envoy sends them after a second,
or when 16 KiB have come together.
"""

from __future__ import annotations

from typing import Final

from publisher.envoy.endings import ENDINGS, HEADERS
from publisher.gateway.gate import calling, workers
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import backend_ref
from publisher.gateway.resources.naming import Json, own_name

RESERVED: Final = "'reservation' in metadata.filter_metadata['envoy.filters.http.ext_authz']"
"""The calls to tell of (CEL). Of a call that Check said nothing of it is an error, which tells as little."""

_KEPT_ALIVE: Final = {"connectionKeepalive": {"interval": "15s", "timeout": "10s"}}
"""A gate's machine that has gone without a word is found out, as on plain Envoy; the timeout must be the shorter."""

_USUAL_LOG: Final = "/dev/stdout"
"""Where Envoy Gateway logs every call as long as nobody names a sink."""


def endings_backends(options: GatewayOptions) -> list[Json]:
    """The gates as they are told of endings, where the EnvoyProxy is ours."""
    return [workers(_name(options), options.endings, options)] if options.host is not None else []


def access_log(options: GatewayOptions) -> Json:
    """The settings of the proxy's log: each call as ever, and endings to the gates."""
    usual = {"sinks": [{"type": "File", "file": {"path": _USUAL_LOG}}]}
    calls = calling(options.endings, options, has_name=True)  # the cluster's name: accesslog_als_1_0
    sink = {
        "type": "HTTP",
        "logName": ENDINGS,
        "http": {"responseHeaders": [*HEADERS]},
        "backendRefs": [backend_ref(_name(options))],
        "backendSettings": calls | {"http2": _KEPT_ALIVE},
    }
    endings = {"type": "Route", "matches": [RESERVED], "sinks": [{"type": "ALS", "als": sink}]}
    return {"settings": [usual, endings]}


def _name(options: GatewayOptions) -> str:
    return own_name(options.gateway, "endings")
