"""What the first tests read like: an operator with the admin API, a caller with a key, one whole machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from upmachine import UpMachine, until

HOST = "api.router.inference-in-a-box"


class Operator:
    """Speaks to the admin API."""

    def __init__(self, up: dict[str, Any]) -> None:
        self._url = up["admin_url"]
        login = {"username": up["admin_username"], "password": up["admin_password"]}
        token = self.ask("POST", "/api/admin/login", json=login)["token"]
        self._headers = {"Authorization": f"Bearer {token}"}

    _headers: dict[str, str] | None = None

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer's JSON; a refusal fails the test with what it says."""
        answer = requests.request(method, self._url + path, headers=self._headers, timeout=20, **options)
        assert answer.ok, answer.text
        return answer.json() if answer.text else None

    def publish(self, model: str, tenant: str = "tenant-a", **rate_limiting: int) -> dict[str, Any]:
        """Publish a model and wait until it is live."""
        config = {"tenantId": tenant, "rateLimiting": rate_limiting}
        published: dict[str, Any] = self.ask("POST", f"/api/models/{model}/publish", json={"config": config})
        assert until(lambda: self.ask("GET", f"/api/models/{model}/publish")["status"] == "live")
        return published


class Caller:
    """Calls a model through Envoy."""

    def __init__(self, up: dict[str, Any]) -> None:
        self._url = up["gateway_url"]

    def predict(self, model: str, key: str | None) -> requests.Response:
        """Ask a traditional model for a prediction."""
        headers = {"Host": HOST} | ({"X-API-Key": key} if key else {})
        body = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}
        return requests.post(f"{self._url}/models/{model}/predict", json=body, headers=headers, timeout=20)


@pytest.fixture
def operator(up: UpMachine) -> Operator:
    """The admin, logged in."""
    return Operator(up.up)


@pytest.fixture
def caller(up: UpMachine) -> Caller:
    """Somebody with or without a key."""
    return Caller(up.up)


@pytest.fixture
def model(operator: Operator) -> Iterator[str]:
    """A model that is ready and unpublished, before the test and after it."""
    yield "my-model"
    requests.delete(f"{operator._url}/api/models/my-model/publish", headers=operator._headers, timeout=20)
