"""Envoy's start-up configuration: listeners, filters and their bounds. Pure: from options to a JSON-ready dict.

Owns how the proxy is hardened and how it asks the gate. Knows no publication: those come by the cluster and route files
(``files``), which change while Envoy runs; nothing here does, so no listener ever drains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauth.answers.answers import denial
from extauth.reasons import Reason
from publisher.browsers import browser_filters
from publisher.envoy.files import (
    CREDENTIAL_HEADERS,
    IDLE_S,
    ROUTE_NAMESPACE,
    ROUTES_NAME,
    Json,
    error_body,
    socket_address,
    watched_file,
)
from publisher.envoy.gate import GATE, GateTls, gate_cluster
from publisher.envoy.meter import OWN_METER, REQUEST_NAMESPACE, Meter, body_filter, runtime, settle_filter, sse_filter
from publisher.envoy.redirect import redirecting_manager
from publisher.envoy.tls import tls_socket

CLUSTERS_FILE: Final = "clusters.json"
ROUTES_FILE: Final = "routes.json"

STAT_PREFIX: Final = "ingress"
SERVER_NAME: Final = "tollkeeper"
"""What every answer calls its server, whatever the model's server says."""

_TYPE: Final = "type.googleapis.com/envoy."

REMOVED_PREFIXES: Final = ("x-envoy-", "x-tollkeeper-")
METHOD_OVERRIDES: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""By these some servers take a call for another than the one that was checked: a DELETE that was sent as a GET."""
REMOVED_HEADERS: Final = ("x-tenant-id", "x-key-id", "x-forwarded-host", "accept-encoding", *METHOD_OVERRIDES)
"""Taken off a caller's request before anything looks at it. A compressed answer would hide its token usage."""

CALLER_HEADER: Final = "x-envoy-external-address"
"""The caller's address as Envoy sees it, trusted hops counted; Check's ``source`` is the connection's other end."""

REQUEST_ID_HEADER: Final = "x-request-id"
"""Made by Envoy for each call, whatever the caller sent; in the answer too."""

CHECKED_HEADERS: Final = (*CREDENTIAL_HEADERS, "content-type", "content-encoding", CALLER_HEADER, REQUEST_ID_HEADER)
"""The request headers Check is told, and no others."""

NOBODY: Final = {"address_prefix": "255.255.255.255", "prefix_len": 32}
"""No caller has this address. An empty list would mean loopback and the private ranges."""

MAX_HEADERS_KB: Final = 32
MAX_HEADERS: Final = 100
SETTLE_TIMEOUT: Final = "2s"
"""Longest wait for the gate to take note of how a call ended; the caller has its answer long since."""
HEADERS_TIMEOUT: Final = "10s"
STREAMS_PER_CONNECTION: Final = 100
_SHED_BETWEEN: Final = (0.75, 0.95)
"""Of the heap. From here on pieces of requests are turned away by chance, at last all: a body of megabytes comes in
dozens of pieces, each of which may cost it the call, a small call in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapOptions:
    """What differs from one Envoy to another."""

    folder: str
    """Holds clusters.json and routes.json; both must exist when Envoy starts."""
    admin_socket: str
    """Unix socket of Envoy's admin interface, which is never on TCP. At most 107 bytes."""
    gate: Sequence[str]
    """The gate's workers: ``unix:/run/gate-0.sock`` or ``127.0.0.1:9001``. At least one."""
    gate_tls: GateTls | None = None
    """None: plaintext."""
    http_port: int
    check_timeout_ms: int = 200
    """Longest wait for Check, in milliseconds, then 503. The gate answers by itself long before."""
    address: str = "127.0.0.1"
    https_port: int | None = None
    """None: no https listener."""
    certificates: Sequence[str] = ()
    """The https listener's certificates, at least one: files as ``envoy_tls`` writes them, read again when replaced."""
    redirect_port: int | None = None
    """The port of https to which the http listener sends all callers; None: it serves them like https."""
    trusted_hops: int = 0
    """Proxies in front whose X-Forwarded-For is believed."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Largest body of an openai call that is read, above it: 413; and largest JSON answer, above it: 500. Envoy has one
    bound for both. HTTP/2 windows are as large."""
    request_timeout_s: int = 60
    """Longest time for a whole request to arrive, in seconds; slow uploads end here with 408."""
    max_heap_bytes: int = 1024 * 1024 * 1024
    """From 75 % on large uploads are cut off, at 90 % connections are not kept alive, at 95 % requests get 503."""
    max_connections: int = 10_000
    """Callers' connections at once."""
    meter: Meter = OWN_METER
    """Where an answer's tokens are found: another filter's metadata, where it counts them."""
    access_log: str = ""
    """File that gets a JSON object a call, ``/dev/stdout`` for one; "": none."""


def bootstrap(options: BootstrapOptions) -> Json:
    """Everything Envoy is started with."""
    return {
        "node": {"id": "tollkeeper", "cluster": "tollkeeper"},
        "admin": {"address": {"pipe": {"path": options.admin_socket, "mode": 0o600}}},
        "static_resources": {
            "listeners": listeners(options),
            "clusters": [gate_cluster(options.gate, connect_timeout=_check_timeout(options), tls=options.gate_tls)],
        },
        "dynamic_resources": {"cds_config": watched_file(options.folder, CLUSTERS_FILE)},
        "overload_manager": overload_manager(options),
        "layered_runtime": runtime(),
    }


def listeners(options: BootstrapOptions) -> list[Json]:
    """The http listener and, where asked for, the https one, with the same routes and filters or for redirects only."""
    made = [_listener("http", options, options.http_port, _on_http(options))]
    if options.https_port is not None:
        chain = {"transport_socket": tls_socket(options.certificates)}
        made.append(_listener("https", options, options.https_port, connection_manager(options), **chain))
    return made


def _on_http(options: BootstrapOptions) -> Json:
    if options.redirect_port is None:
        return connection_manager(options)
    return redirecting_manager(options.redirect_port, _bounds(options), _router())


def connection_manager(options: BootstrapOptions) -> Json:
    """How a call is read, bounded, checked and routed."""
    return {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "rds": {"route_config_name": ROUTES_NAME, "config_source": watched_file(options.folder, ROUTES_FILE)},
        "server_name": SERVER_NAME,
        "always_set_request_id_in_response": True,
        **_access_log(options),
        **_identity(options),
        **_plain_requests(),
        **_bounds(options),
        "early_header_mutation_extensions": [_removals()],
        "local_reply_config": {"mappers": local_replies()},
        "http_filters": [
            *browser_filters(),
            body_filter(),
            sse_filter(),
            _check_filter(options),
            settle_filter(options.meter, timeout=SETTLE_TIMEOUT),
            _router(),
        ],
    }


def overload_manager(options: BootstrapOptions) -> Json:
    """What Envoy does before it runs out of memory or connections."""
    bounded = heap_bounds(options.max_heap_bytes)
    connections = _monitor(
        "envoy.resource_monitors.global_downstream_max_connections",
        "downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=options.max_connections,
    )
    return bounded | {"resource_monitors": [*bounded["resource_monitors"], connections]}


def heap_bounds(max_heap_bytes: int) -> Json:
    """What Envoy does before it runs out of memory."""
    heap = "envoy.resource_monitors.fixed_heap"
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [_monitor(heap, "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=max_heap_bytes)],
        "actions": [
            _action("envoy.overload_actions.disable_http_keepalive", heap, 0.9),
            _action("envoy.overload_actions.stop_accepting_requests", heap, 0.95),
        ],
        "loadshed_points": [
            _shed_point("envoy.load_shed_points.http1_server_abort_dispatch", heap),
            _shed_point("envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", heap),
        ],
    }


def _listener(name: str, options: BootstrapOptions, port: int, config: Json, **chain: Any) -> Json:
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}
    return {
        "name": name,
        "address": socket_address(options.address, port),
        "per_connection_buffer_limit_bytes": options.max_body_bytes,
        "filter_chains": [{"filters": [manager], **chain}],
    }


def _identity(options: BootstrapOptions) -> Json:
    """Who calls: the connection's address unless hops are trusted; nobody is internal, whatever the address."""
    return {
        "use_remote_address": True,
        "xff_num_trusted_hops": options.trusted_hops,
        "internal_address_config": {"cidr_ranges": [NOBODY]},
    }


_CHECKED: Final = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{})%"
_LOGGED: Final = {
    "time": "%START_TIME%",
    "request_id": f"%REQ({REQUEST_ID_HEADER})%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    **{name: _CHECKED.format(name) for name in ("publication", "tenant", "key", "reason")},
    "caller": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
"""What the access log tells of a call: no path and no header of the caller, which may hold secrets."""


def _access_log(options: BootstrapOptions) -> Json:
    if not options.access_log:
        return {}
    form = {"json_format": _LOGGED, "omit_empty_values": True}
    config = {
        "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
        "path": options.access_log,
        "log_format": form,
    }
    return {"access_log": [{"name": "envoy.access_loggers.file", "typed_config": config}]}


def _plain_requests() -> Json:
    """One way to write each host and path, decided before any route is looked at. No upgrades: none are listed."""
    return {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "strip_any_host_port": True,
        "strip_trailing_host_dot": True,
    }


def _bounds(options: BootstrapOptions) -> Json:
    return {
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": MAX_HEADERS,
            "idle_timeout": f"{IDLE_S}s",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_PER_CONNECTION,
            "initial_stream_window_size": options.max_body_bytes,
            "initial_connection_window_size": options.max_body_bytes,
        },
        "max_request_headers_kb": MAX_HEADERS_KB,
        "request_headers_timeout": HEADERS_TIMEOUT,
        "request_timeout": f"{options.request_timeout_s}s",
        "stream_idle_timeout": f"{IDLE_S}s",
    }


def _removals() -> Json:
    matchers: Iterable[Json] = (
        *({"prefix": prefix} for prefix in REMOVED_PREFIXES),
        *({"exact": name} for name in REMOVED_HEADERS),
    )
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove_on_match": {"key_matcher": matcher}} for matcher in matchers],
        },
    }


def local_replies() -> list[Json]:
    """Bodies for the answers Envoy gives by itself, in OpenAI's shape; the first that fits is taken.

    Check's answers come first, by their flag, and keep their own.
    """
    unknown = denial(Reason.NO_PUBLICATION).body  # what Check says of a publication that is not for this caller
    no_model = denial(Reason.MODEL_NOT_FOUND).body  # of a model that Check has named and Envoy does not serve yet
    nowhere = [{"response_flag_filter": {"flags": ["NC"]}}, {"status_code_filter": _status_is(404)}]
    malformed = error_body(
        message="The request's path, a header or its framing is malformed or can be read in two ways.",
        kind="invalid_request_error",
        code="malformed_request",
    )
    slow = error_body(
        message="The request took too long to arrive.", kind="invalid_request_error", code="request_timeout"
    )
    large = error_body(
        message="The request's body is too large.", kind="invalid_request_error", code="request_too_large"
    )
    large_answer = error_body(message="The model's answer is too large.", kind="server_error", code="answer_too_large")
    late = error_body(
        message="The model's server did not answer in time.", kind="server_error", code="upstream_timeout"
    )
    upstream = error_body(
        message="The model's server did not answer.", kind="server_error", code="upstream_unavailable"
    )
    return [
        {"filter": {"response_flag_filter": {"flags": ["UAEX"]}}},
        _reply({"response_flag_filter": {"flags": ["NR"]}}, unknown),
        _reply({"and_filter": {"filters": nowhere}}, no_model),
        _reply({"status_code_filter": _status_is(400)}, malformed),
        _reply({"status_code_filter": _status_is(408)}, slow),
        _reply({"status_code_filter": _status_is(413)}, large),
        _reply({"status_code_filter": _status_is(500)}, large_answer, _NO_RETRY),
        _reply({"status_code_filter": _status_is(504)}, late),
        _reply({"response_flag_filter": {"flags": ["UF", "UH", "UC", "UO", "UR", "UPE", "NC"]}}, upstream),
    ]


_NO_RETRY: Final = ("x-should-retry", "false")
"""Read by OpenAI's clients."""


def _reply(condition: Json, body: str, *headers: tuple[str, str]) -> Json:
    text = {"text_format_source": {"inline_string": body}, "content_type": "application/json"}
    added = [{"header": {"key": name, "value": value}} for name, value in headers]
    return {"filter": condition, "body_format_override": text, **({"headers_to_add": added} if added else {})}


def _status_is(status: int) -> Json:
    value = {"default_value": status, "runtime_key": "tollkeeper.unused"}
    return {"comparison": {"op": "EQ", "value": value}}


def _check_filter(options: BootstrapOptions) -> Json:
    """The one policy on the whole gateway: no answer, no way through."""
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": GATE},
                "timeout": _check_timeout(options),
            },
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "clear_route_cache": True,
            "route_metadata_context_namespaces": [ROUTE_NAMESPACE],
            "metadata_context_namespaces": [REQUEST_NAMESPACE],
            "allowed_headers": {"patterns": [{"exact": name} for name in CHECKED_HEADERS]},
        },
    }


def _check_timeout(options: BootstrapOptions) -> str:
    return f"{options.check_timeout_ms / 1000:g}s"


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
        },
    }


def _monitor(name: str, config: str, **bounds: int) -> Json:
    return {
        "name": name,
        "typed_config": {"@type": f"{_TYPE}extensions.resource_monitors.{config}", **bounds},
    }


def _shed_point(name: str, resource: str) -> Json:
    begins, is_full = _SHED_BETWEEN
    scaled = {"scaling_threshold": begins, "saturation_threshold": is_full}
    return {"name": name, "triggers": [{"name": resource, "scaled": scaled}]}


def _action(name: str, resource: str, threshold: float) -> Json:
    return {"name": name, "triggers": [{"name": resource, "threshold": {"value": threshold}}]}
