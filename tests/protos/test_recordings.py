"""Requests recorded from a real Envoy read the same through our trimmed protos and through upstream's full ones."""

from __future__ import annotations

from typing import Any

import pytest
from envoy_data_plane.envoy.service.auth import v3 as auth
from google.protobuf.message import Message

from protos.external_auth_pb2 import CheckRequest
from tests.recordings.record import CALLS, KEY, envoy_version, load

VERSION, RECORDINGS = load()


def _ours(value: Any) -> Any:
    """A message as plain values, every field of it; None where one with presence is not set."""
    if not isinstance(value, Message):
        return value
    return {field.name: _field(value, field) for field in value.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    content = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _ours(content[key]) for key in content}
    if field.is_repeated:
        return [_ours(item) for item in content]
    return None if field.has_presence and not message.HasField(field.name) else _ours(content)


def _theirs(value: Any, like: Any) -> Any:
    """The same of upstream's message, as far as ours goes."""
    if isinstance(like, dict):
        read = value.get if isinstance(value, dict) else lambda name: getattr(value, name)
        return {name: _theirs(read(name), inner) for name, inner in like.items()}
    if isinstance(like, list):
        return [_theirs(item, inner) for item, inner in zip(value, like, strict=True)]
    return value


@pytest.mark.parametrize("name", RECORDINGS)
def test_both_read_the_same(name: str) -> None:
    """Every field that ours has, with its value and its presence."""
    ours = _ours(CheckRequest.FromString(RECORDINGS[name]))
    theirs = auth.CheckRequest.parse(RECORDINGS[name])
    assert _theirs(theirs, ours) == ours
    assert set(ours["attributes"]["request"]["http"]["headers"]) == set(theirs.attributes.request.http.headers)


def test_nothing_the_gate_reads_is_left_out_by_trimming() -> None:
    """Headers, the route's metadata, the body, the caller's address."""
    attributes = CheckRequest.FromString(RECORDINGS["body decides"]).attributes
    assert attributes.request.http.raw_body == b'{"model":"llm","n":1}'
    assert dict(attributes.route_metadata_context.filter_metadata["tollkeeper"]) == {"openai_host": "api.example.test"}
    assert attributes.source.address.socket_address.address == "127.0.0.1"
    assert attributes.request.http.headers["x-api-key"] == KEY


def test_recordings_are_of_the_envoy_we_run() -> None:
    """A newer Envoy wants new recordings: ``python -m tests.recordings.record``."""
    assert envoy_version() == VERSION
    assert set(RECORDINGS) == set(CALLS)
