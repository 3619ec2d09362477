"""A store that hangs, breaks or is away: every answer still comes in time, and the gate heals by itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from gatebench import PATIENT, WIRES, Asker, Catalog, Wire, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from catalog.records import Limits
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckResponse
from runtime.clock import SystemClock
from runtime.grpc.front import QueueLimits
from runtime.lifecycle import CannotStart
from runtime.store.link import StoreLink

ENVOY_TIMEOUT_S = 0.2


@pytest.fixture(params=["native-unix", "grpcio-tcp"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Both transports, each on one kind of address: what happens to the store is the same story on the other two."""
    return WIRES[request.param]


@contextmanager
def running_gate(
    url: str, secrets: Secrets, registry: CollectorRegistry, wire: Wire, limits: QueueLimits = PATIENT
) -> Iterator[tuple[Gate, Asker]]:
    """A gate and a client, ready or not."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(wire.target(folder), url, secrets, registry, limits, wire)
        gate.start()
        asker = Asker(gate.address)
        try:
            yield gate, asker
        finally:
            asker.close()
            gate.stop()


@pytest.fixture
def own_valkey(valkey_binary: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Valkey of this test alone, that may be stopped and killed; its URL and process."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        path = Path(folder) / "v.sock"
        command = [valkey_binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _pings(path))
                yield f"unix://{path}", process
            finally:
                process.send_signal(signal.SIGCONT)
                process.kill()


def _pings(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_with_a_hung_store_our_503_comes_before_envoys(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """A store that stops answering costs 50 ms, not Envoy's 200; and when it goes on, so do we."""
    url, process = own_valkey
    _, ask = Catalog(url, secrets).callable_publication(Limits(per_minute=100))
    with running_gate(url, secrets, registry, wire, QueueLimits()) as (gate, asker):
        wait_until(lambda: gate.readiness().ready)
        wait_until(lambda: status(asker.ask(ask)) == 200)
        process.send_signal(signal.SIGSTOP)
        for _ in range(5):
            assert status(asker.ask(ask, timeout_s=5 * ENVOY_TIMEOUT_S)) == 503
        assert not gate.readiness().ready
        assert gate.readiness().problems
        unknown = registry.get_sample_value("tollkeeper_unknown_outcomes_total")
        assert unknown is not None
        assert 1 <= unknown <= 5
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: gate.readiness().ready)
        wait_until(lambda: status(asker.ask(ask)) == 200)


def test_a_batch_the_store_sees_too_late_takes_nothing(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """What was sent before the store hung is not counted when it wakes: its deadline has passed."""
    url, process = own_valkey
    publication, ask = Catalog(url, secrets).callable_publication(Limits(per_minute=100))
    with running_gate(url, secrets, registry, wire) as (gate, asker), redis.Redis.from_url(url) as store:
        wait_until(lambda: gate.readiness().ready)
        assert status(asker.ask(ask)) == 200
        process.send_signal(signal.SIGSTOP)
        assert status(asker.ask(ask)) == 503
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: gate.readiness().ready)
        gate.stop()  # which writes what it has counted
        assert store.hget(f"tk:usage:{{0}}:p:{publication.uid}", "total") == b"1"


def test_without_a_store_the_gate_refuses_at_once_and_says_why(
    tmp_path: Path, secrets: Secrets, registry: CollectorRegistry, catalog: Catalog, wire: Wire
) -> None:
    """Never connected: 503 for keys that must be looked up, 401 for what cannot be a key, unready with a reason."""
    publication = catalog.publication()
    _, text = catalog.key(publication)
    with running_gate(f"unix://{tmp_path}/absent.sock", secrets, registry, wire) as (gate, asker):
        begun_s = time.monotonic()
        assert status(asker.ask(question(key=text, publication=publication))) == 503
        assert status(asker.ask(question(key="tk_forged", publication=publication))) == 401
        assert time.monotonic() - begun_s < 5 * ENVOY_TIMEOUT_S
        wait_until(lambda: "absent.sock" in str(gate.readiness().problems))


def test_a_restarted_store_is_used_again(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """A store that forgot the script and dropped the connection is found again without help."""
    url, _ = own_valkey
    _, ask = Catalog(url, secrets).callable_publication()
    with running_gate(url, secrets, registry, wire) as (gate, asker), redis.Redis.from_url(url) as store:
        wait_until(lambda: gate.readiness().ready)
        store.script_flush()
        assert status(asker.ask(ask)) == 200
        store.client_kill_filter(_type="normal")
        wait_until(lambda: status(asker.ask(ask)) == 200)


class Dribble:
    """A server on a Unix socket that answers everything one byte at a time, without end."""

    def __init__(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(BrokenPipeError):
            while not self._done.wait(0.01):
                connection.sendall(b"+")

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self._thread.join()
        self._server.close()


def test_a_dribbling_reply_does_not_stretch_the_deadline(tmp_path: Path) -> None:
    """The deadline holds for the whole exchange, however often a byte arrives."""
    server = Dribble(tmp_path / "d.sock")
    clock = SystemClock()
    link = StoreLink(f"unix://{tmp_path}/d.sock", clock)
    with socket.socket(socket.AF_UNIX) as connection:  # past redis-py's handshake, which wants real answers
        connection.connect(str(tmp_path / "d.sock"))
        link._socket = connection
        begun_ms = clock.monotonic_ms()
        with pytest.raises(redis.TimeoutError):
            link.execute(begun_ms + 50, "PING")
    assert 50 <= clock.monotonic_ms() - begun_ms < 250
    assert not link.connected
    server.stop()


def test_a_drained_gate_answers_what_it_has_taken(
    redis_url: str, catalog: Catalog, secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """Stopping loses no call that was taken: each of 200 in flight is answered."""
    catalog.tenant()
    publication = catalog.publication()
    _, text = catalog.key(publication)
    with running_gate(redis_url, secrets, registry, wire) as (gate, asker):
        wait_until(lambda: gate.readiness().ready)
        raw = question(key=text, publication=publication).SerializeToString()
        futures = [asker._check.future(raw, timeout=10) for _ in range(200)]
        futures[0].result()
        gate.drain()
        assert not gate.readiness().ready
        assert [status(CheckResponse.FromString(future.result())) for future in futures] == [200] * 200


def test_a_store_that_became_a_replica_admits_nobody(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """A demoted store has an old epoch: even calls without budgets are refused there, and the gate says why."""
    url, _ = own_valkey
    _, ask = Catalog(url, secrets).callable_publication()
    with running_gate(url, secrets, registry, wire) as (gate, asker), redis.Redis.from_url(url) as store:
        wait_until(lambda: gate.readiness().ready)
        assert status(asker.ask(ask)) == 200
        store.replicaof("127.0.0.1", "1")
        assert {status(asker.ask(ask)) for _ in range(5)} == {503}
        wait_until(lambda: "read-only replica" in str(gate.readiness().problems).lower())
        store.replicaof("no", "one")
        wait_until(lambda: gate.readiness().ready)
        assert status(asker.ask(ask)) == 200


def test_a_store_without_memory_admits_nobody(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """What cannot be counted is not let through, and usage is not lost silently."""
    url, _ = own_valkey
    _, ask = Catalog(url, secrets).callable_publication()
    with running_gate(url, secrets, registry, wire) as (gate, asker), redis.Redis.from_url(url) as store:
        wait_until(lambda: gate.readiness().ready)
        store.config_set("maxmemory", "1mb")
        assert status(asker.ask(ask)) == 503
        assert not gate.readiness().ready
        store.config_set("maxmemory", "0")
        wait_until(lambda: gate.readiness().ready)
        assert status(asker.ask(ask)) == 200


def test_a_link_that_died_idle_costs_no_call(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """A connection that the store closed while nobody called is replaced before the next call needs it."""
    url, _ = own_valkey
    _, ask = Catalog(url, secrets).callable_publication()
    with running_gate(url, secrets, registry, wire) as (gate, asker), redis.Redis.from_url(url) as store:
        wait_until(lambda: gate.readiness().ready)
        old = gate._links.current()
        store.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: gate._links.current() not in {old, None})
        assert status(asker.ask(ask)) == 200


def test_a_killed_store_makes_an_idle_gate_unready(
    own_valkey: tuple[str, subprocess.Popen[bytes]], secrets: Secrets, registry: CollectorRegistry, wire: Wire
) -> None:
    """Readiness tells without any call that the store has gone."""
    url, process = own_valkey
    with running_gate(url, secrets, registry, wire) as (gate, _):
        wait_until(lambda: gate.readiness().ready)
        process.kill()
        wait_until(lambda: not gate.readiness().ready)


@pytest.mark.parametrize("name", ["native-unix", "grpcio-unix"])
def test_a_socket_in_use_is_not_taken_over(
    redis_url: str, secrets: Secrets, registry: CollectorRegistry, name: str
) -> None:
    """A second gate on the same path is refused in a sentence; the first goes on. A left-over path is no obstacle."""
    with running_gate(redis_url, secrets, registry, WIRES[name]) as (gate, asker):
        second = make_gate(gate.address, redis_url, secrets, CollectorRegistry(), wire=WIRES[name])
        with pytest.raises(CannotStart, match="another process listens there"):
            second.start()
        second.stop()
        assert status(asker.ask(question())) == 404


@pytest.mark.parametrize("name", ["native-tcp", "grpcio-tcp"])
def test_a_taken_port_is_one_sentence(redis_url: str, secrets: Secrets, name: str) -> None:
    """What cannot be bound is told with its address, and nothing of the gate is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gate = make_gate(address, redis_url, secrets, CollectorRegistry(), wire=WIRES[name])
        with pytest.raises(CannotStart, match=f"{address}: cannot be bound"):
            gate.start()
        gate.stop()
        ours = {"grpc-io", "grpc-batches", "budgets-keeper", "feed-follower"}
        assert not ours & {thread.name for thread in threading.enumerate()}
