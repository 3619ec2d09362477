"""Envoy's start-up configuration: listeners, filters and their bounds. Pure: from options to a JSON-ready dict.

Owns how the proxy is hardened and how it asks the gate. Knows no publication: those come by the cluster and route files
(``files``), which change while Envoy runs; nothing here does, so no listener ever drains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from publisher.browsers import browser_filters
from publisher.envoy.answer import answer_filter, rewrite_filter
from publisher.envoy.bodies import CHECK_FILTER, GATE_LARGE, unpacking_filters, with_body
from publisher.envoy.endings import endings_cluster, endings_log
from publisher.envoy.files import (
    IDLE_S,
    ROUTE_NAMESPACE,
    ROUTES_NAME,
    Json,
    socket_address,
    watched_file,
)
from publisher.envoy.gate import GATE, GateTls, gate_cluster
from publisher.envoy.listener.grpc import grpc_replies
from publisher.envoy.listener.log import file_log
from publisher.envoy.listener.overload import overload_manager
from publisher.envoy.listener.redirect import redirecting_manager
from publisher.envoy.listener.replies import MAX_HEADERS, MAX_HEADERS_KB, local_replies
from publisher.envoy.listener.tls import tls_socket

CLUSTERS_FILE: Final = "clusters.json"
ROUTES_FILE: Final = "routes.json"

STAT_PREFIX: Final = "ingress"
SERVER_NAME: Final = "tollkeeper"
"""What every answer calls its server, whatever the model's server says."""

_TYPE: Final = "type.googleapis.com/envoy."

REMOVED_PREFIXES: Final = ("x-envoy-", "x-tollkeeper-")
OVERRIDES: Final = (
    *("x-http-method-override", "x-http-method", "x-method-override"),
    *("x-original-url", "x-rewrite-url"),
)
"""By these some servers take a call for another than the one that was checked: a DELETE that was sent as a GET."""
REMOVED_HEADERS: Final = ("x-tenant-id", "x-key-id", "x-forwarded-host", "accept-encoding", *OVERRIDES)
"""Taken off a caller's request before anything looks at it. A compressed answer would hide its token usage."""

CALLER_HEADER: Final = "x-envoy-external-address"
"""The caller's address as Envoy sees it, trusted hops counted; Check's ``source`` is the connection's other end."""

UNTOLD_HEADERS: Final = (":authority", ":method", ":path", ":scheme", "content-length")
"""The request headers that Check is not told: it knows what they say. In any other may a copy of a key stand."""

NOBODY: Final = {"address_prefix": "255.255.255.255", "prefix_len": 32}
"""No caller has this address. An empty list would mean loopback and the private ranges."""

HEADERS_TIMEOUT: Final = "10s"
STREAMS_PER_CONNECTION: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapOptions:
    """What differs from one Envoy to another."""

    folder: str
    """Holds clusters.json and routes.json; both must exist when Envoy starts."""
    admin_socket: str
    """Unix socket of Envoy's admin interface, which is never on TCP. At most 107 bytes."""
    gate: Sequence[str]
    """The gate's workers: ``unix:/run/gate-0.sock`` or ``127.0.0.1:9001``. At least one."""
    endings: Sequence[str]
    """Where the gate's workers hear how calls ended, each at an address of its own: written as ``gate``."""
    gate_tls: GateTls | None = None
    """Of both; None: plaintext."""
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
    """Largest body of an openai call, above it: 413. HTTP/2 windows are as large."""
    request_timeout_s: int = 60
    """Longest time for a whole request to arrive, in seconds; slow uploads end here with 408."""
    max_heap_bytes: int = 1024 * 1024 * 1024
    """From 75 % on large uploads are cut off, at 90 % connections are not kept alive, at 95 % requests get 503."""
    max_connections: int = 10_000
    """Callers' connections at once."""
    access_log: str = ""
    """File that gets a JSON object a call, ``/dev/stdout`` for one; "": none."""


def bootstrap(options: BootstrapOptions) -> Json:
    """Everything Envoy is started with."""
    return {
        "node": {"id": "tollkeeper", "cluster": "tollkeeper"},
        "admin": {"address": {"pipe": {"path": options.admin_socket, "mode": 0o600}}},
        "static_resources": {
            "listeners": listeners(options),
            "clusters": _own_clusters(options),
        },
        "dynamic_resources": {"cds_config": watched_file(options.folder, CLUSTERS_FILE)},
        "overload_manager": overload_manager(
            max_heap_bytes=options.max_heap_bytes, max_connections=options.max_connections
        ),
    }


def _own_clusters(options: BootstrapOptions) -> list[Json]:
    wait, tls = _check_timeout(options), options.gate_tls
    return [
        gate_cluster(options.gate, connect_timeout=wait, tls=tls),
        gate_cluster(options.gate, connect_timeout=wait, tls=tls, name=GATE_LARGE),
        endings_cluster(options.endings, connect_timeout=wait, tls=tls),
    ]


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
        "access_log": [*file_log(options.access_log), endings_log()],
        **_identity(options),
        **_plain_requests(),
        **_bounds(options),
        "early_header_mutation_extensions": [_removals()],
        "local_reply_config": {"mappers": [*grpc_replies(), *local_replies(options.max_body_bytes)]},
        "http_filters": [
            *browser_filters(),
            _check_filter(options),
            *unpacking_filters(),
            rewrite_filter(),
            answer_filter(),
            _router(),
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
            "headers_with_underscores_action": "DROP_HEADER",
            "max_headers_count": MAX_HEADERS,
            "idle_timeout": f"{IDLE_S}s",
        },
        "http_protocol_options": {"accept_http_10": True},
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


def _check_filter(options: BootstrapOptions) -> Json:
    """The one policy on the whole gateway: no answer, no way through."""
    return {
        "name": CHECK_FILTER,
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
            "with_request_body": with_body(options.max_body_bytes),
            "disallowed_headers": {"patterns": [{"exact": name} for name in UNTOLD_HEADERS]},
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
