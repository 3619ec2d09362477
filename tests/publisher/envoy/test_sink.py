"""The order in which files are written: at no moment does a route lead to a cluster that is not there."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.envoy.admin import CLUSTERS, EnvoyUnreachable, Standing
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.files import Resources
from publisher.envoy.sink import FilesSink
from publisher.plan import plan
from publisher.sink import NotServed, Refused
from tests.e2e.proxy import publication


class Reader:
    """Stands for Envoy: accepts the files as it finds them, except routes that lead to ``bad``."""

    def __init__(self, folder: Path, bad: str = "") -> None:
        self.folder = folder
        self.bad = bad
        self.versions = {"clusters": "", "routes": ""}
        self.clusters: set[str] = set()
        self.needed: set[str] = set()
        self.refusals = 0

    async def standing(self, kind: str) -> Standing:
        """What Envoy says; it has read both files by then."""
        self._read_clusters()
        self._read_routes()
        assert self.needed <= self.clusters
        return Standing(self.versions["clusters" if kind == CLUSTERS else "routes"], self.refusals, 0)

    def _read_clusters(self) -> None:
        found = Resources.parse((self.folder / CLUSTERS_FILE).read_text())
        self.clusters = {cluster["name"] for cluster in found.resources}
        self.versions["clusters"] = found.version

    def _read_routes(self) -> None:
        found = Resources.parse((self.folder / ROUTES_FILE).read_text())
        needed = {
            route["route"]["cluster"]
            for resource in found.resources
            for host in resource["virtual_hosts"]
            for route in host["routes"]
        }
        if self.bad in needed:
            self.refusals += 1
        else:
            self.needed, self.versions["routes"] = needed, found.version


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
        asyncio.run(reader.standing(CLUSTERS))
        assert reader.clusters == reader.needed == {f"publication-{uid}" for uid in in_force}


async def test_silence_is_bounded(tmp_path: Path) -> None:
    """An Envoy that never takes the files up is given up on in time."""

    class Deaf:
        async def standing(self, _: str) -> Standing:
            return Standing("old", 0, 0)

    sink = FilesSink(tmp_path, Deaf(), upstream_ca="/ca.pem", timeout_s=0.05)
    sink.prepare()
    with pytest.raises(NotServed, match=r"0\.05 s"):
        await sink.apply(plan([]))


async def test_no_envoy_is_said_so(tmp_path: Path) -> None:
    """What the admin socket does not answer is no refusal."""

    class Nobody:
        async def standing(self, _: str) -> Standing:
            raise EnvoyUnreachable("nobody there")

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


def test_preparing_replaces_nothing_that_is_there(tmp_path: Path) -> None:
    """A process that starts while another publishes leaves that one's files as they are."""
    FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem").prepare()
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    FilesSink(tmp_path, Reader(tmp_path), upstream_ca="/ca.pem").prepare()
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert set(before) == {CLUSTERS_FILE, ROUTES_FILE}
