"""A gate of several workers: one health, one sum, and workers that come back and never outlive their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gatebench import Asker, Catalog, question, status, wait_until
from gaterow import GateRow, command, gate_row, is_alive, kill
from tokenbench import Logger

from catalog.keys.secrets import create_secrets, load_secrets
from protos.access_log_pb2 import HTTPAccessLogEntry

DECIDED = "tollkeeper_decisions_total"
RESTARTS = "tollkeeper_worker_restarts_total"


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    """The file that gates are given."""
    create_secrets(tmp_path / "secrets.json")
    return tmp_path / "secrets.json"


@pytest.fixture
def row(redis_url: str, secrets_file: Path) -> Iterator[GateRow]:
    """A gate of two workers."""
    with gate_row(redis_url, secrets_file, "--workers", "2", "--drain-s", "1") as row:
        yield row


def ask(target: str, count: int = 1) -> None:
    """Ask a worker so often; nothing is published, so each answer is 404."""
    asker = Asker(target)
    assert {status(answer) for answer in asker.ask_many([question()] * count, timeout_s=30)} == {404}
    asker.close()


def test_what_workers_count_is_summed_and_never_goes_down(row: GateRow) -> None:
    """A killed worker's counts stay, it is back at its own address, and what it was (its memory, say) has gone."""
    first, second = row.targets()
    assert first.endswith("gate-0.sock")
    assert second.endswith("gate-1.sock")
    ask(first, 3)
    ask(second, 5)
    assert row.total(DECIDED) == 8
    assert row.total("tollkeeper_decision_seconds_count") == 8
    assert row.total("process_resident_memory_bytes", worker="1") > 0
    victim = row.pids()[1]
    kill(victim)
    wait_until(lambda: victim not in row.pids())
    assert row.total(DECIDED) == 8
    wait_until(lambda: row.ready()["ready"], timeout_s=30)
    assert row.total(RESTARTS, worker="1") == 1
    assert row.total(RESTARTS) == 1
    assert row.total(DECIDED) == 8
    ask(second, 2)
    assert row.total(DECIDED) == 10
    assert "worker 1 was killed by SIGKILL" in row.log.read_text()
    assert victim not in row.pids()


def test_readiness_names_the_worker_that_is_away(row: GateRow) -> None:
    """Not ready while one worker is away, and which one it is; the other goes on answering."""
    seen: list[dict[str, Any]] = []
    kill(row.pids()[0])
    wait_until(lambda: (told := row.ready())["ready"] is False and not seen.append(told))
    assert [problem["code"] for problem in seen[0]["problems"]] == ["worker_away"]
    assert seen[0]["problems"][0]["problem"].startswith("worker 0: it ")
    assert [worker["ready"] for worker in seen[0]["workers"]] == [False, True]
    ask(row.targets()[1])
    wait_until(lambda: row.ready()["ready"], timeout_s=30)


def test_a_worker_that_says_nothing_is_told(row: GateRow) -> None:
    """A stopped worker holds up neither health nor metrics, and after five seconds it is not counted on."""
    pid = row.pids()[1]
    os.kill(pid, signal.SIGSTOP)
    begun_s = time.monotonic()
    row.total(DECIDED)
    assert time.monotonic() - begun_s < 5
    wait_until(lambda: "worker 1: it has said nothing for" in str(row.ready()["problems"]), timeout_s=30)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: row.ready()["ready"], timeout_s=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_row_told_to_go_turns_unready_first_and_still_answers(row: GateRow, number: signal.Signals) -> None:
    """The parent's signal drains every worker, also where the whole group hears it; then all end by themselves."""
    targets, pids = row.targets(), row.pids()
    for pid in (row.process.pid, *pids):
        os.kill(pid, number)
    wait_until(lambda: not row.ready()["ready"])
    for target in targets:
        ask(target)
    assert row.process.wait(30) == 0
    assert not any(map(is_alive, pids))
    assert "restart" not in row.log.read_text()
    assert "Traceback" not in row.log.read_text()


def test_a_killed_parent_leaves_no_worker_behind(row: GateRow) -> None:
    """Even kill -9 of the parent ends the workers."""
    pids = row.pids()
    assert len(pids) == 2
    kill(row.process.pid)
    wait_until(lambda: not any(map(is_alive, pids)))


def test_ports_count_up_and_free_ports_are_kept(redis_url: str, secrets_file: Path, catalog: Catalog) -> None:
    """Port 0: each worker has a free port of its own, and is back on it when it was killed."""
    _, admitted = catalog.callable_publication()
    with gate_row(redis_url, secrets_file, "--workers", "2", "--listen", "127.0.0.1:0") as row:
        targets = row.targets()
        assert len(set(targets)) == 2
        kill(row.pids()[0])
        wait_until(lambda: row.total(RESTARTS) == 1)
        wait_until(lambda: row.ready()["ready"], timeout_s=30)
        assert row.targets() == targets
        asker = Asker(targets[0])
        assert status(asker.ask(admitted)) == 200
        asker.close()


@pytest.fixture
def catalog(redis_url: str, secrets_file: Path) -> Catalog:
    """A catalog with the gates' secrets."""
    return Catalog(redis_url, load_secrets(secrets_file))


def refusal(*options: str) -> str:
    """What a gate says that cannot start."""
    done = subprocess.run(command(*options, "--workers", "2"), capture_output=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_what_a_worker_cannot_start_with_is_the_parents_sentence(redis_url: str, tmp_path: Path) -> None:
    """Secrets that are not there, or a port that is taken, end the whole gate with one sentence."""
    common = ("--redis-url", redis_url, "--http-listen", "127.0.0.1:0")
    listen = ("--listen", f"unix:{tmp_path}/g.sock")
    assert "worker " in (said := refusal(*common, *listen, "--secrets-file", str(tmp_path / "none.json")))
    assert "none.json" in said
    create_secrets(tmp_path / "secrets.json")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(*common, "--listen", f"127.0.0.1:{port}", "--secrets-file", str(tmp_path / "secrets.json"))
    workers = (f"worker 0: 127.0.0.1:{port}", f"worker 1: 127.0.0.1:{port + 1}")  # somebody may have that one too
    assert any(f"tollkeeper gate: {worker}: cannot be bound" in said for worker in workers), said


def test_a_worker_that_cannot_come_back_is_tried_again(row: GateRow, secrets_file: Path) -> None:
    """Later trouble is not the end: it is told, tried again at a bounded rate, and over when its cause is."""
    away = secrets_file.rename(secrets_file.with_suffix(".away"))
    kill(row.pids()[0])
    wait_until(lambda: "could not be started again" in str(row.ready()["problems"]), timeout_s=30)
    time.sleep(1)
    assert row.total(RESTARTS) <= 5
    ask(row.targets()[-1])
    away.rename(secrets_file)
    wait_until(lambda: row.ready()["ready"], timeout_s=60)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_each_worker_hears_endings_at_an_address_of_its_own(redis_url: str, secrets_file: Path, transport: str) -> None:
    """A port that was free stays a worker's own when it is started again, as that of its calls; the sum is told."""
    options = ("--workers", "2", "--transport", transport, "--listen", "127.0.0.1:0", "--endings-listen", "127.0.0.1:0")
    with gate_row(redis_url, secrets_file, *options) as row:
        endings = [worker["endings"] for worker in row.workers()]
        assert len({*endings, *row.targets()}) == 4
        _tell_nobody(endings)
        wait_until(lambda: row.total("tollkeeper_endings_unreadable_total") == 2, timeout_s=10)
        victim = row.pids()[1]
        kill(victim)
        wait_until(lambda: victim not in row.pids())
        wait_until(lambda: row.ready()["ready"], timeout_s=30)
        assert [worker["endings"] for worker in row.workers()] == endings
        _tell_nobody(endings)
        wait_until(lambda: row.total("tollkeeper_endings_unreadable_total") == 4, timeout_s=10)


def _tell_nobody(endings: list[str]) -> None:
    """Send each worker an entry that names no reservation."""
    for target in endings:
        logger = Logger(target)
        logger.log(HTTPAccessLogEntry())
        logger.close()
