"""Somebody's own model servers behind a whole machine, for people's own clients to call; taken away at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count

from ownserver import OwnServer, own_server
from upclient import Operator
from upmachine import UpMachine, until

LLAMA = "llama3.1:8b"
QWEN = "Qwen/Qwen3-8B"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PLENTY = {"requestsPerMinute": 10_000, "requestsPerHour": 100_000, "tokensPerHour": 10**8, "burstLimit": 1_000}

_numbers = count()


@dataclass
class ClientGround:
    """A tenant with the model of an Ollama, that of a vLLM which wants a key, and Ollama's own API."""

    machine: UpMachine
    operator: Operator
    tenant: str
    ollama: OwnServer
    vllm: OwnServer
    _models: list[str] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """The address that works from here."""
        url: str = self.machine.up["gateway_url"]
        return url

    @property
    def base(self) -> str:
        """OpenAI's base URL."""
        return f"{self.gateway}/v1"

    @property
    def native(self) -> str:
        """Ollama's own host."""
        return f"{self.gateway}/models/{self.tenant}-ollama"

    @property
    def variables(self) -> dict[str, str]:
        """What every script is told: where, and keys: good, none, of a call a second, of one an hour, of few tokens."""
        return {
            "BASE": self.base,
            "NATIVE": self.native,
            "GATEWAY": self.gateway,
            "AZURE": f"{self.tenant}-llama",
            "PIXEL": PIXEL,
            "KEY": self.key(),
            "WRONG": "tk_nonsense",
            "SLOW": self.key(burstLimit=1),
            "LONG": self.key(requestsPerHour=1),
            "FEW": self.key(tokensPerHour=1_000),
        }

    def build(self) -> None:
        """Publish, as docs/ollama-and-vllm.md does."""
        self.operator.must("POST", "/api/tenants", {"tenantId": self.tenant})
        credential = {"upstreamAuth": {"value": f"Bearer {self.vllm.key}"}}
        llama = self._register({"url": f"{self.ollama.url}/v1"})
        self._publish(llama, {"externalPath": f"/openai/deployments/{self.tenant}-llama"})  # Azure's path
        qwen = self._register({"url": self.vllm.url, **credential})
        self._publish(qwen, {"externalPath": f"/v1/models/{self.tenant}-qwen"})
        native = self._register({"name": "ollama", "url": self.ollama.url, "type": "traditional"})
        self._publish(native, {"externalPath": f"/models/{self.tenant}-ollama"})

    def _register(self, asked: dict[str, object]) -> str:
        name: str = self.operator.must("POST", "/api/models", {"tenantId": self.tenant, **asked})["name"]
        self._models.append(name)
        return name

    def _publish(self, model: str, config: dict[str, object]) -> None:
        place = f"/api/models/{model}/publish?tenantId={self.tenant}"
        self.operator.must("POST", place, {"config": {"rateLimiting": PLENTY, **config}})
        assert until(lambda: self.operator.must("GET", place)["status"] == "live")

    def key(self, **rate_limiting: int) -> str:
        """Mint a key for all of it, with budgets of its own where given."""
        asked = {
            "tenantId": self.tenant,
            "name": f"client-{next(_numbers)}",
            "publications": [*self._models],
            "rateLimiting": rate_limiting,
        }
        text: str = self.operator.must("POST", "/api/keys", asked)["apiKey"]
        return text

    def clear(self) -> None:
        """Take it all away."""
        for model in reversed(self._models):
            for what in (f"/api/models/{model}/publish", f"/api/models/{model}"):
                self.operator.ask("DELETE", f"{what}?tenantId={self.tenant}")
        for key in self.operator.must("GET", f"/api/keys?tenantId={self.tenant}")["items"]:
            self.operator.ask("DELETE", f"/api/keys/{key['id']}")
        self.operator.ask("DELETE", f"/api/tenants/{self.tenant}")


@contextmanager
def client_ground(machine: UpMachine, tenant: str) -> Iterator[ClientGround]:
    """Publish, and take it away at the end."""
    with ExitStack() as stack:
        ollama = stack.enter_context(own_server("ollama", LLAMA))
        vllm = stack.enter_context(own_server("vllm", QWEN, key="sk-of-the-vllm"))
        ground = ClientGround(machine, Operator(machine), tenant, ollama, vllm)
        stack.callback(ground.clear)
        ground.build()
        yield ground
