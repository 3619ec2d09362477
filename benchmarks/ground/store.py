"""A Valkey under measurement, as the benchmarks see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import redis


@dataclass(frozen=True)
class Store:
    """Where it is, and the process whose time counts."""

    path: Path
    port: int
    pid: int

    @property
    def url(self) -> str:
        """How a gate reaches it."""
        return f"unix://{self.path}"

    def client(self) -> redis.Redis:
        """A plain client, to look and to command."""
        return redis.Redis(unix_socket_path=str(self.path))
