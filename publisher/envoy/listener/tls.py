"""What Envoy shows callers over TLS: the https listener's socket, and the files of its certificates. Pure.

Each certificate is a file of its own that Envoy reads again when anything is renamed into its folder: a renewed one is
shown from the next handshake on, and no listener drains. Callers get the certificate that has the name they ask for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from publisher.envoy.files import Json, Resources, compact

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_ALPN: Final = ("h2", "http/1.1")
"""What is offered, the preferred first."""


def certificate_file(name: str, *, chain: str, key: str) -> Resources:
    """The file ``<name>.json`` of a certificate: its PEM chain and key are in it, so both change in one step."""
    return _file(name, {"inline_string": chain}, {"inline_string": key}, version=chain)


def certificate_paths(name: str, *, chain: str, key: str, folder: str) -> Resources:
    """The file of a certificate whose chain and key stay in files: read when something is renamed into ``folder``."""
    watched = {"watched_directory": {"path": folder}}
    return _file(name, {"filename": chain}, {"filename": key}, version=chain, **watched)


def tls_socket(certificates: Sequence[str]) -> Json:
    """TLS 1.2 or newer with these certificate files, the first for callers who name no host or an unknown one."""
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": list(_ALPN),
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [_read_from(PurePosixPath(file)) for file in certificates],
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _file(name: str, chain: Json, key: Json, *, version: str, **more: Any) -> Resources:
    certificate = {"certificate_chain": chain, "private_key": key, **more}
    said = hashlib.sha256(version.encode()).hexdigest()[:16]
    return Resources(said, {name: compact({"@type": f"{_TLS}.Secret", "name": name, "tls_certificate": certificate})})


def _read_from(file: PurePosixPath) -> Json:
    """Read again whenever something is renamed into its folder: a certificate's files may be links into another one."""
    source = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    return {"name": file.stem, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}
