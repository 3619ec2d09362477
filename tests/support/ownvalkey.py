"""A Valkey of one test alone, that may be stopped, filled, locked and killed."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from gatebench import wait_until


@dataclass
class OwnValkey:
    """It, while it runs."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def own_valkey(binary: str, *options: str) -> Iterator[OwnValkey]:
    """Run one on a Unix socket until the body ends."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        path = Path(folder) / "v.sock"
        command = [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder, *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _answers(path))
                yield OwnValkey(f"unix://{path}", process)
            finally:
                process.send_signal(signal.SIGCONT)
                process.kill()


def _answers(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.ping())
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False
