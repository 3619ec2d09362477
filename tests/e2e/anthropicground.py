"""A model server that speaks Messages behind a whole machine, for Anthropic's own clients; taken away at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from messagesserver import MessagesServer, messages_server
from upclient import Operator
from upmachine import UpMachine, until

MODEL = "claude-like"
ALIAS = "claude-sonnet-4-5"
PLENTY = {"requestsPerMinute": 10_000, "requestsPerHour": 100_000, "tokensPerHour": 10**8, "burstLimit": 1_000}

_numbers = count()


@dataclass
class AnthropicGround:
    """Three models of a tenant's: one that answers, by two names; one with few tokens; one whose server is away."""

    machine: UpMachine
    operator: Operator
    server: MessagesServer
    tenant: str
    _models: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        """The base URL of Anthropic's clients: the gateway's, and nothing behind it."""
        url: str = self.machine.up["gateway_url"]
        return url

    def build(self) -> None:
        """Publish."""
        self.operator.must("POST", "/api/tenants", {"tenantId": self.tenant})
        plenty = {"tokens": {"contextTokens": 200_000}, "rateLimiting": PLENTY}
        self._publish(MODEL, self.server.url, {**plenty, "aliases": [ALIAS]})
        self._publish("small", self.server.url, plenty | {"rateLimiting": PLENTY | {"tokensPerHour": 20_000}})
        with messages_server("away") as away:
            self._publish("away", away.url, plenty)

    def _publish(self, model: str, url: str, config: dict[str, Any]) -> None:
        asked = {"name": model, "tenantId": self.tenant, "url": url}
        self.operator.must("POST", "/api/models", asked)
        self._models.append(model)
        place = f"/api/models/{model}/publish?tenantId={self.tenant}"
        config = {"externalPath": f"/v1/models/{self.tenant}-{model}", **config}
        self.operator.must("POST", place, {"config": config})
        assert until(lambda: self.operator.must("GET", place)["status"] == "live")

    def key(self, *models: str, **rate_limiting: int) -> str:
        """Mint a key for these models, or all, with budgets of its own where given."""
        asked = {
            "tenantId": self.tenant,
            "name": f"client-{next(_numbers)}",
            "publications": list(models or self._models),
            "rateLimiting": rate_limiting,
        }
        text: str = self.operator.must("POST", "/api/keys", asked)["apiKey"]
        return text

    def tokens_used(self) -> int:
        """What has been charged of the model so far."""
        place = f"/api/models/{MODEL}/publish?tenantId={self.tenant}"
        used: int = self.operator.must("GET", place)["usage"]["tokensUsed"]
        return used

    def clear(self) -> None:
        """Take it all away."""
        for model in reversed(self._models):
            for what in (f"/api/models/{model}/publish", f"/api/models/{model}"):
                self.operator.ask("DELETE", f"{what}?tenantId={self.tenant}")
        for key in self.operator.must("GET", f"/api/keys?tenantId={self.tenant}")["items"]:
            self.operator.ask("DELETE", f"/api/keys/{key['id']}")
        self.operator.ask("DELETE", f"/api/tenants/{self.tenant}")


@contextmanager
def anthropic_ground(machine: UpMachine, tenant: str) -> Iterator[AnthropicGround]:
    """Publish, and take it away at the end."""
    with messages_server(MODEL, "small") as server:
        ground = AnthropicGround(machine, Operator(machine), server, tenant)
        try:
            ground.build()
            yield ground
        finally:
            ground.clear()
