"""The machine's processes: watched, stopped in order, and gone when their parent is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.lifecycle import CannotStart
from tollkeeper.up import children as children_module
from tollkeeper.up import logs as logs_module
from tollkeeper.up.children import ChildDied, Children, ChildSpec
from tollkeeper.up.logs import Logs
from tollkeeper.up.ports import PortTaken

_FAMILY = """
import asyncio, os, sys
from pathlib import Path
from tollkeeper.up.children import Children, ChildSpec
from tollkeeper.up.logs import Logs
from tollkeeper.up.ports import PortTaken
async def main():
    async def ready(): return True
    async with Children(Logs(Path(sys.argv[1]))) as children:
        for name in ("a", "b"):
            await children.start(ChildSpec(name, ["/bin/sh", "-c", "sleep 60 & sleep 60; true"], ready, os.environ))
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def always() -> bool:
    """A readiness that is there at once."""
    return True


async def never() -> bool:
    """A readiness that does not come."""
    return False


def shell(name: str, script: str, ready: Callable[[], object] = always) -> ChildSpec:
    """A child that runs a shell script."""
    return ChildSpec(name, ["/bin/sh", "-c", script], ready, dict(os.environ))  # type: ignore[arg-type]


def in_folder(folder: Path) -> set[str]:
    """Command lines of the processes whose standard output is a file of this folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "fd/1").readlink().is_relative_to(folder):
                found.add((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Poll: foreign processes have no event of ours."""
    deadline_s = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return met


async def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    """What was started last stops first, and nothing is left."""
    said = tmp_path / "said"
    script = "trap 'echo {0} >> {1}; exit' TERM; echo up; while :; do sleep 0.02; done"
    async with Children(Logs(tmp_path)) as children:
        for name in ("a", "b", "c"):
            await children.start(shell(name, script.format(name, said)))
        for name in ("a", "b", "c"):
            log = tmp_path / f"{name}.log"
            assert until(lambda log=log: log.read_text() == "up\n")  # type: ignore[misc]
    assert said.read_text().split() == ["c", "b", "a"]
    assert not in_folder(tmp_path)


async def test_a_death_is_told_with_the_last_words(tmp_path: Path) -> None:
    """The operator sees why everything stopped."""
    async with Children(Logs(tmp_path)) as children:
        await children.start(shell("steady", "exec sleep 60"))
        await children.start(shell("frail", "echo farewell; exit 3"))
        with pytest.raises(ChildDied, match=r"(?s)frail ended with exit code 3, .*farewell"):
            await asyncio.wait_for(children.death(), 5)


async def test_the_signal_that_killed_a_child_is_named(tmp_path: Path) -> None:
    """Out of memory, for one, looks like this."""
    async with Children(Logs(tmp_path)) as children:
        await children.start(shell("frail", "kill -9 $$"))
        with pytest.raises(ChildDied, match=r"^frail was killed by SIGKILL, so everything was stopped"):
            await asyncio.wait_for(children.death(), 5)


async def test_a_child_that_ends_during_its_start_is_told(tmp_path: Path) -> None:
    """No waiting for the readiness of the dead."""
    async with Children(Logs(tmp_path)) as children:
        with pytest.raises(CannotStart, match=r"(?s)frail ended with exit code 1 during its start.*no luck"):
            await children.start(shell("frail", "echo no luck; exit 1", never))


async def test_a_child_that_is_never_ready_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is bounded."""
    monkeypatch.setattr(children_module, "READY_S", 0.2)
    async with Children(Logs(tmp_path)) as children:
        with pytest.raises(CannotStart, match="slow was not ready within"):
            await children.start(shell("slow", "exec sleep 60", never))
    assert not in_folder(tmp_path)


async def test_a_child_that_ignores_the_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop is bounded, children of children included."""
    monkeypatch.setattr(children_module, "STOP_S", 0.2)
    async with Children(Logs(tmp_path)) as children:
        await children.start(shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.1; done"))
        assert until(lambda: (tmp_path / "deaf.log").read_text() == "up\n")
    assert until(lambda: not in_folder(tmp_path))


async def test_the_last_start_s_log_is_kept_once(tmp_path: Path) -> None:
    """Logs do not grow from start to start."""
    for words in ("one", "two", "three"):
        async with Children(Logs(tmp_path)) as children:
            await children.start(shell("child", f"echo {words}; exec sleep 60"))
            assert until(lambda words=words: (tmp_path / "child.log").read_text() == f"{words}\n")  # type: ignore[misc]
    assert (tmp_path / "child.log").read_text() == "three\n"
    assert (tmp_path / "child.log.1").read_text() == "two\n"


async def test_a_log_that_grows_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they grow without bound while the machine runs: the newest lines are in one of two bounded files."""
    monkeypatch.setattr(logs_module, "MAX_BYTES", 1000)
    monkeypatch.setattr(logs_module, "LOOK_S", 0.01)
    log, older = tmp_path / "child.log", tmp_path / "child.log.1"
    script = f"for i in $(seq 200); do echo line $i; done; until [ -s {older} ]; do sleep 0.01; done; echo last"
    async with Children(Logs(tmp_path)) as children:
        await children.start(shell("child", f"{script}; exec sleep 60"))
        await asyncio.to_thread(until, lambda: log.read_bytes() == b"last\n")
        assert log.read_bytes() == b"last\n"
        assert older.read_text().startswith("line ")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """Even kill -9 of the parent leaves no child and no child's child."""
    command = [sys.executable, "-c", _FAMILY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        assert until(lambda: len(in_folder(tmp_path)) >= 2)
        os.kill(parent.pid, signal.SIGKILL)
    assert until(lambda: not in_folder(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_a_child_is_out_of_the_terminals_reach(tmp_path: Path) -> None:
    """Ctrl-C is for the parent, which stops its children in order."""
    async with Children(Logs(tmp_path)) as children:
        await children.start(shell("child", "echo $$; exec sleep 60"))
        assert until(lambda: (tmp_path / "child.log").read_text().endswith("\n"))
        pid = int((tmp_path / "child.log").read_text())
        assert os.getsid(pid) == pid != os.getsid(0)


async def test_who_answers_in_a_child_s_place_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child of ours is ready once it has told so by the socket that only it knows, whatever answers at its port."""
    monkeypatch.setattr(children_module, "READY_S", 0.3)
    told = tmp_path / "told"
    async with Children(Logs(tmp_path)) as children:
        with pytest.raises(CannotStart, match="silent was not ready within"):
            await children.start(ChildSpec("silent", ["/bin/sleep", "60"], always, dict(os.environ), told=told))
        monkeypatch.setattr(children_module, "READY_S", 10)
        telling = "from runtime.lifecycle import tell_ready; import time; tell_ready(); time.sleep(60)"
        await children.start(ChildSpec("own", [sys.executable, "-c", telling], always, dict(os.environ), told=told))
    assert not told.exists()


@pytest.mark.parametrize("is_told_by_death", [True, False])
async def test_a_port_that_was_taken_meanwhile_is_named(tmp_path: Path, *, is_told_by_death: bool) -> None:
    """Not the child's last words, of which nobody learns which port it was."""
    with socket.create_server(("127.0.0.1", 0)) as thief:
        port = thief.getsockname()[1]
        async with Children(Logs(tmp_path)) as children:
            spec = ChildSpec("robbed", ["/bin/sh", "-c", "exit 1"], never, dict(os.environ), ports=(port,))
            started = asyncio.create_task(children.start(spec))
            with pytest.raises(PortTaken, match=f"^port {port} was taken meanwhile by another program"):
                await asyncio.wait_for(children.death() if is_told_by_death else started, 5)
            await asyncio.gather(started, return_exceptions=True)
