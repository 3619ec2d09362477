"""Calls that cost tokens and how they end, as Envoy tells the gate of both: for tests of reservations."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import grpc
from gatebench import Catalog, question, status, with_body

from catalog.records import Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from protos.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.names import held_key
from ratelimit.service.edge import RATE_LIMIT_PATH
from ratelimit.service.endings_edge import ENDINGS_PATH
from ratelimit.tokens.meter import CHECK_NAMESPACE, USAGE_NAMESPACE
from ratelimit.tokens.stream_done import DOMAIN

CONTEXT = 1_000
BODY_BYTES = 90
HELD = held_key("0")
WHOLE = {"status": "200", "bytes": "400", "duration": "12", "flags": "-", "whole": "11"}
"""How a call ends that nothing befell."""


def openai_publication(catalog: Catalog, **fields: Any) -> PublicationRecord:
    """Add an openai model with room for twenty calls of 90 bytes and 10 tokens an hour."""
    policy = TokenPolicy(context_tokens=CONTEXT)
    facts: dict[str, Any] = {"model": "llm", "limits": Limits(tokens_per_hour=20 * 100), "tokens": policy}
    return catalog.publication(type=ModelType.OPENAI, protocol=Protocol.OPENAI, **(facts | fields))


def token_call(key: str, publication: PublicationRecord, *, size: int = BODY_BYTES, **body: Any) -> CheckRequest:
    """A call with a body of so many bytes and these counts, as Envoy tells of it."""
    return with_body(question(key=key, publication=publication), size, model=publication.model, **body)


def reservation_of(answer: CheckResponse) -> str | None:
    """The id under which an admitted call holds its tokens."""
    assert status(answer) == 200, answer
    fields = answer.dynamic_metadata.fields
    return fields["reservation"].string_value if "reservation" in fields else None


def ending(reservation: str, publication: PublicationRecord, **told: str) -> RateLimitRequest:
    """How a call ended, as Envoy tells it."""
    entries = {"reservation": reservation, "publication": publication.uid, **WHOLE, **told}
    request = RateLimitRequest(domain=DOMAIN)
    descriptor = request.descriptors.add()
    for key, value in entries.items():
        descriptor.entries.add(key=key, value=value)
    return request


class Teller:
    """Tells a gate how calls ended, over gRPC."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._should_rate_limit = self._channel.unary_unary(RATE_LIMIT_PATH)

    def tell(self, *requests: RateLimitRequest) -> None:
        """Tell of several at once; nobody is refused for it."""
        calls = [self._should_rate_limit.future(one.SerializeToString(), timeout=10) for one in requests]
        for call in calls:
            assert RateLimitResponse.FromString(call.result()).overall_code == RateLimitResponse.OK

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def logged(reservation: str, publication: PublicationRecord, **usage: float) -> HTTPAccessLogEntry:
    """How a call ended that nothing befell, as Envoy's access log says it."""
    entry = HTTPAccessLogEntry()
    common = entry.common_properties
    common.start_time.GetCurrentTime()
    common.duration.FromMilliseconds(12)
    common.time_to_last_downstream_tx_byte.FromMilliseconds(11)
    noted = common.metadata.filter_metadata
    noted[CHECK_NAMESPACE].update({"reservation": reservation, "publication": publication.uid})
    noted[USAGE_NAMESPACE].update(usage)
    entry.response.response_code.value = 200
    entry.response.response_body_bytes = 400
    return entry


def _message(entries: Sequence[HTTPAccessLogEntry]) -> bytes:
    made = StreamAccessLogsMessage()
    made.http_logs.log_entry.extend(entries)
    return made.SerializeToString()


class Logger:
    """Sends a gate's receiver the entries of an access log: a stream of one message."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
        self._stream = self._channel.stream_unary(ENDINGS_PATH)

    def log(self, *entries: HTTPAccessLogEntry) -> None:
        """Send all of them in one message."""
        self._stream(iter([_message(entries)]), timeout=10)

    def open(self) -> tuple[queue.SimpleQueue[list[HTTPAccessLogEntry] | None], Any]:
        """A stream that stays open, as Envoy's: what is put there is sent, None ends it; and its end."""
        waiting: queue.SimpleQueue[list[HTTPAccessLogEntry] | None] = queue.SimpleQueue()
        return waiting, self._stream.future(map(_message, iter(waiting.get, None)), timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
