"""A plan's clusters: the servers of each publication, as Envoy knows them. Pure.

All that hangs on a server is said here and nothing of it in a route: what it is told as Host, the name that its
certificate must have. When a publication's servers change, Envoy makes the new cluster ready beside the old one. Then
calls that have not left yet go by the new one, also those that Check has; those that have left end where they are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final

from publisher.envoy.credentials import CREDENTIAL, credential_file
from publisher.envoy.files import Json, Resources, cluster_name, compact, http_options, socket_address, versioned
from publisher.plan import Plan, Target, Upstream

CONNECT_TIMEOUT: Final = "3s"
MAX_UPSTREAM_CALLS: Final = 4096
"""Calls at once to one publication's servers, waiting ones included; more get 503."""

FAILURES: Final = 3
"""So many answers 502, 503 or 504 in a row, and one of several servers is left out; one connection refused is enough.

A server that answers 500 may well be there for the next call."""
LEFT_OUT: Final = "10s"
LONGEST_LEFT_OUT: Final = "60s"
"""For how long one that failed is not called: the first time, and at most, when it keeps failing."""
OUTLIER_INTERVAL: Final = "1s"

_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_UPSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_INJECTOR: Final = "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"
_GENERIC: Final = "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic"
_CODEC: Final = "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
_MATCHED: Final = "envoy.transport_socket_match"
_SNI: Final = "sni"


def clusters(
    plan: Plan, *, upstream_ca: str, credentials: str = "", rendered: Callable[[Upstream], str] | None = None
) -> Resources:
    """One cluster per publication. ``upstream_ca`` is the PEM file of authorities that https servers are held to.

    ``credentials``: the folder of the values that servers want with each call. ``rendered``: what gives a cluster's
    text, for those who remember it.
    """
    text = rendered or (lambda one: cluster_text(one, upstream_ca, credentials))
    return versioned({cluster_name(one.publication): text(one) for one in plan.upstreams})


def cluster_text(upstream: Upstream, upstream_ca: str, credentials: str) -> str:
    """A publication's cluster as JSON."""
    return compact(_cluster(upstream, upstream_ca, credentials))


def _cluster(upstream: Upstream, upstream_ca: str, credentials: str) -> Json:
    name, targets = cluster_name(upstream.publication), upstream.targets
    cluster = {
        "@type": _CLUSTER,
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        **_discovery(targets),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": _endpoints(targets)}]},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MAX_UPSTREAM_CALLS,
                    "max_pending_requests": MAX_UPSTREAM_CALLS,
                    "max_requests": MAX_UPSTREAM_CALLS,
                }
            ]
        },
        "typed_extension_protocol_options": http_options(
            {"http2_protocol_options": {}} if upstream.http2 else {"http_protocol_options": {}},
            _filters(upstream, credentials),
        ),
    }
    if len(targets) > 1:
        cluster |= _several(targets, upstream_ca)
    elif targets[0].tls:
        cluster["transport_socket"] = _upstream_tls(targets[0].hostname, upstream_ca)
    return cluster


def _filters(upstream: Upstream, credentials: str) -> list[Json]:
    """What a call passes once its server is chosen: the header that the server wants is put in, or nothing leaves."""
    if upstream.injection is None:
        return []
    file = f"{credentials}/{credential_file(upstream.injection)}"
    secret = {
        "name": CREDENTIAL,
        "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": file}},
    }
    generic = {"@type": _GENERIC, "header": upstream.injection.header, "credential": secret}
    injector = {
        "@type": _INJECTOR,
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
    return [
        {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": {"@type": _CODEC}},
    ]


def _discovery(targets: Iterable[Target]) -> Json:
    if all(_is_address(target.hostname) for target in targets):
        return {"type": "STATIC"}
    return {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _endpoints(targets: tuple[Target, ...]) -> list[Json]:
    return [_endpoint(targets[0])] if len(targets) == 1 else [_weighted(target) for target in targets]


def _endpoint(target: Target) -> Json:
    """Where a server is, and what it is told as Host."""
    address = socket_address(target.hostname, target.port)
    return {"endpoint": {"address": address, "hostname": target.authority}}


def _weighted(target: Target) -> Json:
    """One of several, each of which has a name of its own over TLS."""
    found = _endpoint(target) | {"load_balancing_weight": target.weight}
    if target.tls:
        found["metadata"] = {"filter_metadata": {_MATCHED: {_SNI: target.hostname}}}
    return found


def _several(targets: tuple[Target, ...], upstream_ca: str) -> Json:
    """Leave out one that fails as long as another is there. No call is tried twice: it may have been heard."""
    names = sorted({target.hostname for target in targets if target.tls})
    sockets = [
        {"name": name, "match": {_SNI: name}, "transport_socket": _upstream_tls(name, upstream_ca)} for name in names
    ]
    return {
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "consecutive_gateway_failure": FAILURES,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": OUTLIER_INTERVAL,
            "base_ejection_time": LEFT_OUT,
            "max_ejection_time": LONGEST_LEFT_OUT,
            "max_ejection_percent": 100 * (len(targets) - 1) // len(targets),
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        **({"transport_socket_matches": sockets} if sockets else {}),
    }


def _upstream_tls(hostname: str, upstream_ca: str) -> Json:
    validation = {
        "trusted_ca": {"filename": upstream_ca},
        "match_typed_subject_alt_names": [_san(hostname)],
    }
    context = {
        "@type": _UPSTREAM_TLS,
        "sni": hostname,
        "common_tls_context": {"validation_context": validation},
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _san(hostname: str) -> Json:
    kind = "IP_ADDRESS" if _is_address(hostname) else "DNS"
    return {"san_type": kind, "matcher": {"exact": hostname}}
