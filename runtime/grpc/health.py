"""The standard gRPC health service (grpc.health.v1), unary Check only. Sees protobuf; knows no service of ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from protos.health_pb2 import HealthCheckRequest, HealthCheckResponse

HEALTH_PATH: Final = "/grpc.health.v1.Health/Check"
_MAX_BATCH: Final = 256


class HealthService:
    """Answers SERVING while ``serving()`` holds, for the server as a whole and for the services named."""

    def __init__(self, serving: Callable[[], bool], services: Collection[str]) -> None:
        self._serving = serving
        self._known = {"", *services}
        self.max_batch = _MAX_BATCH

    def answer(self, payloads: Sequence[bytes], _deadline_ms: float) -> Sequence[bytes]:
        """Answer every question, in order."""
        return [self._status(payload) for payload in payloads]

    def _status(self, payload: bytes) -> bytes:
        try:
            known = HealthCheckRequest.FromString(payload).service in self._known
        except DecodeError:
            known = False
        status = HealthCheckResponse.SERVICE_UNKNOWN
        if known:
            status = HealthCheckResponse.SERVING if self._serving() else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status).SerializeToString()

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Their lengths."""
        return [*map(len, payloads)]

    def overloaded(self, payload: bytes) -> bytes:
        """Health is cheap: answer it all the same."""
        return self._status(payload)

    def undelivered(self, answer: bytes) -> None:
        """Nothing hangs on who hears it."""
