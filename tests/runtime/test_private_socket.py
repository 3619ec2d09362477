"""Unix sockets are their owner's alone from the moment they are bound: a neighbour on the host never connects."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from runtime.addresses import UnixAddress
from runtime.clock import SystemClock
from runtime.grpc.front import QueueLimits
from runtime.grpc.grpcio import GrpcioFront
from runtime.grpc.native import NativeFront
from runtime.http.face import ProcessFace, facing
from runtime.http.serving import listening
from runtime.lifecycle import CannotStart
from runtime.private_socket import PrivateSocket
from runtime.readiness import Readiness

NOBODY = 65_534
NEIGHBOUR = """
import os, socket, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            socket.socket(socket.AF_UNIX).connect(os.path.join(folder, name))
        except OSError:
            continue
        sys.exit(1)
"""
"""Tries every socket that can be found below a folder; ends with 1 where one lets it in."""


@contextmanager
def front(kind: Callable[..., Any], path: Path) -> Iterator[None]:
    """A gRPC front that listens."""
    made = kind(
        {},
        target=f"unix:{path}",
        clock=SystemClock(),
        on_fault=lambda: pytest.fail("the front ended by a fault"),
        limits=QueueLimits(),
    )
    try:
        made.start()
        yield
    finally:
        made.stop(1)


@contextmanager
def in_a_loop(made: Callable[[Path], Any], path: Path) -> Iterator[None]:
    """An HTTP server that listens."""
    with asyncio.Runner() as runner:
        server = made(path)
        runner.run(server.__aenter__())
        try:
            yield
        finally:
            runner.run(server.__aexit__(None, None, None))


@asynccontextmanager
async def http_server(path: Path) -> AsyncIterator[None]:
    """The admin's."""
    async with listening(web.Application(), UnixAddress(path), option="--listen"):
        yield


@asynccontextmanager
async def face(path: Path) -> AsyncIterator[None]:
    """The gate's health and metrics."""
    shown = ProcessFace(lambda: Readiness((), (), {}), CollectorRegistry())
    async with facing(shown, UnixAddress(path), option="--http-listen"):
        yield


SERVERS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "native": lambda path: front(NativeFront, path),
    "grpcio": lambda path: front(GrpcioFront, path),
    "http": lambda path: in_a_loop(http_server, path),
    "face": lambda path: in_a_loop(face, path),
}
each_server = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
Server = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, in a process whose umask takes nothing away."""
    before = os.umask(0)
    with tempfile.TemporaryDirectory(prefix="tk-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
    os.umask(before)


def lets_a_neighbour_in(folder: Path) -> bool:
    """Whether another account of this machine can connect to any socket in the folder."""
    python = os.path.realpath(sys.executable)
    command = [python, "-I", "-S", "-c", NEIGHBOUR, str(folder)]
    done = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=False)
    assert done.returncode in {0, 1}
    return done.returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@each_server
def test_a_neighbour_never_connects(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while the socket's mode is about to be narrowed, nor afterwards."""
    let_in: list[bool] = []
    chmod = Path.chmod

    def slow_chmod(path: Path, mode: int) -> None:
        let_in.append(lets_a_neighbour_in(folder))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", slow_chmod)
    with server(folder / "it.sock"):
        let_in.append(lets_a_neighbour_in(folder))
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(str(folder / "it.sock"))
    assert let_in == [False, False]


@each_server
def test_it_has_its_mode_and_leaves_nothing(folder: Path, server: Server) -> None:
    """0600 whatever the umask; what a dead process left is no obstacle; at the end nothing is there."""
    path = folder / "it.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with server(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [one.name for one in folder.iterdir()] == ["it.sock"]
    assert list(folder.iterdir()) == []


@each_server
def test_a_file_is_not_replaced(folder: Path, server: Server) -> None:
    """A path that was mistyped costs nobody a file."""
    path = folder / "precious"
    path.write_text("mine")
    with pytest.raises(CannotStart, match="cannot be bound"), server(path):
        pass
    assert path.read_text() == "mine"
    assert [one.name for one in folder.iterdir()] == ["precious"]


def test_anothers_socket_is_not_taken_away(folder: Path) -> None:
    """Whoever has bound the place meanwhile keeps it."""
    path = folder / "it.sock"
    ours = PrivateSocket(path)
    with ours.binding() as place, socket.socket(socket.AF_UNIX) as first:
        first.bind(str(place))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        ours.remove()
        assert path.exists()
