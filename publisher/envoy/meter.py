"""How Envoy meters a call: what it reads of the bodies, and what it tells when the stream is done. Pure.

Of the request Check is told the model and the counts that bound its cost; of the answer the usage is kept, whole or as
server-sent events; when the stream is done, Envoy's ratelimit filter sends all of it with the reservation that Check
gave the call (docs/decisions/0016). Nobody waits for that call, and its failure harms no caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from publisher.envoy.files import BODY_FILTER, SSE_FILTER, Json
from publisher.envoy.gate import GATE

REQUEST_NAMESPACE: Final = "tollkeeper.request"
"""What json_to_metadata read from the request's body; present only where a JSON body was parsed."""
USAGE_NAMESPACE: Final = "tollkeeper.usage"
"""What was read of the answer's usage: `total`, `prompt`, `completion`."""
CHECK_NAMESPACE: Final = "envoy.filters.http.ext_authz"
"""What Check said of the call: its `reservation` and `publication`."""
DOMAIN: Final = "tollkeeper"
"""Of the settlement's ratelimit call."""
FORMATTER_FLAG: Final = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"
"""Lets a descriptor's value be a substitution format; off in Envoy unless its runtime says otherwise."""
SETTLE_FILTER: Final = "envoy.filters.http.ratelimit/tollkeeper"
"""A name of its own: the listener may have another filter of this kind."""
UNKNOWN: Final = "-"
"""Stands for what Envoy does not know."""

_OWN_GATE: Final = {"cluster_name": GATE}
_TYPE: Final = "type.googleapis.com/envoy."
_MAX_EVENT_BYTES: Final = 1024 * 1024
"""Largest server-sent event that is read. The Responses API's last one repeats the whole answer, so Envoy's default of
8 KiB would drop its usage; an event is looked through anew with each piece of it that arrives, so more costs time."""
_JSON_TYPE: Final = r"(?i)application/json[ \t]*(;.*)?"

_COUNTS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "stream")
_USAGE: Final = {
    "total": (("usage", "total_tokens"), ("response", "usage", "total_tokens")),
    "prompt": (
        ("usage", "prompt_tokens"),
        ("usage", "input_tokens"),
        ("message", "usage", "input_tokens"),
        ("response", "usage", "input_tokens"),
    ),
    "completion": (
        ("usage", "completion_tokens"),
        ("usage", "output_tokens"),
        ("message", "usage", "output_tokens"),
        ("response", "usage", "output_tokens"),
    ),
}
"""Where answers say what they cost: OpenAI's APIs (chat, completions, embeddings, responses), Anthropic's Messages."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Where the tokens of an answer are found in its dynamic metadata."""

    namespace: str = USAGE_NAMESPACE
    total: str = "total"
    prompt: str = "prompt"
    completion: str = "completion"

    def __str__(self) -> str:
        """As settings write it: ``NAMESPACE:TOTAL,PROMPT,COMPLETION``."""
        return f"{self.namespace}:{self.total},{self.prompt},{self.completion}"


OWN_METER: Final = Meter()


def body_filter() -> Json:
    """Read the request for Check and the answer for the settlement, on routes that turn it on."""
    request = {"rules": list(_request_rules()), "allow_content_types_regex": {"regex": _JSON_TYPE}}
    response = {"rules": _usage_rules(), "allow_content_types_regex": {"regex": _JSON_TYPE}}
    return {
        "name": BODY_FILTER,
        "disabled": True,
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
            "request_rules": request,
            "response_rules": response,
        },
    }


def sse_filter() -> Json:
    """Read the usage of an answer that comes as server-sent events, on routes that turn it on."""
    parser = {
        "@type": f"{_TYPE}extensions.content_parsers.json.v3.JsonContentParser",
        "rules": [{"rule": rule} for rule in _usage_rules()],
    }
    return {
        "name": SSE_FILTER,
        "disabled": True,
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.sse_to_metadata.v3.SseToMetadata",
            "response_rules": {
                "content_parser": {"name": "envoy.content_parsers.json", "typed_config": parser},
                "max_event_size": _MAX_EVENT_BYTES,
            },
        },
    }


def settle_filter(meter: Meter, *, timeout: str, gate: Mapping[str, str] = _OWN_GATE) -> Json:
    """Tell the gate how a call ended that Check gave a reservation. ``gate``: how Envoy's gRPC client reaches it."""
    return {
        "name": SETTLE_FILTER,
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": DOMAIN,
            "failure_mode_deny": False,
            "timeout": timeout,
            "rate_limits": [_ending(meter)],
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": dict(gate), "timeout": timeout},
            },
        },
    }


def runtime() -> Json:
    """What Envoy's runtime must say for the settlement."""
    return {"layers": [{"name": "tollkeeper", "static_layer": {FORMATTER_FLAG: True}}]}


def _request_rules() -> Sequence[Json]:
    """The body's model and counts as they stand there, and by ``json`` that there was a JSON body at all."""
    there = {"metadata_namespace": REQUEST_NAMESPACE, "key": "json", "value": True}
    is_json = {"selectors": _selectors("model"), "on_present": there}  # a fixed value is set for any JSON body
    usage = _rule(REQUEST_NAMESPACE, "include_usage", "stream_options", "include_usage")
    return [_rule(REQUEST_NAMESPACE, "model", "model"), is_json, usage] + [
        _rule(REQUEST_NAMESPACE, name, name) for name in _COUNTS
    ]


def _usage_rules() -> list[Json]:
    return [_rule(USAGE_NAMESPACE, key, *path, type="NUMBER") for key, paths in _USAGE.items() for path in paths]


def _rule(namespace: str, key: str, *path: str, **more: Any) -> Json:
    return {
        "selectors": _selectors(*path),
        "on_present": {"metadata_namespace": namespace, "key": key, **more},
    }


def _selectors(*path: str) -> list[Json]:
    return [{"key": name} for name in path]


def _ending(meter: Meter) -> Json:
    """One descriptor: whose call it was, and all that Envoy knows of its end."""
    told = {
        "status": "%RESPONSE_CODE%",
        "bytes": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "whole": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",  # known only where the last byte was sent
        **{name: _metadata(meter.namespace, getattr(meter, name)) for name in _USAGE},
    }
    actions = [_value("reservation", _metadata(CHECK_NAMESPACE, "reservation"), default="")]
    actions += [_value("publication", _metadata(CHECK_NAMESPACE, "publication"))]
    actions += [_value(name, text) for name, text in told.items()]
    return {"apply_on_stream_done": True, "actions": actions}


def _metadata(namespace: str, *path: str) -> str:
    return f"%DYNAMIC_METADATA({':'.join((namespace, *path))})%"


def _value(key: str, text: str, *, default: str = UNKNOWN) -> Json:
    """A descriptor's entry; without a default the whole descriptor is left out where there is no value."""
    entry = {"descriptor_key": key, "descriptor_value": text}
    return {"generic_key": entry | ({"default_value": default} if default else {})}
