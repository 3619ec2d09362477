"""A model server that speaks Anthropic's Messages, streams and counts tokens, and remembers what it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from serving import serving

WORDS = ("Heard", " you", ".")
USAGE = {"input_tokens": 20, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4_000}
"""What it tells of a prompt; 7 tokens of each answer."""
ANSWER_TOKENS = 7
COUNTED = 4_320
"""What it answers at ``count_tokens``."""


@dataclass
class Heard:
    """A call as the server got it."""

    method: str
    target: str  # with the query
    headers: dict[str, str]  # lower case
    body: Any  # parsed


@dataclass
class MessagesServer:
    """The server, while it runs."""

    models: set[str]
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    heard: list[Heard] = field(default_factory=list)

    @property
    def last(self) -> Heard:
        """The last call."""
        return self.heard[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[MessagesServer]

    def do_HEAD(self) -> None:
        self._heard(None)
        self._answer(200, {})

    def do_GET(self) -> None:
        ids = sorted(self.server_of.models)
        listed = {"object": "list", "data": [{"id": one, "type": "model", "display_name": one} for one in ids]}
        self._answer(200, listed) if self.path.startswith("/v1/models") else self._answer(404, {})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/api/show":
            self._answer(404, {})
            return
        body = json.loads(raw)
        self._heard(body)
        path = self.path.partition("?")[0]
        if body.get("model") not in self.server_of.models:
            error = {"type": "not_found_error", "message": f"model: {body.get('model')}"}
            self._answer(404, {"type": "error", "error": error, "request_id": "req_of_the_server"})
        elif path == "/v1/messages/count_tokens":
            self._answer(200, {"input_tokens": COUNTED})
        elif path != "/v1/messages":
            self._answer(404, {})
        elif body.get("stream"):
            self._stream(body["model"])
        else:
            self._answer(200, _message(body["model"]))

    def _heard(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_of.heard.append(Heard(self.command, self.path, headers, body))

    def _answer(self, status: int, told: Any) -> None:
        content = json.dumps(told).encode()
        self._begin(status, "application/json", {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _stream(self, model: str) -> None:
        self._begin(200, "text/event-stream", {"Transfer-Encoding": "chunked"})
        for event in _events(model):
            piece = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self, status: int, content_type: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": content_type} | more | self.server_of.headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE | {"output_tokens": ANSWER_TOKENS},
    }


def _events(model: str) -> Iterator[dict[str, Any]]:
    empty = {"content": [], "stop_reason": None, "usage": USAGE | {"output_tokens": 1}}
    yield {"type": "message_start", "message": _message(model) | empty}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for word in WORDS:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": ANSWER_TOKENS}}
    yield {"type": "message_stop"}


@contextmanager
def messages_server(*models: str) -> Iterator[MessagesServer]:
    """A server of these models on a free port."""
    made = MessagesServer({*models})
    with serving(_Handler, made, "messages-server") as made.url:
        yield made
