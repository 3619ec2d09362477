"""A plan as Envoy's cluster and route files: pure functions from values to JSON-ready dicts.

Owns the words Envoy uses for routes and clusters. Knows no disk and no Envoy process (``sink`` does) and nothing
of listeners and filters (``bootstrap`` does). Resources come in the plan's stable order; a file's version is the
hash of what it says, so the same plan is the same file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from publisher.browsers import SERVERS_HEADERS, browser_policy
from publisher.plan import OPENAI_ROOT, Host, Plan, Route, Upstream

Json = dict[str, Any]

ROUTES_NAME: Final = "tollkeeper"
"""The route configuration that the listeners ask for."""

ROUTE_NAMESPACE: Final = "tollkeeper"
"""Route metadata under this name reaches Check: ``publication`` or ``openai_host``."""

PUBLICATION_HEADER: Final = "x-tollkeeper-publication"
"""Names the publication to its server; on calls decided by the body, Check sets it and the route wants it."""

BODY_FILTER: Final = "envoy.filters.http.json_to_metadata"
"""Reads the JSON body for Check, and the answer's usage; off unless a route turns it on."""

SSE_FILTER: Final = "envoy.filters.http.sse_to_metadata"
"""Reads the usage of a streamed answer; off unless a route turns it on."""

CREDENTIAL_HEADERS: Final = ("x-api-key", "authorization")
"""Never forwarded, whatever Check answers."""

NO_CLUSTER: Final = "tollkeeper-no-model"
"""The cluster of calls that lead to no model: there is none of this name, nor can a publication's be called so."""

_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_FILTER_CONFIG: Final = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_UPSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

CONNECT_TIMEOUT: Final = "3s"
MAX_UPSTREAM_CALLS: Final = 4096
"""Calls at once to one publication's server, waiting ones included; more get 503."""

IDLE_S: Final = 300
"""Longest silence within a call, in seconds, both ways."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The content of one file: Envoy's DiscoveryResponse."""

    version: str
    resources: tuple[Json, ...]

    def text(self) -> str:
        """The file, as Envoy reads it."""
        response = {"version_info": self.version, "resources": list(self.resources)}
        return json.dumps(response, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> Resources:
        """A file's content; raises ``ValueError`` or ``KeyError`` where it is none of ours."""
        response = json.loads(text)
        return cls(response["version_info"], tuple(response["resources"]))


def clusters(plan: Plan, *, upstream_ca: str) -> Resources:
    """One cluster per publication. ``upstream_ca`` is the PEM file of authorities that https servers are held to."""
    return _versioned(_cluster(upstream, upstream_ca) for upstream in plan.upstreams)


def routes(plan: Plan, *, origins: Sequence[str] = ()) -> Resources:
    """The one route configuration. A host or path that nobody published has no route, hence no way to any server.

    ``origins``: of pages that may call from a browser.
    """
    return _versioned(
        [
            {
                "@type": _ROUTES,
                "name": ROUTES_NAME,
                "request_headers_to_remove": list(CREDENTIAL_HEADERS),
                "response_headers_to_remove": list(SERVERS_HEADERS),
                "validate_clusters": False,
                "virtual_hosts": [_virtual_host(host) | _for_browsers(origins) for host in plan.hosts],
            }
        ]
    )


def together(old: Resources, new: Resources) -> Resources:
    """What both files say, the new one's word where both name a resource: nothing old is missed while routes move."""
    named = {resource["name"]: resource for resource in (*old.resources, *new.resources)}
    return _versioned(named[name] for name in sorted(named))


def error_body(*, message: str, kind: str, code: str) -> str:
    """An error in OpenAI's shape, for the answers Envoy gives by itself."""
    return json.dumps({"error": {"message": message, "type": kind, "code": code, "param": None}})


def cluster_name(publication: str) -> str:
    """The cluster of a publication."""
    return f"publication-{publication}"


def http_options(version: Json) -> Json:
    """The protocol spoken to a cluster, as its extension options."""
    options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": version}
    return {_HTTP_OPTIONS: options}


def assignment(name: str, addresses: Sequence[Json]) -> Json:
    """The endpoints of a cluster."""
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def socket_address(address: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": address, "port_value": port}}


def watched_file(folder: str, name: str) -> Json:
    """A file of resources that is read again whenever something is renamed into its folder."""
    source = {"path": f"{folder}/{name}", "watched_directory": {"path": folder}}
    return {"resource_api_version": "V3", "path_config_source": source}


def _versioned(resources: Iterable[Json]) -> Resources:
    fixed = tuple(resources)
    said = json.dumps(fixed, sort_keys=True).encode()
    return Resources(hashlib.sha256(said).hexdigest()[:16], fixed)


def _cluster(upstream: Upstream, upstream_ca: str) -> Json:
    name = cluster_name(upstream.publication)
    cluster = {
        "@type": _CLUSTER,
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        **_discovery(upstream.hostname),
        "load_assignment": assignment(name, [socket_address(upstream.hostname, upstream.port)]),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MAX_UPSTREAM_CALLS,
                    "max_pending_requests": MAX_UPSTREAM_CALLS,
                    "max_requests": MAX_UPSTREAM_CALLS,
                }
            ]
        },
        "typed_extension_protocol_options": http_options({"http_protocol_options": {}}),
    }
    if upstream.tls:
        cluster["transport_socket"] = _upstream_tls(upstream, upstream_ca)
    return cluster


def _discovery(hostname: str) -> Json:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
    return {"type": "STATIC"}


def _upstream_tls(upstream: Upstream, upstream_ca: str) -> Json:
    validation = {
        "trusted_ca": {"filename": upstream_ca},
        "match_typed_subject_alt_names": [_san(upstream.hostname)],
    }
    context = {
        "@type": _UPSTREAM_TLS,
        "sni": upstream.hostname,
        "common_tls_context": {"validation_context": validation},
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _san(hostname: str) -> Json:
    kind = "IP_ADDRESS" if _discovery(hostname)["type"] == "STATIC" else "DNS"
    return {"san_type": kind, "matcher": {"exact": hostname}}


def _virtual_host(host: Host) -> Json:
    entries = [_entry(host.name)] if host.openai else []
    return {
        "name": host.name,
        "domains": [host.name],
        "routes": [*(_route(route) for route in host.routes), *entries],
    }


def _for_browsers(origins: Sequence[str]) -> Json:
    policy = browser_policy(origins)
    return {"typed_per_filter_config": policy} if policy else {}


def _route(route: Route) -> Json:
    rendered: Json = {
        "name": route.name,
        "match": _match(route),
        "metadata": _metadata(publication=route.publication),
        "route": _action(route),
        "request_headers_to_add": [
            {
                "header": {"key": PUBLICATION_HEADER, "value": route.publication},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    if route.reads_body:
        rendered["typed_per_filter_config"] = body_filters_on()
    return rendered


def _match(route: Route) -> Json:
    match: Json = {"prefix": f"{route.path}/"} if route.below else {"path": route.path}
    if route.chosen_by_body:
        match["headers"] = [{"name": PUBLICATION_HEADER, "string_match": {"exact": route.publication}}]
    return match


def _action(route: Route) -> Json:
    action: Json = {
        "cluster": cluster_name(route.publication),
        "timeout": "0s",
        "idle_timeout": f"{IDLE_S}s",
        "max_stream_duration": {"max_stream_duration": f"{route.longest_s}s"},
        "host_rewrite_literal": route.authority,
        "append_x_forwarded_host": True,
    }
    matched = f"{route.path}/" if route.below else route.path
    if route.rewrite != matched:
        action["prefix_rewrite"] = route.rewrite
    return action


def _entry(host: str) -> Json:
    """Where calls wait that the body decides: Check names the publication, or a 404 is the end of it.

    No direct response, which Envoy would not let pages in browsers read.
    """
    return {
        "name": f"{host}/openai",
        "match": {"prefix": f"{OPENAI_ROOT}/"},
        "metadata": _metadata(openai_host=host),
        "route": {"cluster": NO_CLUSTER, "cluster_not_found_response_code": "NOT_FOUND"},
        "typed_per_filter_config": body_filters_on(),
    }


def _metadata(**fields: str) -> Json:
    return {"filter_metadata": {ROUTE_NAMESPACE: fields}}


def body_filters_on() -> Json:
    """What a route says, by filter, whose calls' bodies are read."""
    return {name: {"@type": _FILTER_CONFIG, "config": {}} for name in (BODY_FILTER, SSE_FILTER)}
