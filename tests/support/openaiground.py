"""Models of two tenants on the whole machine, for callers who use OpenAI's clients; taken away at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any

from upclient import Operator
from upmachine import UpMachine, until

PLENTY = {"requestsPerMinute": 10_000, "requestsPerHour": 100_000, "tokensPerHour": 10**8, "burstLimit": 1_000}
TEAM, OTHERS = "sdk-team", "sdk-others"
LLM, CHAT = "my-llm", "chat-sample"
SHARED = f"{OTHERS}/{LLM}"

_numbers = count()


class _KnowsModels(BaseHTTPRequestHandler):
    """As much of a model server as makes it one."""

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "dying", "object": "model"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


class Ground:
    """``sdk-team`` has my-llm and chat-sample, ``sdk-others`` shares its my-llm and hides its chat-sample."""

    def __init__(self, machine: UpMachine, operator: Operator) -> None:
        self.machine = machine
        self.operator = operator
        self.host: str = machine.up["sample"]["openai"]["host"]
        self.gateway: str = machine.up["gateway_url"]
        self._gone: list[tuple[str, str]] = []

    @property
    def by_body(self) -> str:
        """The base URL under which a body names its model."""
        return f"{self.gateway}/v1"

    @property
    def by_path(self) -> str:
        """The base URL of sdk-team's my-llm alone."""
        return f"{self.gateway}/v1/models/sdk-llm"

    def build(self) -> None:
        """Publish."""
        for tenant in (TEAM, OTHERS):
            self.operator.must("POST", "/api/tenants", {"tenantId": tenant})
        server = next(one["url"] for one in self.operator.must("GET", "/api/models")["items"] if one["name"] == LLM)
        self.publish(TEAM, LLM, server, "/v1/models/sdk-llm")
        self.publish(TEAM, CHAT, server, "/v1/models/sdk-chat")
        self.publish(OTHERS, LLM, server, "/v1/models/others-llm", allowedTenants=[TEAM])
        self.publish(OTHERS, CHAT, server, "/v1/models/others-chat")

    def publish(self, tenant: str, model: str, server: str, path: str, **authentication: Any) -> None:
        """Register a model and publish it, with plenty of everything."""
        self.operator.must("POST", "/api/models", {"name": model, "tenantId": tenant, "url": server})
        config = {"externalPath": path, "rateLimiting": PLENTY, "authentication": authentication}
        place = f"/api/models/{model}/publish?tenantId={tenant}"
        self.operator.must("POST", place, {"config": config})
        self._gone.append((tenant, model))
        assert until(lambda: self.operator.must("GET", place)["status"] == "live")

    def publish_named(
        self, tenant: str, model: str, server: str, model_id: str, aliases: Sequence[str], **authentication: Any
    ) -> None:
        """Publish a model that its server calls otherwise, at ``/v1/models/sdk-<model>``."""
        asked = {"name": model, "modelId": model_id, "tenantId": tenant, "url": server}
        self.operator.must("POST", "/api/models", asked)
        config = {"externalPath": f"/v1/models/sdk-{model}", "rateLimiting": PLENTY, "authentication": authentication}
        place = f"/api/models/{model}/publish?tenantId={tenant}"
        self._gone.append((tenant, model))
        self.operator.must("POST", place, {"config": config | {"aliases": list(aliases)}})
        assert until(lambda: self.operator.must("GET", place)["status"] == "live")

    def key(self, *models: str, tenant: str = TEAM, **rate_limiting: int) -> str:
        """Mint a key for these models, with budgets of its own where given."""
        asked = {
            "tenantId": tenant,
            "name": f"sdk-{next(_numbers)}",
            "publications": list(models or (LLM,)),
            "rateLimiting": rate_limiting,
        }
        text: str = self.operator.must("POST", "/api/keys", asked)["apiKey"]
        return text

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers of a good call, for those who only need one."""
        return {"Host": self.host, "X-API-Key": self.key()}

    @contextmanager
    def dying_model(self) -> Iterator[str]:
        """A model that is published, and whose server is gone at the end."""
        with ThreadingHTTPServer(("127.0.0.1", 0), _KnowsModels) as server:
            thread = Thread(target=server.serve_forever, name="dying-model")
            thread.start()
            try:
                self.publish(TEAM, "dying", f"http://127.0.0.1:{server.server_port}", "/v1/models/dying")
                yield "dying"
            finally:
                server.shutdown()
                thread.join()

    def clear(self) -> None:
        """Take it all away."""
        for tenant, model in reversed(self._gone):
            for what in (f"/api/models/{model}/publish", f"/api/models/{model}"):
                self.operator.ask("DELETE", f"{what}?tenantId={tenant}")
        for tenant in (TEAM, OTHERS):
            for key in self.operator.must("GET", f"/api/keys?tenantId={tenant}")["items"]:
                self.operator.ask("DELETE", f"/api/keys/{key['id']}")
            self.operator.ask("DELETE", f"/api/tenants/{tenant}")


@contextmanager
def openai_ground(machine: UpMachine) -> Iterator[Ground]:
    """Publish, and take it away at the end."""
    ground = Ground(machine, Operator(machine))
    try:
        ground.build()
        yield ground
    finally:
        ground.clear()
