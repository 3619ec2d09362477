"""``tollkeeper probe``: asks a process of this machine how it is; for containers' health checks."""

from __future__ import annotations

import http.client
import socket
from typing import Final

from runtime.addresses import Address, TcpAddress, UnixAddress
from runtime.lifecycle import CannotStart
from runtime.settings import ListenAddress, Settings

PATIENCE_S: Final = 4.0
"""Longest wait for the answer: under the health check's own 5 s."""


class ProbeSettings(Settings):
    """Ask a process of this machine whether it is alive, or ready: exit 0 if so, else 1 and what it says."""

    probe_at: ListenAddress = TcpAddress("127.0.0.1", 9090)
    """Where it answers: `--http-listen` of a gate or an admin; an admin's `--listen` does too, without a reason."""

    probe_ready: bool = False
    """Ask /readyz instead of /healthz: for who sends it work, not for who restarts it."""


async def serve(settings: ProbeSettings) -> None:
    """Ask once; raises ``CannotStart`` with the answer where it is not good."""
    path = "/readyz" if settings.probe_ready else "/healthz"
    try:
        status, said = _ask(settings.probe_at, path)
    except (OSError, http.client.HTTPException) as error:
        raise CannotStart(f"{settings.probe_at} does not answer: {error}") from error
    if status != http.client.OK:
        raise CannotStart(f"{settings.probe_at}{path} answers {status}: {said}")


def _ask(address: Address, path: str) -> tuple[int, str]:
    connection = _Connection(address)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket too."""

    def __init__(self, address: Address) -> None:
        host, port = (address.host, address.port) if isinstance(address, TcpAddress) else ("localhost", 0)
        super().__init__(host, port, timeout=PATIENCE_S)
        self._address = address

    def connect(self) -> None:
        if not isinstance(self._address, UnixAddress):
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._address.path))
