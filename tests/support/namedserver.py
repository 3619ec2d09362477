"""A model server that knows its models by names of its own and refuses all others, as vLLM and Ollama do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from serving import serving


@dataclass
class Heard:
    """A call as the server got it."""

    path: str
    headers: dict[str, str]  # lower case
    body: bytes

    @property
    def model(self) -> Any:
        """As a server reads it, of a form too."""
        if self.headers["content-type"].startswith("application/json"):
            return json.loads(self.body)["model"]
        head, _, rest = self.body.partition(b'name="model"\r\n\r\n')
        assert head
        return rest.partition(b"\r\n")[0].decode()


@dataclass
class NamedServer:
    """The server, while it runs."""

    models: set[str]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)

    @property
    def last(self) -> Heard:
        """The last call that named a model, whether it knew it or not."""
        return self.heard[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[NamedServer]

    def do_GET(self) -> None:
        ids = sorted(self.server_of.models)
        self._answer(
            200 if self.path == "/v1/models" else 404, {"object": "list", "data": [{"id": one} for one in ids]}
        )

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        heard = Heard(self.path, headers, self._body(headers))
        if self.path == "/api/show":
            self._answer(404, {})
            return
        self.server_of.heard.append(heard)
        model = heard.model
        if model not in self.server_of.models:
            self._answer(404, {"error": {"message": f"the model {model!r} does not exist", "code": "model_not_found"}})
            return
        self._answer(200, _answer_of(model, json.loads(heard.body) if "json" in headers["content-type"] else {}))

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self.rfile.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, told: Any) -> None:
        is_stream = isinstance(told, bytes)
        content = told if is_stream else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


def _answer_of(model: str, asked: Any) -> Any:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    card: dict[str, Any] = {"id": "chat-1", "created": 1, "model": model, "text": "heard"}
    if not asked.get("stream"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "heard"}}
        return card | {"object": "chat.completion", "choices": [choice], "usage": usage}
    piece = card | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "heard"}}]}
    last = card | {"object": "chat.completion.chunk", "choices": [], "usage": usage}
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (piece, last)) + b"data: [DONE]\n\n"


@contextmanager
def named_server(*models: str) -> Iterator[NamedServer]:
    """A server of these models on a free port."""
    made = NamedServer({*models})
    with serving(_Handler, made, "named-server") as made.url:
        yield made
