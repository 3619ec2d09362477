"""``tollkeeper publish`` and ``admin --publish-to folder:DIR`` on a real store and a folder that is read."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from foldergateway import FolderGateway
from listener import listening

from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.keys.secrets import create_secrets
from catalog.records import PublicationRecord
from catalog.store.store import CatalogStore
from publisher.gateway.folder.file import FILE, objects_of
from publisher.plan import Plan
from publisher.sink import NotServed
from publisher.turns.lease import Lease
from runtime.lifecycle import CannotStart
from runtime.settings import BadSettings, read
from tests.e2e.proxy import openai, publication
from tollkeeper.publishing import command as publish
from tollkeeper.publishing.command import PublishSettings

ROOT = Path(__file__).parents[3]
AUDIT = Audit(actor=Recordless.START, action="test", target="any", tenant="tenant-a", request_id="r")
PATIENCE_S = 60
SHORT_LIFE_MS = 1_500


@dataclass
class Bench:
    """A store, a folder, and the gateway that reads it."""

    url: str
    client: redis.asyncio.Redis
    folder: Path
    gateway: FolderGateway
    secrets: Path

    async def commit(self, *records: PublicationRecord) -> None:
        await CatalogStore(self.client).commit([Put(record, 0) for record in records], audit=AUDIT)

    def given(self, **more: str) -> dict[str, str]:
        """The settings of both commands."""
        return {
            "redis_url": self.url,
            "secrets_file": str(self.secrets),
            "probe_url": self.gateway.listener.url,
            "gate_targets": "unix:/run/gate.sock",
            **more,
        }

    async def publish(self, **more: str) -> None:
        given = self.given(to=f"folder:{self.folder}", **more)
        await publish.serve(read(PublishSettings, {name: value for name, value in given.items() if value}))

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}


@pytest.fixture
async def bench(redis_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """An empty catalog and an empty folder."""
    folder, secrets = tmp_path / "folder", tmp_path / "secrets.json"
    folder.mkdir()
    async with redis.asyncio.Redis.from_url(redis_url) as client, listening() as listener:
        listener.secrets = create_secrets(secrets)
        yield Bench(redis_url, client, folder, FolderGateway(folder, listener), secrets)


async def test_what_is_published_is_written_and_asked_for(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Said: which file, and how many are live. Again: nothing is written."""
    await bench.commit(publication("a", "/models/a"), openai("b", "/models/b"))
    await bench.publish()
    said = capsys.readouterr().out
    assert said == f"{bench.folder}/{FILE}: written\npublications: 2 live\n"
    before = bench.files()
    await bench.publish()
    assert bench.files() == before
    assert capsys.readouterr().out.count("as it was") == 1


async def test_each_that_is_refused_is_named_with_why(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are live, and the end is a failure."""
    await bench.commit(
        publication("a", "/models/a"),
        publication("b", "/models/a", created_at_ms=2),
        publication("c", "/models/c", host="No Host"),
    )
    with pytest.raises(CannotStart, match="2 of 3 publications are refused"):
        await bench.publish()
    told = capsys.readouterr()
    assert "tenant-a/b: path: /models/a of api.example.test is a's" in told.err
    assert "tenant-a/c: host: must be" in told.err
    assert "publications: 1 live" in told.out
    assert bench.gateway.find("api.example.test", "/models/a") == ("publication", "a")


async def test_without_a_listener_nobody_is_asked(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """And it says so."""
    bench.gateway.reads = False
    await bench.commit(publication("a", "/models/a"))
    await bench.publish(probe_url="", secrets_file="")
    assert "publications: 1 written; whether they are live was not asked (--probe-url)" in capsys.readouterr().out
    assert not bench.gateway.listener.asked


async def test_an_envoy_gateway_that_reads_nothing_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for is said meanwhile; the file is there."""
    monkeypatch.setattr(publish, "_TOLD_EVERY_S", 0.02)
    monkeypatch.setattr("publisher.gateway.folder.sink.Patience.of", lambda *_: 0.5)
    bench.gateway.reads = False
    await bench.commit(publication("a", "/models/a"))
    with pytest.raises(CannotStart, match="Envoy Gateway does not serve the file yet"):
        await bench.publish()
    told = capsys.readouterr()
    assert "Envoy Gateway takes up" in told.err
    assert told.out.count("written") == 1


async def test_where_an_admin_publishes_nothing_is_written(bench: Bench) -> None:
    """Two with different settings would undo each other's work."""
    lease = Lease(bench.client, "somebody")
    assert await lease.hold()
    with pytest.raises(CannotStart, match="an admin publishes already"):
        await bench.publish()
    assert bench.files() == {}
    await lease.release()
    await bench.publish()
    assert await Lease(bench.client, "next").hold()


class _SlowSink:
    """Asks whether it may write from the beginning until twice the lease's life is over."""

    waiting = ""

    def __init__(self, may_write: Callable[[], bool]) -> None:
        self._may_write = may_write

    async def apply(self, _: Plan) -> dict[str, str]:
        until_s = time.monotonic() + 2 * SHORT_LIFE_MS / 1000
        while time.monotonic() < until_s:
            if not self._may_write():
                raise NotServed("another process publishes now")
            await asyncio.sleep(0.01)
        return {}


@contextlib.asynccontextmanager
async def _slow_sink(*given: Any) -> AsyncIterator[_SlowSink]:
    yield _SlowSink(given[3])


async def test_what_takes_longer_than_the_lease_gets_to_its_end(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is renewed meanwhile, and given back then."""
    monkeypatch.setattr(publish, "Lease", partial(Lease, life_ms=SHORT_LIFE_MS))
    monkeypatch.setattr(publish, "sink_of_cluster", _slow_sink)
    await bench.commit(publication("a", "/models/a"))
    given = {"redis_url": bench.url, "to": "cluster", "gate_targets": "unix:/run/gate.sock"}
    publishing = asyncio.create_task(publish.serve(read(PublishSettings, given)))
    other = Lease(bench.client, "somebody", life_ms=SHORT_LIFE_MS)
    await asyncio.sleep(1.5 * SHORT_LIFE_MS / 1000)
    assert not await other.hold()
    await publishing
    assert "publications: 1 live" in capsys.readouterr().out
    assert await other.hold()


async def test_a_lease_that_was_lost_is_known_to_be(bench: Bench) -> None:
    """Whoever has it meanwhile keeps it; what writes here asks, and stops."""
    lease = Lease(bench.client, "first", life_ms=SHORT_LIFE_MS)
    async with publish._turn(lease):
        await Lease(bench.client, "first").release()
        assert await Lease(bench.client, "somebody").hold()
        async with asyncio.timeout(PATIENCE_S):
            while lease.held():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert not await Lease(bench.client, "next").hold()


async def test_it_can_be_printed_and_is_what_would_be_written(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """For other ways to bring it where it is read."""
    await bench.commit(publication("a", "/models/a"))
    await bench.publish()
    capsys.readouterr()
    await publish.serve(read(PublishSettings, bench.given(to="-")))
    printed = capsys.readouterr().out
    assert printed == (bench.folder / FILE).read_text()
    assert objects_of(printed)


async def test_what_would_be_broken_is_not_printed(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says why."""
    monkeypatch.setattr("publisher.gateway.folder.file.text", lambda _: "---\n{\n")
    with pytest.raises(CannotStart, match="nothing is printed, Envoy Gateway would take no file up any more"):
        await publish.serve(read(PublishSettings, bench.given(to="-")))
    assert capsys.readouterr().out == ""


async def test_a_file_that_fails_is_not_the_stores_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is named, by the sink, and nobody looks after the store."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(CannotStart, match=r"^the folder cannot be written: .*No space left"):
            await bench.publish()
    assert await Lease(bench.client, "next").hold()


async def test_a_store_that_goes_away_meanwhile_spoils_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is written; the lease ends by itself."""

    async def gone(_: Lease) -> None:
        raise redis.exceptions.ConnectionError

    await bench.commit(publication("a", "/models/a"))
    monkeypatch.setattr(Lease, "release", gone)
    await bench.publish()
    assert "publications: 1 live" in capsys.readouterr().out


def _run(*options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tollkeeper", "publish", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stderr


def test_what_the_operator_can_mend_is_one_sentence(redis_url: str, tmp_path: Path) -> None:
    """A folder that is not there, a store that is not there: exit 1 and no traceback."""
    gate = ("--gate-targets", "gate:9001")
    for options, said in (
        (("--redis-url", redis_url, "--to", f"folder:{tmp_path}/none"), "there is no such folder"),
        (("--redis-url", "redis://127.0.0.1:1/0", "--to", "-"), "--redis-url: the store cannot be used"),
    ):
        code, told = _run(*options, *gate)
        assert (code, said in told, "Traceback" in told) == (1, True, False), told


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"to": "files:/x"}, r"--to .*must be folder:DIR, cluster, or -"),
        ({"to": "folder:"}, r"--to .*must be folder:DIR"),
        ({"to": "-"}, r"--gate-targets .*is required"),
        ({"to": "-", "gate_targets": "g:1", "probe_url": "http://g:1"}, r"--probe-url .*needs --secrets-file"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, str], rule: str) -> None:
    """By the option's name."""
    with pytest.raises(BadSettings, match=rule):
        read(PublishSettings, given)


async def _live(url: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        found = re.search(r'^tollkeeper_publications\{state="live"\} (\S+)$', await answer.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def _admin(options: Sequence[str]) -> tuple[asyncio.subprocess.Process, str]:
    """Start it; gives where its metrics are."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tollkeeper", "admin", *options, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stderr is not None
    async for line in process.stderr:
        if b"health and metrics: " in line:
            return process, f"http://{line.decode().rpartition('metrics: ')[2].strip()}"
    raise AssertionError("the admin did not start")


@pytest.mark.timeout(2 * PATIENCE_S)
async def test_an_admin_keeps_a_folder_in_step(bench: Bench) -> None:
    """What is committed is written, asked for and live; whoever else changes a file has it written anew."""
    given = bench.given(publish_to=f"folder:{bench.folder}", listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    process, url = await _admin([f"--{name.replace('_', '-')}={value}" for name, value in given.items()])
    try:
        await bench.commit(publication("a", "/models/a"), publication("b", "/models/b"))
        await _until_live(url, 2)
        good = (bench.folder / FILE).read_text()
        (bench.folder / FILE).write_text("")
        deadline_s = time.monotonic() + PATIENCE_S
        while (bench.folder / FILE).read_text() != good:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await process.wait()


async def _until_live(url: str, count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while await _live(url) != count:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
