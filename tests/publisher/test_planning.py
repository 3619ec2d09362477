"""Plans that are made again: what is remembered says what would be made anew, and nothing is made without need."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from catalog.records import Limits, PublicationRecord, TokenPolicy
from publisher.envoy.clusters import clusters
from publisher.envoy.rendering import Rendering
from publisher.envoy.routes import routes
from publisher.memo import Memo
from publisher.plan import plan
from publisher.planning import Planner
from publisher.workshop import NAME, Workshop, workshop
from tests.e2e.proxy import kserve_v2, openai, publication, stripped

MAKERS = [publication, kserve_v2, openai, stripped]


@st.composite
def publications(draw: st.DrawFn) -> PublicationRecord:
    """Of a few uids, paths and servers, so that they meet themselves and each other again; some fit no gateway."""
    uid = draw(st.sampled_from(["a", "b", "c"]))
    return draw(st.sampled_from(MAKERS))(
        uid,
        draw(st.sampled_from(["/x", "/x/y", "/v1", "no path"])),
        draw(st.sampled_from(["http://one:1", "https://two", "ftp://bad"])),
        host=draw(st.sampled_from(["h.test", "i.test"])),
        model=draw(st.sampled_from(["m", "n", "no model"])),
        tokens=draw(st.sampled_from([TokenPolicy(), TokenPolicy(reservation_timeout_s=77)])),
        created_at_ms=draw(st.integers(0, 3)),
        version=draw(st.integers(1, 3)),
    )


@settings(deadline=None)
@given(st.lists(st.lists(publications(), unique_by=lambda one: one.uid), max_size=6))
def test_what_is_remembered_is_what_would_be_made(histories: list[list[PublicationRecord]]) -> None:
    """Whatever changes after whatever: plan and files are those of somebody who remembers nothing."""
    planner, rendering = Planner(), Rendering(upstream_ca="/ca.pem", origins=("https://app.test",))
    for records in histories:
        made = planner.plan(records)
        assert made == plan(records)
        files = rendering.of(made)
        assert files.clusters == clusters(made, upstream_ca="/ca.pem")
        assert files.routes == routes(made, origins=("https://app.test",))


def test_a_host_has_its_further_names_unless_they_are_somebodys_own() -> None:
    """Two virtual hosts of one name would be refused by Envoy: what is published there by itself comes first."""
    aliases = {"h.test": ["localhost", "127.0.0.1"], "none.test": ["x.test"]}
    records = [publication("a", "/a", host="h.test"), publication("b", "/b", host="i.test")]
    rendering = Rendering(upstream_ca="", origins=(), aliases=aliases)

    def domains(shown: Sequence[PublicationRecord]) -> list[list[str]]:
        found = json.loads(rendering.of(plan(shown)).routes.text())
        return [one["domains"] for one in found["resources"][0]["virtual_hosts"]]

    assert domains(records) == [["h.test", "localhost", "127.0.0.1"], ["i.test"]]
    own = publication("c", "/c", host="localhost")
    assert domains([*records, own]) == [["h.test", "127.0.0.1"], ["i.test"], ["localhost"]]


def test_what_no_gateway_sees_changes_no_plan() -> None:
    """Limits, tenants, versions: the very same plan, so nothing is rendered, compared or written."""
    planner = Planner()
    before = planner.plan([publication("a", "/a")])
    changed = publication("a", "/a", limits=Limits(1, 2, 3, 4), allowed_tenants=("x",), version=9, updated_at_ms=7)
    assert planner.plan([changed]) is before
    assert planner.plan([structs.replace(changed, path="/b")]) is not before


def test_a_round_makes_only_what_the_last_one_had_not() -> None:
    """And forgets what was not asked for."""
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    memo = Memo(make)
    for keys in (["a", "b"], ["a"], ["a", "b"]):
        memo.next_round()
        assert [memo(key) for key in keys] == [key.upper() for key in keys]
    assert made == ["a", "b", "b"]


async def test_a_workshop_is_one_thread_with_a_name() -> None:
    """Work is done one after the other, and never on the loop's own thread."""
    with workshop() as shop:
        names = await asyncio.gather(*(shop.do(lambda: threading.current_thread().name) for _ in range(3)))
    assert set(names) == {f"{NAME}_0"}


async def test_who_is_cancelled_leaves_nothing_at_work() -> None:
    """A publisher that has lost its lease is not gone before its last piece of work is."""
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        done.set()

    with workshop() as shop:
        task = asyncio.create_task(shop.do(work))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()


async def test_a_fault_of_the_work_is_the_askers() -> None:
    """It is raised where the work was asked for, and the workshop goes on."""

    def fail(_: Sequence[str]) -> None:
        raise ValueError("no")

    shop = Workshop()
    with pytest.raises(ValueError, match="no"):
        await shop.do(fail, ())
    assert await shop.do(len, "ab") == 2
    shop.close()
