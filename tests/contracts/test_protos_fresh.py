"""The generated protos: fresh, and upstream's on the wire."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.data.accesslog import v3 as log_data
from envoy_data_plane.envoy.extensions.common.ratelimit import v3 as descriptors
from envoy_data_plane.envoy.service.accesslog import v3 as log
from envoy_data_plane.envoy.service.auth import v3 as auth
from envoy_data_plane.envoy.service.ratelimit import v3 as ratelimit
from envoy_data_plane.envoy.type import v3 as envoy_type
from envoy_data_plane.google.rpc import Status
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from protos import access_log_pb2, core_pb2, external_auth_pb2, health_pb2, rate_limit_pb2

_PROTOS = Path(__file__).parents[2] / "protos"

UPSTREAM = {
    core_pb2.Status: Status,
    core_pb2.SocketAddress: core.SocketAddress,
    core_pb2.Pipe: core.Pipe,
    core_pb2.Address: core.Address,
    core_pb2.Metadata: core.Metadata,
    core_pb2.HeaderValue: core.HeaderValue,
    core_pb2.HeaderMap: core.HeaderMap,
    core_pb2.HeaderValueOption: core.HeaderValueOption,
    core_pb2.HttpStatus: envoy_type.HttpStatus,
    access_log_pb2.StreamAccessLogsMessage: log.StreamAccessLogsMessage,
    access_log_pb2.StreamAccessLogsMessage.HTTPAccessLogEntries: log.StreamAccessLogsMessageHttpAccessLogEntries,
    access_log_pb2.HTTPAccessLogEntry: log_data.HttpAccessLogEntry,
    access_log_pb2.AccessLogCommon: log_data.AccessLogCommon,
    access_log_pb2.ResponseFlags: log_data.ResponseFlags,
    access_log_pb2.HTTPResponseProperties: log_data.HttpResponseProperties,
    external_auth_pb2.CheckRequest: auth.CheckRequest,
    external_auth_pb2.AttributeContext: auth.AttributeContext,
    external_auth_pb2.AttributeContext.Peer: auth.AttributeContextPeer,
    external_auth_pb2.AttributeContext.Request: auth.AttributeContextRequest,
    external_auth_pb2.AttributeContext.HttpRequest: auth.AttributeContextHttpRequest,
    external_auth_pb2.CheckResponse: auth.CheckResponse,
    external_auth_pb2.DeniedHttpResponse: auth.DeniedHttpResponse,
    external_auth_pb2.OkHttpResponse: auth.OkHttpResponse,
    rate_limit_pb2.RateLimitDescriptor: descriptors.RateLimitDescriptor,
    rate_limit_pb2.RateLimitDescriptor.Entry: descriptors.RateLimitDescriptorEntry,
    rate_limit_pb2.RateLimitDescriptor.RateLimitOverride: descriptors.RateLimitDescriptorRateLimitOverride,
    rate_limit_pb2.RateLimitRequest: ratelimit.RateLimitRequest,
    rate_limit_pb2.RateLimitResponse: ratelimit.RateLimitResponse,
    rate_limit_pb2.RateLimitResponse.RateLimit: ratelimit.RateLimitResponseRateLimit,
    rate_limit_pb2.RateLimitResponse.DescriptorStatus: ratelimit.RateLimitResponseDescriptorStatus,
}

SAME_ON_THE_WIRE = {("HttpStatus", "code"): "enum"}
"""Fields whose type differs from upstream's in name only: an enum and an int32 are both varints."""


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    """What is committed is what the generator makes of the .proto files today."""
    subprocess.run([str(_PROTOS / "generate.sh"), sys.executable, str(tmp_path)], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "protos").iterdir()}
    kept = {path.name: path.read_text() for path in _PROTOS.glob("*_pb2.py*")}
    assert made == kept


def test_every_message_is_held_against_upstream() -> None:
    """No trimmed message of Envoy's escapes the comparison below."""
    files = (access_log_pb2.DESCRIPTOR, core_pb2.DESCRIPTOR, external_auth_pb2.DESCRIPTOR, rate_limit_pb2.DESCRIPTOR)
    ours = {message.full_name for file in files for message in _messages(file.message_types_by_name.values())}
    assert ours == {message.DESCRIPTOR.full_name for message in UPSTREAM}


@pytest.mark.parametrize("ours", UPSTREAM, ids=lambda ours: ours.DESCRIPTOR.name)
def test_fields_are_upstreams(ours: type) -> None:
    """Each field we kept has upstream's number, type, repeatedness and oneof, as envoy-data-plane carries them."""
    upstream = {field.name: field.metadata["betterproto"] for field in dataclasses.fields(UPSTREAM[ours])}
    for field in ours.DESCRIPTOR.fields:
        theirs = upstream[field.name]
        assert field.number == theirs.number, field.name
        assert _type(field) == theirs.proto_type, field.name
        assert _repeated(field) == theirs.repeated, field.name
        assert _oneof(field) in {theirs.group, None}, field.name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(core_pb2.HeaderValueOption.HeaderAppendAction, core.HeaderValueOptionHeaderAppendAction)],
)
def test_enums_are_upstreams(ours: object, theirs: object) -> None:
    """The actions of a header mean what they mean to Envoy."""
    assert dict(ours.items()) == {value.name: value.value for value in theirs}


def test_health_is_grpcs() -> None:
    """Health speaks grpc.health.v1, whose fields and enum are fixed by gRPC."""
    assert health_pb2.HealthCheckRequest(service="x").SerializeToString() == b"\x0a\x01x"
    assert health_pb2.HealthCheckResponse(status="NOT_SERVING").SerializeToString() == b"\x08\x02"


def _messages(messages: Iterator[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from _messages(message.nested_types)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _type(field: FieldDescriptor) -> str:
    if same := SAME_ON_THE_WIRE.get((field.containing_type.name, field.name)):
        return same
    names = {
        value: name.removeprefix("TYPE_").lower()
        for name, value in vars(FieldDescriptor).items()
        if name.startswith("TYPE_")
    }
    return "map" if _is_map(field) else names[field.type]


def _repeated(field: FieldDescriptor) -> bool:
    return field.is_repeated and not _is_map(field)


def _oneof(field: FieldDescriptor) -> str | None:
    return field.containing_oneof.name if field.containing_oneof else None
