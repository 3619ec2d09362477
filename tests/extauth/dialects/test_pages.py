"""Pages of a list of models: what a query asks for, and what is cut out."""

from __future__ import annotations

import pytest

from extauth.dialects.pages import MOST, MOST_FIELDS, USUALLY, Page, page_of, paged
from extauth.request.body import BodyFault

NAMES = [f"m{number}" for number in range(45)]


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", Page()),
        ("limit=1", Page(1)),
        ("limit=1000", Page(1_000)),
        ("beta=true&after_id=llm", Page(after="llm")),
        ("before_id=team%2Fllama3.1%3A8b&limit=020", Page(20, before="team/llama3.1:8b")),
        ("after_id=", Page(after="")),
        ("limit", BodyFault),
        ("lifecycle%5B%5D=active", Page()),
    ],
)
def test_what_is_asked_for(query: str, page: Page | type[BodyFault]) -> None:
    """Twenty unless told; names are undone of their escapes; what is none of the three is no matter."""
    asked = page_of(query)
    assert isinstance(asked, page) if isinstance(page, type) else asked == page


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "", "1.0", "²", "\u0661", "0x10", "9" * 5_000])
def test_a_limit_is_a_number_of_1_to_1000(limit: str) -> None:
    """The fault names the field and the rule."""
    fault = page_of(f"limit={limit}")
    assert isinstance(fault, BodyFault)
    assert (fault.param, fault.code) == ("limit", "invalid_limit")
    assert f"1 to {MOST}" in fault.message


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=1&limit=1", "limit"),
        ("after_id=a&after_id=b", "after_id"),
        ("after_id=a&before_id=b", "before_id"),
        ("&".join(["a=1"] * (MOST_FIELDS + 1)), "query"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(query: str, param: str) -> None:
    """Also a query without end."""
    fault = page_of(query)
    assert isinstance(fault, BodyFault)
    assert fault.param == param


def test_pages_forth_and_back_hold_every_name_once() -> None:
    """``after_id`` from the first on, ``before_id`` from the last: neither leaves one out nor says one twice."""
    forth: list[str] = []
    page = Page(7)
    while True:
        names, has_more = _cut(page)
        forth += names
        if not has_more:
            break
        page = Page(7, after=names[-1])
    assert forth == NAMES
    back: list[str] = [NAMES[-1]]
    while True:
        names, has_more = _cut(Page(7, before=back[0]))
        back = names + back
        if not has_more:
            break
    assert back == NAMES


@pytest.mark.parametrize(
    ("page", "names", "has_more"),
    [
        (Page(), NAMES[:USUALLY], True),
        (Page(45), NAMES, False),
        (Page(44), NAMES[:44], True),
        (Page(after="m43"), ["m44"], False),
        (Page(after="m44"), [], False),
        (Page(before="m0"), [], False),
        (Page(before="m1"), ["m0"], False),
        (Page(1, before="m2"), ["m1"], True),
    ],
)
def test_at_the_edges(page: Page, names: list[str], has_more: bool) -> None:  # noqa: FBT001
    """The last name, the first, none."""
    assert _cut(page) == (names, has_more)


def test_nothing_to_page() -> None:
    """A key may call no model at all."""
    assert paged(Page(), []) == ([], False)


@pytest.mark.parametrize("page", [Page(after="gone"), Page(before="gone"), Page(after="")])
def test_a_name_that_is_not_in_the_list_is_a_fault(page: Page) -> None:
    """As of a model that was taken back meanwhile: better told than skipped."""
    fault = paged(page, NAMES)
    assert isinstance(fault, BodyFault)
    assert fault.param in {"after_id", "before_id"}
    assert "must name a model of this list" in fault.message


def _cut(page: Page) -> tuple[list[str], bool]:
    cut = paged(page, NAMES)
    assert not isinstance(cut, BodyFault)
    return [*cut[0]], cut[1]
