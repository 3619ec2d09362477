"""A model server of one's own as a stub: answers as Ollama, vLLM, llama.cpp, LM Studio and TGI do where clients look.

It refuses models that it does not know and, where it has a key, callers without it; and it remembers what it heard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Final

import dialects
from dialects import Json
from serving import serving


@dataclass(frozen=True)
class Kind:
    """What one server program is like."""

    card: Json = field(default_factory=dict)  # of a model in its list, besides the id
    speaks_anthropic: bool = True
    speaks_ollama: bool = False
    root: str = ""  # what GET / says; "": 404
    told: tuple[str, Json] = ("", {})  # a page on which it tells its context, and what it says there


_LLAMA_CPP: Final = ("/props", {"default_generation_settings": {"n_ctx": 8192}})
_TGI: Final = ("/info", {"max_total_tokens": 8192})
KINDS: Final = {
    "ollama": Kind({"owned_by": "library", "created": 1}, speaks_ollama=True, root="Ollama is running"),
    "vllm": Kind({"owned_by": "vllm", "created": 1, "root": "/models/it", "parent": None, "max_model_len": 8192}),
    "llama.cpp": Kind({"owned_by": "llamacpp", "created": 1, "meta": {"n_ctx_train": 8192}}, told=_LLAMA_CPP),
    "lm-studio": Kind({"owned_by": "organization_owner"}),
    "tgi": Kind({"owned_by": "hf", "created": 0}, speaks_anthropic=False, told=_TGI),
    "sglang": Kind({"owned_by": "sglang", "created": 1, "root": "it", "max_model_len": 8192}, speaks_anthropic=False),
}


@dataclass
class Heard:
    """A call as the server got it."""

    method: str
    path: str
    headers: dict[str, str]  # lower case
    body: Any  # parsed; None: there was none


@dataclass
class OwnServer:
    """The server, while it runs."""

    kind: Kind
    models: tuple[str, ...]
    key: str  # "": it wants none
    url: str = ""
    heard: list[Heard] = field(default_factory=list)

    def heard_at(self, path: str) -> list[Heard]:
        """The calls of one path."""
        return [one for one in self.heard if one.path == path]


Whole = Callable[[Json], Json]
Pieces = Callable[[Json], Iterator[bytes]]
_OPENAI: Final[dict[str, tuple[Whole, Pieces | None]]] = {
    "/v1/chat/completions": (dialects.chat, lambda asked: dialects.sse(dialects.chat_pieces(asked), end="[DONE]")),
    "/v1/completions": (dialects.completion, None),
    "/v1/embeddings": (dialects.embeddings, None),
    "/v1/responses": (
        dialects.response,
        lambda asked: dialects.sse(dialects.response_events(asked), named=True),
    ),
}
_ANTHROPIC: Final[tuple[Whole, Pieces]] = (
    dialects.message,
    lambda asked: dialects.sse(dialects.message_events(asked), named=True),
)
_OLLAMA: Final = {"/api/chat": dialects.ollama_chat, "/api/generate": dialects.ollama_generate}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ClassVar[OwnServer]

    def do_GET(self) -> None:
        if not self._may(None):
            return
        own, path = self.server_of, self.path.partition("?")[0]
        if path == "/v1/models":
            cards = [{"id": one, "object": "model", **own.kind.card} for one in own.models]
            self._tell(200, {"object": "list", "data": cards})
        elif path == "/" and own.kind.root:
            self._send(200, "text/plain", own.kind.root.encode())
        elif path == own.kind.told[0]:
            self._tell(200, own.kind.told[1])
        elif path == "/api/tags" and own.kind.speaks_ollama:
            self._tell(200, {"models": [{"name": one, "model": one, "size": 1, "digest": "0"} for one in own.models]})
        else:
            self._tell(404, {"error": {"message": f"nothing at {path}"}})

    def do_POST(self) -> None:
        body = json.loads(self._body())
        if not self._may(body):
            return
        own, path = self.server_of, self.path.partition("?")[0]
        if path == "/api/show" and own.kind.speaks_ollama:
            self._tell(200, {"model_info": {"llama.context_length": 8192}, "capabilities": ["completion", "tools"]})
        elif body.get("model") not in own.models:
            self._tell(404, {"error": {"message": f"model '{body.get('model')}' not found", "type": "api_error"}})
        elif path in _OLLAMA and own.kind.speaks_ollama:
            is_stream = body.get("stream", True)
            lines = dialects.ndjson(_OLLAMA[path](body))
            self._stream("application/x-ndjson", lines) if is_stream else self._send(
                200, "application/json", b"".join(lines)
            )
        elif answer := _ANTHROPIC if path == "/v1/messages" and own.kind.speaks_anthropic else _OPENAI.get(path):
            whole, pieces = answer
            if body.get("stream") and pieces:
                self._stream("text/event-stream", pieces(body))
            else:
                self._tell(200, whole(body))
        else:
            self._tell(404, {"error": {"message": f"nothing at {path}"}})

    def _may(self, body: Any) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_of.heard.append(Heard(self.command, self.path, headers, body))
        if not self.server_of.key or headers.get("authorization") == f"Bearer {self.server_of.key}":
            return True
        self._tell(401, {"error": "Unauthorized"})
        return False

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _tell(self, status: int, told: Json) -> None:
        self._send(status, "application/json", json.dumps(told).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, kind: str, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@contextmanager
def own_server(kind: str, *models: str, key: str = "", port: int = 0) -> Iterator[OwnServer]:
    """A server of this kind with these models on loopback."""
    made = OwnServer(KINDS[kind], models, key)
    with serving(_Handler, made, "own-server", port) as made.url:
        yield made
