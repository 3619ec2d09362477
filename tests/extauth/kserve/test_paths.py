"""Paths in KServe's words: what each asks, of which model, and by which path it leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.routes import MAX_MODEL_NAME
from extauth.kserve.paths import MAX_PATH, NAMED_ROOT, Act, Asked, asked_of

CALLS, TELLS = Act.CALLS, Act.TELLS

ROWS = [
    ("/", Asked(Act.STATUS)),
    ("/v2", Asked(Act.METADATA)),
    ("/v2/health/live", Asked(Act.LIVE)),
    ("/v2/health/ready", Asked(Act.READY)),
    ("/v1/models/iris", Asked(TELLS, "", "v1", "iris")),
    ("/v1/models/iris:predict", Asked(CALLS, "", "v1", "iris", "", ":predict")),
    ("/v1/models/iris:explain", Asked(CALLS, "", "v1", "iris", "", ":explain")),
    ("/v1/models/iris:other", Asked(TELLS, "", "v1", "iris:other")),
    ("/v1/models/llama3.1:8b:predict", Asked(CALLS, "", "v1", "llama3.1:8b", "", ":predict")),
    ("/v1/models/tenant-b/iris:predict", Asked(CALLS, "", "v1", "tenant-b/iris", "", ":predict")),
    ("/v1/models/a%20b%2fc:predict", Asked(CALLS, "", "v1", "a b/c", "", ":predict")),
    ("/v2/models/iris", Asked(TELLS, "", "v2", "iris")),
    ("/v2/models/iris/ready", Asked(TELLS, "", "v2", "iris", "", "/ready")),
    ("/v2/models/iris/infer", Asked(CALLS, "", "v2", "iris", "", "/infer")),
    ("/v2/models/iris/generate_stream", Asked(CALLS, "", "v2", "iris", "", "/generate_stream")),
    ("/v2/models/iris/versions/2", Asked(TELLS, "", "v2", "iris", "2")),
    ("/v2/models/iris/versions/2/ready", Asked(TELLS, "", "v2", "iris", "2", "/ready")),
    ("/v2/models/b/iris/versions/v1.2~x/infer", Asked(CALLS, "", "v2", "b/iris", "v1.2~x", "/infer")),
    ("/v2/models/iris/config", Asked(TELLS, "", "v2", "iris/config")),
    ("/v2/models/iris/versions/2/config", Asked(TELLS, "", "v2", "iris/versions/2/config")),
    ("/v2/models/infer", Asked(TELLS, "", "v2", "infer")),
    ("/v2/models/ready/ready", Asked(TELLS, "", "v2", "ready", "", "/ready")),
]
NOTHING = [
    *("", "/x", "/v1", "/v1/models", "/v1/models/", "/v1/models/:predict", "/v2/", "/v2/models", "/v2/models/"),
    *("/v2/health", "/v2/repository/index", "/v3/models/iris", "/v2/models/iris/versions/../infer"),
    *("/v2/models/iris/versions/%2e%2e/infer", "/v2/models/iris/versions/a:b/infer", "/v2/models/iris/versions/é"),
    *("/models/iris/v2/models/iris/infer", "/v2/models/" + "a" * MAX_PATH),
]


@pytest.mark.parametrize(("path", "asked"), ROWS)
def test_a_path_asks(path: str, asked: Asked) -> None:
    """On a host, and below a publication's path, which is told apart whatever it is called."""
    assert asked_of(path, is_own=False) == asked
    for base in ("/models/iris", "/v2/models/iris", "/v1/models/a", "/v2"):
        assert asked_of(base + path, is_own=True) == asked._replace(base=base)


@pytest.mark.parametrize("path", NOTHING)
def test_a_path_asks_nothing(path: str) -> None:
    """What is none of the words; of a publication's own path its own paths are none."""
    assert asked_of(path, is_own=False) is None
    if path:
        assert asked_of("/models/iris", is_own=True) is None


def test_the_longest_name_fits_three_times_quoted() -> None:
    """So does a foreign tenant before it."""
    name = "%e9" * MAX_MODEL_NAME
    assert asked_of(f"/v2/models/{name}/versions/1/infer", is_own=False) is not None


@pytest.mark.parametrize(("path", "asked"), [row for row in ROWS if row[1].protocol])
def test_what_leaves_is_asked_alike(path: str, asked: Asked) -> None:
    """The server's name in the place of what was said, all else as it was, below a root that nobody has."""
    left = asked.upstream("served")
    assert left.startswith(f"{NAMED_ROOT}/")
    again = asked_of(left.removeprefix(NAMED_ROOT), is_own=False)
    assert again == asked._replace(name="served"), path


_PIECES = [
    "/",
    "/v1",
    "/v2",
    "/models",
    "/models/",
    "/versions/",
    ":predict",
    "/infer",
    "/ready",
    "/health/live",
    "a",
    ".",
]


@given(st.lists(st.sampled_from([*_PIECES, "%2f", "%00", "é", "x/y"]), max_size=12).map("".join), st.booleans())
def test_whatever_is_read_leaves_by_one_models_path(path: str, is_own: bool) -> None:  # noqa: FBT001  drawn
    """No version, name or base gets another segment, or a query, into the path that a server sees."""
    asked = asked_of(path, is_own=is_own)
    if asked is None or asked.of_server:
        return
    assert asked.name
    assert bool(asked.base) is is_own
    left = asked.upstream("served").removeprefix(NAMED_ROOT)
    assert left.split("/")[:4] in (
        ["", asked.protocol, "models", "served"],
        ["", "v1", "models", f"served{asked.tail}"],
    )
    assert len(left.split("/")) <= 7
    assert {".", ".."}.isdisjoint(left.split("/"))
    assert not any(one in left for one in "%?#\\")
