"""How Envoy reports the end of a call to the gates: its gRPC access log, and the cluster of their receivers. Pure.

Only calls that Check gave a reservation are reported. Each of Envoy's threads keeps one stream to one gate, buffers
entries and sends them after ``FLUSH``; nothing is answered and nothing is sent again, so what a gate has not read when
it dies is lost, and left to the sweep (docs/decisions/0016, 0027).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from publisher.envoy.files import Json, http_options
from publisher.envoy.gate import GateTls, gate_cluster
from ratelimit.tokens.meter import CHECK_NAMESPACE

ENDINGS: Final = "tollkeeper-endings"
"""The cluster, and the log's name."""
FLUSH: Final = "0.05s"
HEADERS: Final = ("content-type",)
"""Of the answer: whether it is a stream, whatever was asked for."""
BUFFER_BYTES: Final = 256 * 1024
"""Entries of a thread that wait for the flush, or for a gate that reads too slowly; more are dropped, and counted."""
RETRIES: Final = 3
"""How often a stream that could not be opened is tried elsewhere; one that was opened is not tried again."""
PROMPT: Final[Json] = {
    "buffer_flush_interval": FLUSH,
    "buffer_size_bytes": BUFFER_BYTES,
    "grpc_stream_retry_policy": {"num_retries": RETRIES},
}
"""What Envoy's own defaults would do later or not at all."""

_KEPT_ALIVE: Final = {"connection_keepalive": {"interval": "5s", "timeout": "10s"}}
"""A gate's machine that has gone without a word is found out; else its stream would take entries for minutes."""

_TYPE: Final = "type.googleapis.com/envoy."


def endings_log() -> Json:
    """One of the listener's access logs."""
    common = {
        "log_name": ENDINGS,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": ENDINGS}},
        **PROMPT,
    }
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"metadata_filter": {"matcher": _has_reservation(), "match_if_key_not_found": False}},
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": common,
            "additional_response_headers_to_log": [*HEADERS],
        },
    }


def endings_cluster(written: Sequence[str], *, connect_timeout: str, tls: GateTls | None = None) -> Json:
    """The gates' receivers (``unix:/run/endings-0.sock``, ``127.0.0.1:9101``): as the gate, by another name."""
    cluster = gate_cluster(written, name=ENDINGS, connect_timeout=connect_timeout, tls=tls)
    return cluster | {"typed_extension_protocol_options": http_options({"http2_protocol_options": _KEPT_ALIVE})}


def _has_reservation() -> Json:
    path = [{"key": "reservation"}]
    return {"filter": CHECK_NAMESPACE, "path": path, "value": {"present_match": True}, "invert": False}
