"""An Envoy as the release before configured it: it says how a call ended by a ratelimit call when the stream is done.

To be deleted with ``ratelimit.service.stream_done``.
"""

from __future__ import annotations

from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit"
_CHECKED = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{})%"
_USAGE = "%DYNAMIC_METADATA(tollkeeper.usage:{})%"
_TOLD = {
    "reservation": _CHECKED.format("reservation"),
    "publication": _CHECKED.format("publication"),
    "status": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "whole": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",
    **{name: _USAGE.format(name) for name in ("total", "prompt", "completion")},
}
_FLAG = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"


def as_the_release_before(config: dict[str, Any], *, formats: bool = True) -> dict[str, Any]:
    """Today's configuration with that filter instead of the access log; without the runtime flag it formats nothing."""
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["access_log"] = []
    manager["http_filters"].insert(-1, _settle_filter())
    layers = [{"name": "tollkeeper", "static_layer": {_FLAG: True}}] if formats else []
    return config | {"layered_runtime": {"layers": layers}}


def _settle_filter() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.ratelimit/tollkeeper",
        "typed_config": {
            "@type": _TYPE,
            "domain": "tollkeeper",
            "failure_mode_deny": False,
            "timeout": "2s",
            "rate_limits": [{"apply_on_stream_done": True, "actions": [_entry(*one) for one in _TOLD.items()]}],
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "tollkeeper-gate"}, "timeout": "2s"},
            },
        },
    }


def _entry(key: str, text: str) -> dict[str, Any]:
    entry = {"descriptor_key": key, "descriptor_value": text}
    return {"generic_key": entry if key == "reservation" else entry | {"default_value": "-"}}
