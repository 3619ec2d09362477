"""A gate that serves ordinary descriptors, and a client that asks it as Envoy does."""

from __future__ import annotations

import grpc
from gatebench import NATIVE_UNIX, Wire, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate.assembly import Gate
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.service.edge import RATE_LIMIT_PATH

Entry = dict[str, str]
Brought = tuple[int, int]
"""Calls a unit, and ``RateLimitUnit``."""


class Service:
    """Asks the gate as Envoy does."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._ask = self._channel.unary_unary(RATE_LIMIT_PATH)

    def ask(
        self,
        *descriptors: Entry,
        hits: int = 0,
        each: tuple[int | None, ...] = (),
        brought: tuple[Brought | None, ...] = (),
        domain: str = "shop",
    ) -> RateLimitResponse:
        """One call.

        ``each``: the hits of its descriptors, ``None`` for the call's, below 0 given back. ``brought``: the limits that
        it brings along for them.
        """
        request = RateLimitRequest(domain=domain, hits_addend=hits)
        for number, entries in enumerate(descriptors):
            made = request.descriptors.add()
            for key, value in entries.items():
                made.entries.add(key=key, value=value)
            if each and (own := each[number]) is not None:
                made.hits_addend.value, made.is_negative_hits = abs(own), own < 0
            if brought and (limit := brought[number]) is not None:
                made.limit.requests_per_unit, made.limit.unit = limit  # type: ignore[assignment]
        return RateLimitResponse.FromString(self._ask(request.SerializeToString(), timeout=10))

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def ordinary_gate(redis_url: str, secrets: Secrets, registry: CollectorRegistry, wire: Wire = NATIVE_UNIX) -> Gate:
    """Make one that is ready."""
    gate = make_gate("127.0.0.1:0", redis_url, secrets, registry, wire=wire)
    gate.start()
    wait_until(lambda: gate.readiness().ready)
    return gate
