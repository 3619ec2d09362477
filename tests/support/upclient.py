"""An operator with the admin API of a whole machine, and somebody who looks into its Envoy."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Protocol

import requests
from upmachine import UpMachine

ANSWER_S = 30


class Reached(Protocol):
    """A machine that tells how it is reached, in the words of ``up.json``."""

    up: dict[str, Any]


class Operator:
    """Speaks to the admin API, logged in."""

    def __init__(self, machine: Reached) -> None:
        self._url = machine.up["admin_url"]
        self._headers: dict[str, str] = {}
        login = {"username": machine.up["admin_username"], "password": machine.up["admin_password"]}
        token = self.must("POST", "/api/admin/login", login)["token"]
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Return whatever is answered."""
        headers = self._headers | options.pop("headers", {})
        return requests.request(method, self._url + path, json=body, headers=headers, timeout=ANSWER_S, **options)

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer that must be good."""
        answer = self.ask(method, path, body)
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.text else None


class EnvoyAdmin:
    """Reads Envoy's admin interface."""

    def __init__(self, machine: UpMachine) -> None:
        self._socket = machine.up["envoy_admin_socket"]

    def text(self, path: str) -> str:
        """Return what it says."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(self._socket)
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.read().decode()

    def json(self, path: str) -> Any:
        """Return what it says, parsed."""
        return json.loads(self.text(path))

    def stats(self, pattern: str) -> dict[str, str]:
        """Return its counters, gauges and texts whose names match."""
        lines = self.text(f"/stats?filter={pattern}").splitlines()
        return dict(line.split(": ", 1) for line in lines)
