"""A host's tree finds, for every call, the route that its list would have found."""

from __future__ import annotations

from typing import Any

from envoymatching import all_routes, found_by_list, found_by_tree, said
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog.records import PublicationRecord
from publisher.envoy.bodies import LARGE_BYTES
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.envoy.routes import routes
from publisher.plan import plan
from tests.e2e.proxy import HOST, kserve_v2, openai, publication, stripped

OTHER = "other.example.test"
SEGMENTS = ["a", "ab", "v1", "v2", "models", "predict", "chat", "b"]
PATHS = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
SHAPES = st.tuples(
    st.sampled_from([publication, kserve_v2, openai, stripped]), PATHS, st.sampled_from([HOST, HOST, OTHER])
)
TAILS = [
    "",
    "",
    "/",
    "/predict",
    "/infer",
    "/chat",
    "/a",
    "b",
    "?",
    "?x=1",
    "?/a",
    "?a/b",
    "/?",
    "/predict?x=/v1/a",
    "?/",
]
KSERVE = [
    "/",
    "/?x=1",
    "/v2",
    "/v2?x",
    "/v2/",
    "/v2/models/a/infer",
    "/v1/models/a:predict",
    "/:kserve/v1/models/a:predict",
]
PIECES = [*(f"/{one}" for one in SEGMENTS), "/", "?", "x", "/generate_stream", "/v1/models/"]


@st.composite
def catalogs(draw: st.DrawFn) -> list[PublicationRecord]:
    """Publications of all kinds whose paths lie in each other and beside each other."""
    return [make(f"p{n}", path, host=host) for n, (make, path, host) in enumerate(draw(st.lists(SHAPES, max_size=12)))]


@st.composite
def calls(draw: st.DrawFn, found: list[PublicationRecord]) -> dict[str, str]:
    """A call that resembles one of the publications' own, or none."""
    known = [record.path for record in found] or ["/a"]
    start = draw(st.sampled_from([*known, "/v1/chat", "/v1", "/"]))
    middle = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=2)))
    headers = {
        ":path": draw(st.sampled_from([start + middle + draw(st.sampled_from(TAILS)), *KSERVE])),
        ":method": draw(st.sampled_from(["GET", "POST"])),
        "content-length": draw(st.sampled_from(["", "0", str(LARGE_BYTES - 1), str(LARGE_BYTES)])),
        PUBLICATION_HEADER: draw(st.sampled_from(["", "nobody", *(record.uid for record in found)])),
    }
    return {name: value for name, value in headers.items() if value}


def hosts_of(found: list[PublicationRecord]) -> dict[str, Any]:
    """The rendered hosts by name."""
    (config,) = said(routes(plan(found)))
    return {host["name"]: host["matcher"] for host in config["virtual_hosts"]}


@settings(deadline=None)
@given(st.data())
def test_a_tree_finds_what_its_list_would(data: st.DataObject) -> None:
    """Paths inside paths, queries that look like paths, headers that Check may set: the same route, or none, always."""
    found = data.draw(catalogs())
    trees, lists = hosts_of(found), {host.name: host for host in plan(found).hosts}
    assert set(trees) == set(lists)
    for _ in range(8):
        headers = data.draw(calls(found))
        for name, matcher in trees.items():
            assert found_by_tree(matcher, headers) == found_by_list(lists[name], headers, named_by=PUBLICATION_HEADER)


@settings(deadline=None)
@given(catalogs())
@example([openai("p0", "/v1"), openai("p1", "/a")])
def test_a_tree_has_every_route_of_its_plan(found: list[PublicationRecord]) -> None:
    """But those that a body would choose where a publication has all paths below ``/v1`` itself."""
    for host in plan(found).hosts:
        in_tree = {route["name"] for route in all_routes(hosts_of(found)[host.name])}
        hidden = any(route.below and route.path == "/v1" and not route.chosen for route in host.routes)
        listed = {route.name for route in host.routes if not (hidden and route.chosen_by_body)}
        listed |= {f"{host.name}/kserve"} if host.kserve else set()
        assert in_tree == listed | ({f"{host.name}/openai"} if host.openai and not hidden else set())
