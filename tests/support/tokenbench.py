"""Calls that cost tokens and how they end, as Envoy tells the gate of both: for tests of reservations."""

from __future__ import annotations

from typing import Any

import grpc
from gatebench import Catalog, question, status

from catalog.records import Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.names import held_key
from ratelimit.service.edge import RATE_LIMIT_PATH
from ratelimit.tokens.endings import DOMAIN

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
    asked = question(key=key, publication=publication, model=publication.model)
    asked.attributes.request.http.size = size
    asked.attributes.metadata_context.filter_metadata["tollkeeper.request"].update(body)
    return asked


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
