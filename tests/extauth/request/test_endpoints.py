"""Which endpoint a path leads to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.request.endpoints import LISTED, MAX_READY_PATH, Endpoint, Kind, endpoint_of
from tests.tables.endpoints import OWN, ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_a_path_is_read_as_the_most_forgiving_server_would(row: Row) -> None:
    """Case, slashes and escapes aside it is a known endpoint; what can be read in two ways is none."""
    assert endpoint_of(row.path, row.own) == row.endpoint


def test_every_listed_endpoint_has_its_row() -> None:
    """The table is the specification of the whole list."""
    assert set(LISTED) <= {row.endpoint.name for row in ROWS}


@pytest.mark.parametrize(
    ("name", "within", "is_within"),
    [
        ("files", ("files",), True),
        ("files/f/content", ("batches", "files"), True),
        ("filesystem", ("files",), False),
        ("file", ("files",), False),
        ("files", (), False),
        ("x/files", ("files",), False),
    ],
)
def test_an_endpoint_is_within_what_it_lies_below(name: str, within: tuple[str, ...], is_within: bool) -> None:  # noqa: FBT001  a row
    """By whole segments."""
    assert Endpoint(name, Kind.OTHER).is_within(within) == is_within


def test_what_can_be_read_in_two_ways_is_within_nothing() -> None:
    """Whatever a publication opens."""
    assert not endpoint_of(f"{OWN}/files/%2e%2e/batches", OWN).is_within(("files", "batches"))


@given(st.text(max_size=4 * MAX_READY_PATH))
def test_any_text_has_an_endpoint(rest: str) -> None:
    """None fails; what is listed is spelt in no other letters; long and short paths are read alike."""
    endpoint = endpoint_of(f"{OWN}/{rest}", OWN)
    assert endpoint == endpoint_of(f"{OWN}/{rest}", OWN)
    assert not endpoint.is_listed or endpoint.is_owned or endpoint.name in LISTED
    assert endpoint_of(f"{OWN}/{'/' * 2 * MAX_READY_PATH}{rest}", OWN) == endpoint
