"""How Envoy reaches the gate: the cluster of its workers, which of them are asked, and who each side shows to be. Pure.

Calls go round all workers in turn. Where there are several, or a name that may stand for several, one that has died or
drains is left out: at once when a call or a connection to it fails, else at the next health check; it is back with the
first good one. No call is tried twice: a Check may have been counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from publisher.addresses import is_address
from publisher.envoy.files import Json, assignment, http_options, socket_address
from runtime.addresses import Address, UnixAddress, parse_address

GATE: Final = "tollkeeper-gate"

MAX_CALLS: Final = 4096
"""Calls at once to the gate, waiting ones included; more are answered 503."""

LEFT_OUT: Final = "2s"
"""For how long a worker that failed a call is not asked: longer than a health check takes to see if it is there. The
first good health check ends it, so one that only paused is asked again as soon as it is back."""

_TYPE: Final = "type.googleapis.com/envoy."

_HEALTH_INTERVAL: Final = "0.25s"
_HEALTH_TIMEOUT: Final = "1s"
"""Well above what a busy gate needs: one that is slow is not to be taken for dead."""

_OF_A_NAME: Final = 2
"""A name stands for at least so many gates, or for one that is then never left out for a failed call."""

_AT_ONCE: Final = "0s"
"""Else Envoy's threads would hear of a gate's health at most once a second, and ask one that has gone by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTls:
    """TLS to a gate with ``--transport grpcio``; PEM files as Envoy sees them, read again when they change."""

    ca: str
    """Authorities of the gate's certificate."""
    name: str
    """The name its certificate must have, also sent as SNI."""
    certificate: str = ""
    """What Envoy shows, for a gate with ``--tls-client-ca``; empty: nothing."""
    private_key: str = ""


def gate_cluster(written: Sequence[str], *, connect_timeout: str, tls: GateTls | None = None, name: str = GATE) -> Json:
    """The gate's workers (``unix:/run/gate-0.sock``, ``127.0.0.1:9001``) over HTTP/2."""
    targets = [parse_address(one) for one in written]
    named = any(map(is_named, targets))
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": connect_timeout,
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": assignment(name, [_address(target) for target in targets]),
        "circuit_breakers": {"thresholds": [{"max_pending_requests": MAX_CALLS, "max_requests": MAX_CALLS}]},
        "typed_extension_protocol_options": http_options({"http2_protocol_options": {}}),
    }
    if named or len(targets) > 1:
        cluster |= _leaving_out(_OF_A_NAME if named else len(targets))
    if tls is not None:
        cluster["transport_socket"] = _transport_socket(tls)
    return cluster


def is_named(target: Address) -> bool:
    """Whether it is a name, which may stand for several workers."""
    return not isinstance(target, UnixAddress) and not is_address(target.host)


def _leaving_out(count: int) -> Json:
    """Ask those that are there. If none seems to be, all are asked: a gate without its store has answers of its own."""
    health = {
        "timeout": _HEALTH_TIMEOUT,
        "interval": _HEALTH_INTERVAL,
        "no_traffic_interval": _HEALTH_INTERVAL,
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "grpc_health_check": {},
    }
    outliers = {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": _HEALTH_INTERVAL,
        "base_ejection_time": LEFT_OUT,
        "max_ejection_time": LEFT_OUT,
        "max_ejection_percent": 100 * (count - 1) // count,
        "successful_active_health_check_uneject_host": True,
    }
    return {
        "health_checks": [health],
        "outlier_detection": outliers,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": _AT_ONCE},
    }


def _transport_socket(tls: GateTls) -> Json:
    """TLS 1.2 or newer; the gate must show the name, by a certificate of the authorities."""
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {
            "trusted_ca": {"filename": tls.ca},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.name}}],
        },
    }
    if tls.certificate:
        files = {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.private_key}}
        common["tls_certificates"] = [files]
    context = {
        "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": tls.name,
        "common_tls_context": common,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _address(target: Address) -> Json:
    if isinstance(target, UnixAddress):
        return {"pipe": {"path": str(target.path)}}
    return socket_address(target.host, target.port)
