"""Models of gRPC on the whole machine, and callers of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc
import pytest
from upclient import Operator
from upmachine import UpMachine, until

from tests.support.inference.protocol import google_rpc, messages, services
from tests.support.inference.server import InferenceServer

TEAM, OTHERS = "grpc-team", "grpc-others"
IRIS, HIDDEN = "grpc-iris", "grpc-hidden"
PLENTY = {"requestsPerMinute": 10_000, "requestsPerHour": 100_000, "burstLimit": 1_000}
PATIENCE_S = 20.0
Metadata = tuple[tuple[str, str | bytes], ...]

_numbers = count()


class Ground:
    """``grpc-team`` has grpc-iris on the host of all, ``grpc-others`` has grpc-hidden; one server has both."""

    def __init__(self, machine: UpMachine, operator: Operator, server: InferenceServer) -> None:
        self.machine, self.operator, self.server = machine, operator, server
        self.host: str = machine.up["sample"]["openai"]["host"]
        self.where: str = machine.up["gateway_url"].partition("://")[2]
        self._gone: list[tuple[str, str]] = []

    def build(self) -> None:
        """Publish."""
        for tenant in (TEAM, OTHERS):
            self.operator.must("POST", "/api/tenants", {"tenantId": tenant})
        self.publish(IRIS)
        self.publish(HIDDEN, tenant=OTHERS)

    def publish(self, name: str, tenant: str = TEAM, url: str = "", **config: Any) -> Any:
        """Register a model, which its server calls iris, and publish it."""
        asked = {"name": name, "modelId": "iris", "url": url or self.server.url, "protocol": "grpc", "tenantId": tenant}
        self.operator.must("POST", "/api/models", asked)
        self._gone.append((tenant, name))
        place = f"/api/models/{name}/publish?tenantId={tenant}"
        made = self.operator.must("POST", place, {"config": {"rateLimiting": PLENTY} | config})
        assert until(lambda: self.operator.must("GET", place)["status"] == "live"), self.operator.must("GET", place)
        return made

    def key(self, *models: str, tenant: str = TEAM, **rate_limiting: int) -> str:
        """A key for these models, IRIS at first."""
        named = {"tenantId": tenant, "name": f"grpc-{next(_numbers)}", "publications": list(models or (IRIS,))}
        text: str = self.operator.must("POST", "/api/keys", named | {"rateLimiting": rate_limiting})["apiKey"]
        return text

    @contextmanager
    def dial(self, host: str = "", *options: tuple[str, Any]) -> Iterator[Any]:
        """A stub by h2c, for this authority."""
        with grpc.insecure_channel(self.where, options=self.options(host, *options)) as channel:
            yield services.GRPCInferenceServiceStub(channel)

    def options(self, host: str = "", *more: tuple[str, Any]) -> Sequence[tuple[str, Any]]:
        """What a channel is opened with."""
        return (("grpc.default_authority", host or self.host), *more)

    def clear(self) -> None:
        """Take it all away."""
        for tenant, model in reversed(self._gone):
            for what in (f"/api/models/{model}/publish", f"/api/models/{model}"):
                self.operator.ask("DELETE", f"{what}?tenantId={tenant}")
        for tenant in (TEAM, OTHERS):
            for key in self.operator.must("GET", f"/api/keys?tenantId={tenant}")["items"]:
                self.operator.ask("DELETE", f"/api/keys/{key['id']}")
            self.operator.ask("DELETE", f"/api/tenants/{tenant}")


def infer(model: str = "iris", **fields: Any) -> Any:
    """A request of inference."""
    return messages.ModelInferRequest(model_name=model, **fields)


def refused(call: Callable[[], object]) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def trailers(error: Any) -> dict[str, str | bytes]:
    """What came behind the status, by name."""
    return dict(error.trailing_metadata())


def reason(error: Any) -> str:
    """Our word for it."""
    return str(trailers(error).get("x-tollkeeper-reason", ""))


def details(error: Any) -> tuple[Any, float]:
    """ErrorInfo, and what RetryInfo says to wait in seconds: 0 where there is none."""
    status = google_rpc.Status.FromString(trailers(error)["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, retry = google_rpc.ErrorInfo(), google_rpc.RetryInfo()
    assert status.details[0].Unpack(info)
    if len(status.details) > 1:
        assert status.details[1].Unpack(retry)
    return info, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
