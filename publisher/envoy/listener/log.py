"""Envoy's access log in a file: a JSON object a call. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from publisher.envoy.files import Json

REQUEST_ID_HEADER: Final = "x-request-id"
"""Made by Envoy for each call, whatever the caller sent; in the answer too."""

_TYPE: Final = "type.googleapis.com/envoy."

_CHECKED: Final = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{})%"
_LOGGED: Final = {
    "time": "%START_TIME%",
    "request_id": f"%REQ({REQUEST_ID_HEADER})%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
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


def file_log(path: str) -> Iterator[Json]:
    """The log in a file, ``path``; none where that is "".

    It is an access log of the listener's, beside that of endings.
    """
    if not path:
        return
    form = {"json_format": _LOGGED, "omit_empty_values": True}
    config = {
        "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": form,
    }
    yield {"name": "envoy.access_loggers.file", "typed_config": config}
