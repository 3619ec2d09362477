"""KServe's own client and Triton's, as people install them, through a real Envoy to models of both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import requests
from clients import client_family
from kserveserver import KServeServer, kserve_server
from upclient import Operator
from upmachine import UpMachine, until

pytestmark = [pytest.mark.timeout(240)]

TEAM = "kserve-clients"
NUMBERS = [1.5, 2.5]


@dataclass
class Ground:
    """Two models of one tenant, and a key for both."""

    machine: UpMachine
    operator: Operator
    iris: KServeServer
    digits: KServeServer

    @property
    def host(self) -> str:
        """What the shared host is called."""
        host: str = self.machine.up["sample"]["openai"]["host"]
        return host

    def build(self) -> None:
        """Publish iris (v1) with an alias, and digits (v2), which its server calls otherwise."""
        self.operator.must("POST", "/api/tenants", {"tenantId": TEAM})
        self._publish({"name": "iris", "url": self.iris.url}, aliases=["flowers"])
        self._publish({"name": "digits", "url": self.digits.url, "modelId": self.digits.model})

    def _publish(self, model: dict[str, str], **config: Any) -> None:
        self.operator.must("POST", "/api/models", {"tenantId": TEAM, **model})
        self.operator.must("POST", self.place(model["name"]), {"config": config})
        assert until(lambda: self.shown(model["name"])["status"] == "live"), self.shown(model["name"])

    def place(self, model: str) -> str:
        """The path of a publication in the admin API."""
        return f"/api/models/{model}/publish?tenantId={TEAM}"

    def shown(self, model: str) -> Any:
        """What the API shows of a publication."""
        return self.operator.must("GET", self.place(model))

    def key(self, **limits: Any) -> str:
        """Mint a key for both."""
        asked = {"tenantId": TEAM, "name": "k", "publications": ["iris", "digits"], "rateLimiting": limits}
        text: str = self.operator.must("POST", "/api/keys", asked)["apiKey"]
        return text

    def clear(self) -> None:
        """Take it all away."""
        for model in ("iris", "digits"):
            self.operator.ask("DELETE", self.place(model))


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[Ground]:
    """The models, published."""
    with kserve_server("iris", "v1") as iris, kserve_server("digits-v7", "v2") as digits:
        made = Ground(up, Operator(up), iris, digits)
        try:
            made.build()
            yield made
        finally:
            made.clear()


@pytest.fixture(scope="module")
def said(ground: Ground) -> Any:
    """What a script's steps said; each script is run once."""

    @cache
    def run(script: str) -> Any:
        gateway = ground.machine.up["gateway_url"]
        variables = {"GATEWAY": gateway, "HOST": ground.host, "KEY": ground.key(), "WRONG": "tk_nonsense"}
        return client_family("kserve").run(script, timeout_s=120, **variables)

    return run


def test_kserves_client_predicts_by_the_first_protocol(said: Any, ground: Ground) -> None:
    """On the host and below the model's own path; an alias explains."""
    told = said("kserve_client.py")
    assert told["v1 host"] == told["v1 path"] == {"predictions": [6]}
    assert told["v1 explain"] == {"explanations": [6]}
    assert [told[f"v1 {what} {where}"] for what in ("live", "model") for where in ("host", "path")] == [True] * 4
    assert {"/v1/models/iris:predict", "/v1/models/iris:explain", "/v1/models/iris"} <= set(ground.iris.paths)


def test_kserves_client_infers_by_the_second(said: Any, ground: Ground) -> None:
    """As JSON and in binary; the server hears its own name for the model, whatever was said."""
    told = said("kserve_client.py")
    assert told["v2 host"] == told["v2 binary"] == told["v2 path"] == [ground.digits.model, NUMBERS]
    asked = [told[f"v2 {what} {where}"] for what in ("live", "ready", "model") for where in ("host", "path")]
    assert asked == [True] * 6
    assert not any("x-api-key" in one.headers for one in ground.digits.heard)


def test_kserves_client_is_told_what_is_wrong(said: Any) -> None:
    """By its own error, which has our words; a model that is not there is not ready."""
    told = said("kserve_client.py")
    assert told["unknown model"] is False
    assert (told["unknown"]["error"], "404" in told["unknown"]["text"]) == ("HTTPStatusError", True)
    assert "does not exist" in told["unknown"]["text"]
    assert "No valid API key" in told["refused"]["text"]


def test_tritons_client_infers(said: Any) -> None:
    """In binary and as JSON, a version too; metadata and readiness."""
    told = said("triton_client.py")
    assert told["host"] == told["path"] == ["1", NUMBERS]
    assert told["version"] == ["2", NUMBERS]
    assert [told[one] for one in ("live", "ready", "model")] == [True] * 3
    assert (told["server"], told["metadata"]) == ("tollkeeper", ["1", "2"])
    for one in ("unknown", "config", "refused"):
        assert told[one]["error"] == "InferenceServerException", told[one]


def ask(ground: Ground, key: str, path: str, body: Any = None) -> requests.Response:
    """Get, or post JSON."""
    headers = {"Host": ground.host, "X-API-Key": key}
    url = ground.machine.up["gateway_url"] + path
    return requests.request("GET" if body is None else "POST", url, json=body, headers=headers, timeout=20)


def test_questions_cost_no_call(ground: Ground) -> None:
    """A key of one call a minute asks as it likes, and then calls once."""
    key = ground.key(requestsPerMinute=1)
    for path in ("/", "/v2/health/live", "/v1/models/iris", "/v2/models/digits/ready", "/models/iris/v1/models/iris"):
        assert ask(ground, key, path).status_code == 200, path
    rows = {"instances": [[1, 2]]}
    assert ask(ground, key, "/v1/models/iris:predict", rows).json() == {"predictions": [3]}
    assert ask(ground, key, "/v1/models/iris:predict", rows).status_code == 429
    assert ask(ground, key, "/v1/models/iris").status_code == 200


def test_a_body_of_any_size_passes_unread(ground: Ground) -> None:
    """Nothing reads or holds it: larger than what an openai model may be sent."""
    rows = {"instances": [[1] * 2_500_000]}
    assert ask(ground, ground.key(), "/v1/models/iris:predict", rows).json() == {"predictions": [2_500_000]}
    assert len(ground.iris.last.body) > 7_000_000


def test_what_the_server_says_of_its_readiness_arrives(ground: Ground) -> None:
    """503 as KServe has it, which its client takes for not ready."""
    ground.digits.ready = False
    try:
        assert ask(ground, ground.key(), "/v2/models/digits/ready").status_code == 503
    finally:
        ground.digits.ready = True
