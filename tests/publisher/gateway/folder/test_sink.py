"""Publishing into a folder of Envoy Gateway: what is written, when it is live, and what is never written."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from foldergateway import FolderGateway
from listener import SECRETS, listening
from msgspec import structs

from catalog.records import PublicationRecord
from publisher.gateway.folder import sink as folder_sink
from publisher.gateway.folder.file import FILE, objects_of
from publisher.gateway.folder.sink import FolderSink, Patience
from publisher.gateway.options import GatewayOptions
from publisher.plan import Plan, plan
from publisher.prober import Prober
from publisher.sink import NotServed
from runtime.clock import SystemClock
from runtime.files import Mark, mark_of
from tests.e2e.proxy import HOST, kserve_v2, openai, publication, stripped

OPTIONS = GatewayOptions(gate=("unix:/run/gate.sock",), from_files=True)
SOON = Patience(at_least_s=10, an_object_s=0, poll_s=0.01)
SHORT = Patience(at_least_s=0.05, an_object_s=0, poll_s=0.01)


@dataclass
class Bench:
    """A folder, who reads it, and what makes sinks for it."""

    folder: Path
    gateway: FolderGateway
    prober: Prober

    def sink(self, options: GatewayOptions = OPTIONS, patience: Patience = SOON, **fields: Any) -> FolderSink:
        return FolderSink(self.folder, options, self.prober, patience=patience, **fields)

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def files(self) -> dict[str, int]:
        """What is in the folder, by what tells one state of a file from another."""
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An Envoy Gateway with an empty folder."""
    async with listening() as listener:
        gateway = FolderGateway(tmp_path, listener)
        async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=10) as prober:
            yield Bench(tmp_path, gateway, prober)


def some(count: int) -> Plan:
    """A plan of so many publications."""
    return plan([publication(f"p{number}", f"/models/p{number}") for number in range(count)])


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds that nobody announces."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_every_kind_is_live_and_named_in_the_file(bench: Bench) -> None:
    """One file, nothing else, and each publication was answered by its own rule."""
    records: list[PublicationRecord] = [
        publication("a", "/models/a"),
        publication("b", "/models/a/predict"),
        kserve_v2("c", "/models/c"),
        stripped("d", "/models"),
        openai("e", "/models/e"),
        openai("f", "/v1/models/f"),
        publication("g", "/models/a", host="other.test"),
    ]
    sink = bench.sink()
    assert await sink.apply(plan(records)) == {}
    assert set(bench.files()) == {FILE}
    assert await sink.served() == {record.uid for record in records}
    assert bench.gateway.listener.asked.count(f"{HOST}/v1/:probe") == 1


async def test_nothing_new_writes_and_asks_nothing(bench: Bench) -> None:
    """And a new process writes nothing either, though it asks for all of them once."""
    sink = bench.sink()
    await sink.apply(some(3))
    before, asked = bench.files(), len(bench.gateway.listener.asked)
    assert await sink.apply(some(3)) == {}
    assert (bench.files(), len(bench.gateway.listener.asked)) == (before, asked)
    assert await bench.sink().apply(some(3)) == {}
    assert bench.files() == before
    assert len(bench.gateway.listener.asked) == asked + 5  # the entry by path is one for all


async def test_a_change_of_publications_is_one_event(bench: Bench) -> None:
    """The folder is read once for it."""
    sink = bench.sink()
    await sink.apply(some(1))
    reloads = bench.gateway.reloads
    await sink.apply(some(2))
    assert bench.gateway.reloads == reloads + 1


async def test_it_is_live_only_when_the_file_is_taken_up(bench: Bench) -> None:
    """A server that moves, which no probe call could see by itself; meanwhile it is told what is waited for."""
    sink, record = bench.sink(), publication("a", "/models/a")
    await sink.apply(plan([record]))
    bench.gateway.reads = False
    moving = asyncio.create_task(sink.apply(plan([structs.replace(record, url="http://127.0.0.1:10")])))
    await until(lambda: sink.waiting)
    assert sink.waiting.startswith("Envoy Gateway takes up ")
    assert not moving.done()
    bench.gateway.reads = True
    assert await moving == {}
    assert sink.waiting == ""


async def test_what_was_live_once_is_asked_for_when_it_comes_again(bench: Bench) -> None:
    """A plan in between that was written, and perhaps taken up after it was given up on, leaves nothing proved."""
    record = publication("a", "/models/a")
    first, second = plan([record]), plan([structs.replace(record, path="/elsewhere")])
    sink = bench.sink(patience=SHORT)
    await sink.apply(first)
    bench.gateway.reads = False
    with pytest.raises(NotServed):
        await sink.apply(second)
    bench.gateway.reads = True
    bench.gateway.look()
    bench.gateway.reads = False
    with pytest.raises(NotServed):
        await sink.apply(first)
    bench.gateway.reads = True
    bench.gateway.listener.asked.clear()
    assert await sink.apply(first) == {}
    assert f"{HOST}/models/a" in bench.gateway.listener.asked


async def test_who_was_taken_out_is_gone_when_it_is_said_to_be(bench: Bench) -> None:
    """The other half of being in force."""
    sink = bench.sink()
    await sink.apply(some(2))
    await sink.apply(some(1))
    assert bench.gateway.find(HOST, "/models/p1") is None
    assert await sink.served() == {"p0"}
    await sink.apply(some(0))
    assert await sink.served() == frozenset()


async def test_an_envoy_gateway_that_does_not_read_is_given_up_on(bench: Bench) -> None:
    """In bounded time, and the next try asks once and holds nobody up."""
    bench.gateway.reads = False
    sink = bench.sink(patience=SHORT)
    with pytest.raises(NotServed, match=r"does not serve the file yet: no route leads to it"):
        await sink.apply(some(1))
    asked = len(bench.gateway.listener.asked)
    with pytest.raises(NotServed):
        await sink.apply(some(1))
    assert len(bench.gateway.listener.asked) == asked + 1
    bench.gateway.reads = True
    assert await sink.apply(some(1)) == {}


async def test_a_folder_that_is_slow_to_read_holds_up_nobody_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that waits for it answers others meanwhile."""
    reading, read_on, in_time = threading.Event(), threading.Event(), list[bool]()

    def slow(_: FolderSink) -> int:
        reading.set()
        in_time.append(read_on.wait(10))
        return 1

    monkeypatch.setattr(FolderSink, "_objects", slow)
    applying = asyncio.create_task(bench.sink().apply(some(1)))
    await until(reading.is_set)
    read_on.set()
    assert await applying == {}
    assert in_time == [True]


async def test_a_broken_file_of_somebody_else_is_named(bench: Bench) -> None:
    """It keeps everything out; it is not touched."""
    broken = bench.folder / "theirs.yaml"
    broken.write_text("{")
    with pytest.raises(NotServed, match=r"theirs\.yaml in the folder is no YAML"):
        await bench.sink(patience=SHORT).apply(some(1))
    assert broken.read_text() == "{"


async def test_one_whose_route_somebody_else_takes_is_told(bench: Bench) -> None:
    """The others are live."""
    theirs = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: default}
spec: {hostnames: [api.example.test], rules: [{name: x.y, matches: [{path: {type: Exact, value: /models/p1}}]}]}
"""
    (bench.folder / "0-theirs.yaml").write_text(theirs)
    assert await bench.sink().apply(some(3)) == {"p1": f"{HOST}/models/p1 leads to publication x"}


async def test_what_no_rule_can_be_named_after_is_told(bench: Bench) -> None:
    """It is not in the file, and the others are live."""
    made = plan([publication("Upper", "/models/u"), publication("a", "/models/a")])
    sink = bench.sink()
    reasons = await sink.apply(made)
    assert reasons.keys() == {"Upper"}
    assert "lower-case" in reasons["Upper"]
    assert await sink.served() == {"a"}


# What Envoy Gateway would not forget


async def test_a_field_that_is_taken_out_is_refused_with_the_way_out(bench: Bench) -> None:
    """Nothing is written, publications neither, and what was live stays."""
    await bench.sink(replace(OPTIONS, origins=("https://app.example",))).apply(some(1))
    before = bench.files()
    with pytest.raises(NotServed, match=r"spec\.cors.*--restart-follows.*restart envoy-gateway"):
        await bench.sink().apply(some(2))
    assert bench.files() == before


async def test_with_the_operators_word_it_is_written(bench: Bench) -> None:
    """After the restart it is in force; without one Envoy Gateway would have kept it."""
    await bench.sink(replace(OPTIONS, origins=("https://app.example",))).apply(some(1))
    assert await bench.sink(restart_follows=True).apply(some(2)) == {}
    policies = [obj for obj in bench.gateway.objects.values() if obj["kind"] == "SecurityPolicy"]
    assert all("cors" in policy["spec"] for policy in policies)
    bench.gateway.restart()
    policies = [obj for obj in bench.gateway.objects.values() if obj["kind"] == "SecurityPolicy"]
    assert not any("cors" in policy["spec"] for policy in policies)
    assert await bench.sink().apply(some(2)) == {}


async def test_the_policy_that_closes_a_gateway_is_not_taken_away(bench: Bench) -> None:
    """A gateway of another name has another policy, and the first one's would be open."""
    await bench.sink().apply(some(1))
    before = bench.files()
    with pytest.raises(NotServed, match=r"SecurityPolicy tollkeeper-gate itself"):
        await bench.sink(replace(OPTIONS, gateway="other")).apply(some(1))
    assert bench.files() == before


async def test_no_plan_takes_a_field_out_of_an_object(bench: Bench) -> None:
    """Whatever is published after whatever: servers, hosts, kinds and paths."""
    plans = [
        plan([publication("a", "/models/a", "https://models.test")]),
        plan([openai("a", "/models/a", "http://10.0.0.1:8080"), stripped("b", "/models/b", host="other.test")]),
        plan([kserve_v2("a", "/v1"), openai("c", "/v1/models/c", "http://models.test")]),
        some(40),
        some(0),
    ]
    sink = bench.sink()
    for made in (*plans, *reversed(plans)):
        assert await sink.apply(made) == {}


async def test_what_closes_the_gateway_comes_and_goes_with_the_routes(bench: Bench) -> None:
    """The policy and the gate that it asks stand before them in the one file: without it there is nothing of ours."""
    await bench.sink().apply(some(2))
    kinds = [obj["kind"] for obj in objects_of(bench.file.read_text())]
    assert kinds[:2] == ["SecurityPolicy", "Backend"]
    assert bench.gateway.find(HOST, "/models/p1")
    bench.file.unlink()
    assert bench.gateway.find(HOST, "/models/p1") is None
    assert bench.gateway.objects == {}


# The folder


async def test_what_would_be_broken_is_not_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours keeps the file before."""
    sink = bench.sink()
    await sink.apply(some(1))
    before = bench.files()
    monkeypatch.setattr("publisher.gateway.folder.file.text", lambda _: "---\n{\n")
    with pytest.raises(NotServed, match="nothing is written"):
        await sink.apply(some(2))
    assert bench.files() == before


async def test_who_may_not_write_any_more_changes_nothing(bench: Bench) -> None:
    """A lease that is lost in the middle."""
    with pytest.raises(NotServed, match="another process publishes now"):
        await bench.sink(may_write=lambda: False).apply(some(1))
    assert not [name for name in bench.files() if not name.startswith(".")]


async def test_a_disk_that_fails_is_said_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is something to try again."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(NotServed, match="cannot be written"):
            await bench.sink().apply(some(1))
    assert await bench.sink().apply(some(1)) == {}


@pytest.mark.parametrize("content", ["{", "---\n[]\n", '---\n{"kind": 1}\n'])
async def test_a_file_that_is_not_ours_any_more_is_made_anew(bench: Bench, content: str) -> None:
    """Whatever somebody wrote over it."""
    bench.file.write_text(content)
    sink = bench.sink()
    assert await sink.served() == frozenset()
    assert await sink.apply(some(1)) == {}
    assert await sink.served() == {"p0"}


async def test_whoever_else_changes_the_file_has_it_written_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each change, and our own are none."""
    monkeypatch.setattr(folder_sink, "LOOK_S", 0.01)
    moved: list[None] = []
    sink = bench.sink()
    following = asyncio.create_task(sink.follow(lambda: moved.append(None)))
    await sink.apply(some(1))
    await sink.apply(some(2))
    good = bench.file.read_text()
    bench.file.write_text("")
    await until(lambda: moved)
    await sink.apply(some(2))
    assert bench.file.read_text() == good
    bench.file.unlink()
    await until(lambda: len(moved) == 2)
    await sink.apply(some(2))
    assert len(moved) == 2
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_what_we_write_is_nobody_elses_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes us to look at what we have written."""
    monkeypatch.setattr(folder_sink, "LOOK_S", 0.001)
    main = threading.current_thread()

    def looked(path: Path) -> Mark | None:
        if threading.current_thread() is not main:
            time.sleep(0.05)  # the window that is tried
        return mark_of(path)

    monkeypatch.setattr(folder_sink, "mark_of", looked)
    moved: list[None] = []
    sink = bench.sink()
    following = asyncio.create_task(sink.follow(lambda: moved.append(None)))
    for count in (1, 2, 3):
        await sink.apply(some(count))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert moved == []


async def test_without_a_prober_the_file_is_written_and_nobody_is_asked(tmp_path: Path) -> None:
    """For a folder whose Envoy Gateway is elsewhere."""
    sink = FolderSink(tmp_path, OPTIONS, None)
    assert await sink.apply(some(2)) == {}
    assert await sink.served() == {"p0", "p1"}
