"""Publications to a plan: order, rewriting, and what is left out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from publisher.plan import Route, plan
from tests.e2e.proxy import HOST, kserve_v2, openai, publication, stripped


def _rewrites(routes: tuple[Route, ...]) -> list[tuple[str, bool, str]]:
    return [(route.path, route.below, route.rewrite) for route in routes]


def test_a_kserve_model_has_three_paths_and_no_more() -> None:
    """Status, predict and explain, named after the model and not after the path; KServe's own words wait for Check."""
    (host,) = plan([publication("u1", "/models/front", model="iris")]).hosts
    assert _rewrites(host.routes) == [
        ("/models/front", False, "/v1/models/iris"),
        ("/models/front/predict", False, "/v1/models/iris:predict"),
        ("/models/front/explain", False, "/v1/models/iris:explain"),
        ("/models/front", True, ""),
        ("/:kserve", True, "/"),
    ]
    assert (host.openai, host.kserve) == (False, True)


def test_an_open_inference_model_has_its_named_paths_and_no_more() -> None:
    """Metadata, readiness, inference and generation, named after the model; never a server's settings below it."""
    (host,) = plan([kserve_v2("u1", "/models/front", model="iris")]).hosts
    assert _rewrites(host.routes) == [
        ("/models/front", False, "/v2/models/iris"),
        ("/models/front/ready", False, "/v2/models/iris/ready"),
        ("/models/front/infer", False, "/v2/models/iris/infer"),
        ("/models/front/generate", False, "/v2/models/iris/generate"),
        ("/models/front/generate_stream", False, "/v2/models/iris/generate_stream"),
        ("/models/front", True, ""),
        ("/:kserve", True, "/"),
    ]
    assert (host.openai, host.kserve) == (False, True)


def test_an_openai_model_has_its_path_and_the_bodys() -> None:
    """Below its path lies the server's /v1; below the host's /v1 the body decides, tried after every path.

    /v1/models/NAME itself is the host's: which model a name means there depends on who asks.
    """
    (host,) = plan([openai("u1", "/llm", model="m"), openai("u2", "/v1/models/b")]).hosts
    assert [(route.publication, route.chosen_by_body) for route in host.routes] == [
        ("u2", False),
        ("u1", False),
        ("u1", False),
        ("u1", True),
        ("u2", True),
    ]
    assert _rewrites(host.routes)[:4] == [
        ("/v1/models/b", True, "/v1/"),
        ("/llm", False, "/v1/models/m"),
        ("/llm", True, "/v1/"),
        ("/v1", True, "/v1/"),
    ]
    assert host.openai


def test_any_other_server_sees_the_path_without_its_beginning() -> None:
    """The external path is taken off."""
    (host,) = plan([stripped("u1", "/x/y")]).hosts
    assert _rewrites(host.routes) == [("/x/y", False, "/"), ("/x/y", True, "/")]


def test_upstreams_and_what_they_are_told() -> None:
    """Ports default by scheme; Host is what the URL says."""
    made = plan([publication("a", "/a", "https://m.test"), publication("b", "/b", "http://[::1]:8000")])
    assert [(up.publication, one.tls, one.hostname, one.port) for up in made.upstreams for one in up.targets] == [
        ("a", True, "m.test", 443),
        ("b", False, "::1", 8000),
    ]
    assert {to.authority for up in made.upstreams for to in up.targets} == {"m.test", "[::1]:8000"}


SEGMENTS = st.lists(st.sampled_from(["a", "ab", "b", "predict", "v1"]), min_size=1, max_size=3)


@given(
    st.lists(st.tuples(SEGMENTS, st.sampled_from([publication, kserve_v2, openai, stripped])), max_size=8), st.randoms()
)
def test_the_same_publications_make_the_same_plan(shapes: list[tuple[list[str], object]], chance: object) -> None:
    """Whatever order they are read in; and a nested publication is tried before the one around it."""
    records = [make(f"u{n}", "/" + "/".join(path)) for n, (path, make) in enumerate(shapes)]
    made = plan(records)
    chance.shuffle(records)
    assert plan(records) == made
    paths = {record.uid: record.path for record in records}
    for host in made.hosts:
        by_path = [paths[route.publication] for route in host.routes if not route.chosen]
        for earlier, later in itertools.combinations(by_path, 2):
            assert not later.startswith(f"{earlier}/")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"uid": "a b"}, "uid"),
        ({"host": "*"}, "host"),
        ({"host": "API.test"}, "host"),
        ({"host": "api.test:80"}, "host"),
        ({"host": ""}, "host"),
        ({"path": "/"}, "path"),
        ({"path": "/a/"}, "path"),
        ({"path": "a"}, "path"),
        ({"path": "/a//b"}, "path"),
        ({"path": "/a/../b"}, "path"),
        ({"path": "/a?b"}, "path"),
        ({"path": "/a%2fb"}, "path"),
        ({"path": "/" + "a" * 512}, "path"),
        ({"model": "a/b"}, "model"),
        ({"model": "%REQ(x)%"}, "model"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://x:0"}, "url"),
        ({"url": "http://x:99999"}, "url"),
        ({"url": "http://user@x"}, "url"),
        ({"url": "http://x/path"}, "url"),
    ],
)
def test_what_no_gateway_can_be_given_is_refused_alone(fields: dict[str, str], word: str) -> None:
    """The reason names the field, and the other publication is laid out as if nothing were."""
    good = publication("good", "/good")
    bad = publication("bad", "/bad")
    record = structs.replace(bad, **fields)
    made = plan([record, good])
    assert list(made.refused) == [record.uid]
    assert made.refused[record.uid].startswith(word)
    assert (made.hosts, made.upstreams) == (plan([good]).hosts, plan([good]).upstreams)


def test_of_two_on_one_path_the_first_published_stays() -> None:
    """The catalog keeps paths unique; should it fail, the later one is refused and nobody's calls move."""
    made = plan([publication("late", "/a", created_at_ms=2), publication("early", "/a", created_at_ms=1)])
    assert made.refused == {"late": f"path: /a of {HOST} is early's"}
