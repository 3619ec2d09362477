"""A model server that speaks KServe's protocols, as KServe's own and Triton do, and remembers what it was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Final

from serving import serving

JSON_LENGTH: Final = "inference-header-content-length"
_V1: Final = re.compile(r"/v1/models/([^/:]+)(?::(predict|explain))?")
_V2: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer|generate|generate_stream|config))?")


@dataclass
class Heard:
    """A call as the server got it."""

    method: str
    path: str  # with its query
    headers: dict[str, str]  # lower case
    body: bytes


@dataclass
class KServeServer:
    """The server, while it runs."""

    model: str  # what it calls its one model
    speaks: str  # "v1" or "v2"
    url: str = ""
    ready: bool = True
    heard: list[Heard] = field(default_factory=list)

    @property
    def last(self) -> Heard:
        """The last call."""
        return self.heard[-1]

    @property
    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [one.path for one in self.heard]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[KServeServer]

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("content-length", 0))))

    def _serve(self, body: bytes) -> None:
        server, path = self.server_of, self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.heard.append(Heard(self.command, self.path, headers, body))
        found = (_V1 if server.speaks == "v1" else _V2).fullmatch(path)
        if found is None or found[1] != server.model:
            self._answer(404, {"error": f"nothing at {path}"})
        elif not server.ready:
            self._answer(503, {"error": f"Model with name {server.model} is not ready."})
        elif server.speaks == "v1":
            self._v1(found[2], body)
        else:
            self._v2(found, headers, body)

    def _v1(self, act: str | None, body: bytes) -> None:
        if act is None:
            self._answer(200, {"name": self.server_of.model, "ready": True})
        else:
            found = [sum(row) for row in json.loads(body)["instances"]]
            self._answer(200, {"predictions": found} if act == "predict" else {"explanations": found})

    def _v2(self, found: re.Match[str], headers: dict[str, str], body: bytes) -> None:
        name, version, act = found[1], found[2] or "1", found[3]
        if act == "ready":
            self._answer(200, {"name": name, "ready": True})
        elif act is None:
            tensors = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
            about = {"name": name, "versions": ["1", "2"], "platform": "test", "inputs": tensors, "outputs": tensors}
            self._answer(200, about)
        elif act == "infer":
            self._answer(200, _inferred(name, version, headers, body))
        else:
            self._answer(200, {"model_name": name, "text_output": "hello"})

    def _answer(self, status: int, told: Any) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


def _inferred(name: str, version: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """What comes in as ``x`` goes out as ``x``: as numbers, whatever it came as."""
    length = int(headers.get(JSON_LENGTH, len(body)))
    asked = json.loads(body[:length])
    (tensor,) = asked["inputs"]
    data = tensor.get("data")
    if data is None:
        data = memoryview(body[length:]).cast("f").tolist()
    told = {"name": "x", "shape": tensor["shape"], "datatype": tensor["datatype"], "data": data}
    return {"model_name": name, "model_version": version, "id": asked.get("id", ""), "outputs": [told]}


@contextmanager
def kserve_server(model: str, speaks: str) -> Iterator[KServeServer]:
    """Run a server of one model."""
    made = KServeServer(model, speaks)
    with serving(_Handler, made, f"kserve-{model}") as made.url:
        yield made
