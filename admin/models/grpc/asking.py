"""Asks a server by gRPC whether it and its model are ready, at addresses that were checked.

Two questions of the Open Inference Protocol: ``ServerReady`` and ``ModelReady``. Both have messages of one field, which
Google's wrappers have too: a name at 1 asked, a truth at 1 told.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BoolValue, StringValue
from grpc.aio import AioRpcError, Channel, insecure_channel, secure_channel

from admin.models.addresses import IpAddress, Target
from admin.models.discovery import GRPC, Finding, not_ready
from catalog.inference import READY, ROOT, SERVICE

MAX_ANSWER_BYTES: Final = 64 * 1024
Metadata = Sequence[tuple[str, str]]

_MODEL_READY: Final = f"{ROOT}/ModelReady"
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_ANSWER_BYTES),
    ("grpc.primary_user_agent", "tollkeeper"),
)
_LOCKED: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_UNKNOWN: Final = (grpc.StatusCode.UNIMPLEMENTED,)


def trust_of(upstream_ca: Path | None) -> grpc.ChannelCredentials:
    """What servers are held to: these authorities, or the system's; gRPC itself would bring its own."""
    file = upstream_ca or ssl.get_default_verify_paths().cafile
    return grpc.ssl_channel_credentials(Path(file).read_bytes() if file else None)


async def ask(
    target: Target, addresses: Sequence[IpAddress], name: str, metadata: Metadata, trust: grpc.ChannelCredentials
) -> Finding:
    """Ask a server about its model ``name``; bounded by who calls."""
    async with _channel(target, addresses, trust) as channel:
        try:
            if not await _told(channel, READY, b"", metadata):
                return not_ready("the server says that it is not ready", GRPC)
            return await _of_model(channel, name, metadata)
        except AioRpcError as error:
            return _failed(error.code())
        except DecodeError:
            return not_ready(f"the server does not speak {SERVICE}", GRPC)


async def _of_model(channel: Channel, name: str, metadata: Metadata) -> Finding:
    try:
        is_ready = await _told(channel, _MODEL_READY, StringValue(value=name).SerializeToString(), metadata)
    except AioRpcError as error:
        if error.code() in _UNKNOWN:  # it says of no model by itself whether it is ready
            return GRPC
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return not_ready("the server has no model of this name", GRPC)
        raise
    return GRPC if is_ready else not_ready("the server says that the model is not ready", GRPC)


async def _told(channel: Channel, path: str, question: bytes, metadata: Metadata) -> bool:
    answer: bytes = await channel.unary_unary(path)(question, metadata=tuple(metadata))
    return BoolValue.FromString(answer).value


def _channel(target: Target, addresses: Sequence[IpAddress], trust: grpc.ChannelCredentials) -> Channel:
    """A channel to the checked addresses, all of one family, by the name that the URL says."""
    version = addresses[0].version
    found = [f"[{one}]" if version == 6 else str(one) for one in addresses if one.version == version]  # noqa: PLR2004
    where = f"ipv{version}:{','.join(f'{one}:{target.port}' for one in found)}"
    authority = target.url.partition("://")[2]
    options = (*_OPTIONS, ("grpc.default_authority", authority))
    if target.scheme == "http":
        return insecure_channel(where, options=options)
    return secure_channel(where, trust, options=(*options, ("grpc.ssl_target_name_override", target.host)))


def _failed(code: grpc.StatusCode) -> Finding:
    """Say what failed in our own words: the server's may be anything."""
    if code in _LOCKED:
        return replace(
            not_ready(f"the server answered {code.name} (upstreamAuth gives it the key that it wants)", GRPC),
            is_locked=True,
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return not_ready("no connection by gRPC (HTTP/2; over TLS where the URL is https)", GRPC)
    if code in _UNKNOWN:
        return not_ready(f"the server does not speak {SERVICE}", GRPC)
    return not_ready(f"the server answered {code.name}", GRPC)
