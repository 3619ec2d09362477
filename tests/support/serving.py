"""A small HTTP server of a test's in a thread of its own, which ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], of: object, name: str, port: int = 0) -> Iterator[str]:
    """Serve on loopback, and tell where; ``of``: what the handler finds as its ``server_of``."""
    own = type("Handler", (handler,), {"server_of": of})
    with ThreadingHTTPServer(("127.0.0.1", port), own) as server:
        thread = Thread(target=server.serve_forever, name=name)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
