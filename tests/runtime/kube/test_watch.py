"""Following a kind of Kubernetes objects, through everything that a cluster does to its watchers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from kubeserver import KubeServer, kube_server

from runtime.kube.api import Cause, Json, Kind, KubeApi
from runtime.kube.watch import Bounds, KubeWatch, as_it_is
from runtime.lifecycle import running

THINGS = Kind("example.dev", "v1", "things")
QUICK = Bounds(watch_s=30, slack_s=5, first_retry_s=0.01, last_retry_s=0.05)


class Followed:
    """A watch, what it counted, and a way to wait for it."""

    def __init__(self, api: KubeApi, bounds: Bounds = QUICK, keep: Callable[[Json], Json] = as_it_is) -> None:
        self.failures: Counter[Cause] = Counter()
        self.moves = 0
        self._moved = asyncio.Event()
        self.watch = KubeWatch(
            api, THINGS, moved=self._move, failed=lambda cause: self.failures.update([cause]), keep=keep, bounds=bounds
        )

    def _move(self) -> None:
        self.moves += 1
        self._moved.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, which only a move can bring about."""
        async with asyncio.timeout(20):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    @property
    def names(self) -> set[str]:
        return {f"{namespace}/{name}" for namespace, name in self.watch.objects}


async def eventually(condition: Callable[[], bool]) -> None:
    """Poll: what a server counts has no event of ours."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(bounds: Bounds = QUICK) -> AsyncIterator[tuple[KubeServer, Followed]]:
    """Follow a server that has one object, and know it."""
    async with kube_server() as (server, api):
        await server.put(THINGS, "first", "a")
        followed = Followed(api, bounds)
        async with running(followed.watch.run(), name="watch"):
            await followed.until(lambda: followed.watch.is_known)
            yield server, followed


async def test_what_there_is_and_what_comes_is_known() -> None:
    """Objects are known from the first list on, and each change as it happens."""
    async with following() as (server, followed):
        assert followed.names == {"a/first"}
        await server.put(THINGS, "second", "b", spec={"n": 1})
        await followed.until(lambda: "b/second" in followed.names)
        await server.put(THINGS, "second", "b", spec={"n": 2})
        await followed.until(lambda: followed.watch.objects["b", "second"]["spec"] == {"n": 2})
        await server.delete(THINGS, "first", "a")
        await followed.until(lambda: followed.names == {"b/second"})
        assert (server.lists, followed.failures) == (1, Counter())


async def test_a_list_of_several_pages_is_read_whole() -> None:
    """No object is missed because the server gives them in pages."""
    async with kube_server() as (server, api):
        for n in range(1_201):
            await server.put(THINGS, f"t{n}", "a")
        followed = Followed(api)
        async with running(followed.watch.run(), name="watch"):
            await followed.until(lambda: followed.watch.is_known)
            assert len(followed.watch.objects) == 1_201
            assert server.lists == 3


async def test_a_watch_that_the_server_ends_goes_on_where_it_was() -> None:
    """What changed between two watches is not missed, and nothing is listed anew for it."""
    async with following() as (server, followed):
        await eventually(lambda: server.watches == 1)
        await server.cut()
        await server.put(THINGS, "second", "b")
        await followed.until(lambda: followed.names == {"a/first", "b/second"})
        assert (server.lists, followed.failures, followed.watch.trouble) == (1, Counter(), "")


async def test_an_expired_version_lists_anew() -> None:
    """A version that the server no longer knows ends in a new list; what went meanwhile is gone here too."""
    async with following() as (server, followed):
        server.expire_watches = True
        await server.put(THINGS, "second", "b")
        await server.delete(THINGS, "first", "a")
        await server.cut()
        await followed.until(lambda: followed.names == {"b/second"} and followed.failures[Cause.EXPIRED] > 0)
        server.expire_watches = False
        await server.put(THINGS, "third", "c")
        await followed.until(lambda: "c/third" in followed.names)
        assert followed.watch.trouble == ""


async def test_a_cluster_put_back_is_known_as_it_is_now() -> None:
    """Its versions are below those heard before, and no watch tells: it is listed anew, and followed from there."""
    async with following(replace(QUICK, relist_s=0)) as (server, followed):
        before, version = dict(server.objects), server.version
        await server.put(THINGS, "second", "b")
        await followed.until(lambda: "b/second" in followed.names)
        server.restore(before, version)
        await server.cut()
        await followed.until(lambda: followed.names == {"a/first"})
        await server.put(THINGS, "third", "c")
        await followed.until(lambda: followed.names == {"a/first", "c/third"})
        assert followed.failures == Counter()


@pytest.mark.parametrize(("status", "cause"), [(503, Cause.AWAY), (403, Cause.REFUSED), (404, Cause.MISSING)])
async def test_a_server_that_refuses_is_told_of_and_what_is_known_stays(status: int, cause: Cause) -> None:
    """While the API says no, nothing is forgotten, the trouble names the kind, and it is over by itself."""
    async with following() as (server, followed):
        server.refuse = status
        await server.cut()
        await followed.until(lambda: bool(followed.watch.trouble))
        assert followed.watch.trouble == f"things.example.dev: refused with {status}"
        assert followed.names == {"a/first"}
        assert followed.watch.is_known
        await server.put(THINGS, "second", "b")
        server.refuse = 0
        await followed.until(lambda: not followed.watch.trouble)
        await followed.until(lambda: "b/second" in followed.names)
        assert followed.failures[cause] > 0


async def test_a_watch_that_is_well_again_says_so_though_nothing_happens() -> None:
    """A trouble ends with the watch that is opened, not with the next change."""
    async with following() as (server, followed):
        server.refuse = 503
        await server.cut()
        await followed.until(lambda: bool(followed.watch.trouble))
        server.refuse = 0
        await followed.until(lambda: not followed.watch.trouble)


async def test_an_answer_that_cannot_be_read_is_a_trouble_not_an_end() -> None:
    """A proxy's page in the place of the API's answer ends nothing."""
    async with following() as (server, followed):
        server.unreadable = True
        await server.cut()
        await followed.until(lambda: followed.failures[Cause.UNREADABLE] > 0)
        server.unreadable = False
        await server.put(THINGS, "second", "b")
        await followed.until(lambda: "b/second" in followed.names)


async def test_a_connection_that_died_unnoticed_is_given_up() -> None:
    """A watch that the server should have ended long ago is begun again: no wait is without an end."""
    async with following(Bounds(watch_s=0, slack_s=0.2, first_retry_s=0.01, last_retry_s=0.05)) as (server, followed):
        server.hang = True
        await followed.until(lambda: followed.failures[Cause.AWAY] > 0)
        assert followed.names == {"a/first"}
        server.hang = False
        await followed.until(lambda: not followed.watch.trouble)


async def test_a_server_that_ends_every_watch_is_not_asked_in_circles() -> None:
    """Watches that end at once are a pause apart."""
    async with following(Bounds(watch_s=0, first_retry_s=1, last_retry_s=10)) as (server, _):
        await asyncio.sleep(0.5)
        assert server.watches <= 2


async def test_only_what_is_wanted_of_an_object_is_kept() -> None:
    """What ``keep`` leaves out takes no room."""
    async with kube_server() as (server, api):
        await server.put(THINGS, "first", "a", spec={"n": 1}, status={"long": "x" * 1_000})
        followed = Followed(api, keep=lambda found: {"metadata": found["metadata"], "spec": found.get("spec")})
        async with running(followed.watch.run(), name="watch"):
            await followed.until(lambda: followed.watch.is_known)
            assert "status" not in followed.watch.objects["a", "first"]
