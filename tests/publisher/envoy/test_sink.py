"""The order in which files are written: at no moment does a route lead to a cluster that is not there."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from envoymatching import all_routes, said
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.envoy.admin import CLUSTERS, EnvoyUnreachable
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.credentials import CREDENTIAL
from publisher.envoy.files import NO_CLUSTER, Resources
from publisher.envoy.sink import FilesSink
from publisher.plan import plan
from publisher.sink import NotServed, Refused
from runtime.files import Mark, mark_of
from tests.e2e.proxy import publication


class Reader:
    """Stands for Envoy: accepts the files as it finds them, except routes that lead to ``bad``."""

    def __init__(self, folder: Path, bad: str = "") -> None:
        self.folder = folder
        self.bad = bad
        self.versions = {"clusters": "", "routes": ""}
        self.clusters: set[str] = set()
        self.needed: set[str] = set()
        self.refused = 0

    async def version(self, kind: str) -> str:
        """What Envoy says; it has read both files by then."""
        self._read_clusters()
        self._read_routes()
        assert self.needed <= self.clusters
        return self.versions["clusters" if kind == CLUSTERS else "routes"]

    async def refusals(self, _: str) -> int:
        """What Envoy says."""
        return self.refused

    async def warming(self) -> int:
        """What Envoy says."""
        return 0

    def _read_clusters(self) -> None:
        found = Resources.parse((self.folder / CLUSTERS_FILE).read_text())
        self.clusters = {cluster["name"] for cluster in said(found)}
        self.versions["clusters"] = found.version

    def _read_routes(self) -> None:
        found = Resources.parse((self.folder / ROUTES_FILE).read_text())
        needed = {
            route["route"]["cluster"]
            for resource in said(found)
            for host in resource["virtual_hosts"]
            for route in all_routes(host["matcher"])
            if route["route"]["cluster"] != NO_CLUSTER  # which nobody has: there calls wait
        }
        if self.bad in needed:
            self.refused += 1
        else:
            self.needed, self.versions["routes"] = needed, found.version


def marks(folder: Path) -> dict[str, Mark | None]:
    """What tells whether a file was written."""
    return {path.name: mark_of(path) for path in folder.iterdir()}


UIDS = st.sets(st.sampled_from(["a", "b", "c", "d"]))


@settings(deadline=None)
@given(histories=st.lists(UIDS, max_size=6), bad=st.sampled_from(["", "a"]))
def test_no_route_ever_leads_nowhere(
    tmp_path_factory: pytest.TempPathFactory, histories: list[set[str]], bad: str
) -> None:
    """Whatever is published after whatever, also when the routes are refused; and refused means as it was before."""
    folder = tmp_path_factory.mktemp("files")
    reader = Reader(folder, f"publication-{bad}")
    sink = FilesSink(folder, reader, upstream_ca="/ca.pem")
    sink.prepare()
    in_force: set[str] = set()
    for uids in histories:
        wanted = plan([publication(uid, f"/{uid}") for uid in uids])
        if bad in uids:
            with pytest.raises(Refused):
                asyncio.run(sink.apply(wanted))
        else:
            asyncio.run(sink.apply(wanted))
            in_force = uids
        asyncio.run(reader.version(CLUSTERS))
        assert reader.clusters == reader.needed == {f"publication-{uid}" for uid in in_force}


async def test_silence_is_bounded(tmp_path: Path) -> None:
    """An Envoy that never takes the files up is given up on in time."""

    class Deaf:
        async def version(self, _: str) -> str:
            return "old"

        async def refusals(self, _: str) -> int:
            return 0

    sink = FilesSink(tmp_path, Deaf(), upstream_ca="/ca.pem", timeout_s=0.05)
    sink.prepare()
    with pytest.raises(NotServed, match=r"0\.05 s"):
        await sink.apply(plan([]))


async def test_no_envoy_is_said_so(tmp_path: Path) -> None:
    """What the admin socket does not answer is no refusal."""

    class Nobody:
        async def version(self, _: str) -> str:
            raise EnvoyUnreachable("nobody there")

        refusals = version

    sink = FilesSink(tmp_path, Nobody(), upstream_ca="/ca.pem")
    sink.prepare()
    with pytest.raises(NotServed, match="nobody there"):
        await sink.apply(plan([]))


async def test_a_disk_that_fails_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is something to try again, not the end of the process."""
    sink = FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem")
    sink.prepare()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(NotServed, match=r"the folder cannot be written: .*No space left"):
            await sink.apply(plan([publication("a", "/a")]))
    await sink.apply(plan([publication("a", "/a")]))
    assert await sink.served() == {"a"}


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"{", None])
async def test_files_that_are_not_ours_serve_nobody(tmp_path: Path, content: bytes | None) -> None:
    """Whatever bytes they have, they are read without a fault and made anew."""
    sink = FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem")
    if content is not None:
        (tmp_path / CLUSTERS_FILE).write_bytes(content)
    assert await sink.served() == frozenset()
    sink.prepare()
    await sink.apply(plan([publication("a", "/a")]))
    assert await sink.served() == {"a"}


async def test_what_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    """Of the same plan no file is touched, nor is any read: not by this process, nor by the next one."""
    made = plan([publication("a", "/a")])
    first, second = (FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem") for _ in range(2))
    first.prepare()
    await first.apply(made)
    before = marks(tmp_path)
    await first.apply(made)
    await first.apply(plan([publication("a", "/a")]))
    assert marks(tmp_path) == before
    second.prepare()
    await second.apply(made)
    assert marks(tmp_path) == before


async def test_what_others_wrote_is_written_over(tmp_path: Path) -> None:
    """A file that somebody else has changed is seen by its mark, and says what it should again."""
    sink = FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem")
    sink.prepare()
    made = plan([publication("a", "/a")])
    await sink.apply(made)
    other = FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem")
    await other.apply(plan([publication("b", "/b")]))
    await sink.apply(made)
    assert await sink.served() == {"a"}


async def test_who_is_slow_is_not_made_to_begin_anew(tmp_path: Path) -> None:
    """An Envoy that took a file up after it was given up on: the next try finds it in force, and writes nothing."""

    class Slow(Reader):
        is_late = True

        async def version(self, kind: str) -> str:
            return "older" if self.is_late else await super().version(kind)

    reader = Slow(tmp_path)
    sink = FilesSink(tmp_path, reader, upstream_ca="/ca.pem", timeout_s=0.1)
    sink.prepare()
    made = plan([publication("a", "/a")])
    with pytest.raises(NotServed):
        await sink.apply(made)
    before = marks(tmp_path)[CLUSTERS_FILE]
    asyncio.get_running_loop().call_later(0.02, setattr, reader, "is_late", False)
    await sink.apply(made)
    assert marks(tmp_path)[CLUSTERS_FILE] == before


async def test_who_may_not_write_any_more_changes_nothing(tmp_path: Path) -> None:
    """A lease lost in the middle of a plan: what the folder has stays, to be told as something to try again."""
    allowed = [True]
    sink = FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem", may_write=lambda: allowed[0])
    sink.prepare()
    await sink.apply(plan([publication("a", "/a")]))
    allowed[0] = False
    with pytest.raises(NotServed):
        await sink.apply(plan([publication("b", "/b")]))
    assert await sink.served() == {"a"}


async def test_who_may_not_write_any_more_removes_no_credential(tmp_path: Path) -> None:
    """A lease lost between the routes and what is cleaned up after them: by then the files are another's."""
    turns: list[bool] = []
    sink = FilesSink(
        tmp_path, Reader(tmp_path), upstream_ca="/ca.pem", may_write=lambda: turns.pop(0) if turns else True
    )
    sink.prepare()
    made = plan([publication("a", "/a")])
    await sink.apply(made)
    anothers = tmp_path / CREDENTIAL / "of-another"
    anothers.parent.mkdir()
    anothers.touch()
    turns += [True, False]
    with pytest.raises(NotServed):
        await sink.apply(made)
    assert anothers.exists()
    await sink.apply(made)
    assert not anothers.exists()


def test_preparing_replaces_nothing_that_is_there(tmp_path: Path) -> None:
    """A process that starts while another publishes leaves that one's files as they are."""
    FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem").prepare()
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem").prepare()
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert set(before) == {CLUSTERS_FILE, ROUTES_FILE}
