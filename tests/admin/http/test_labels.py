"""Labels and selectors by Kubernetes' rules: what is taken, what is refused, and what a selector finds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.schemas.labels import holds, key_fault, parse_selector, value_fault

LABELS = {"team": "red", "env": "dev", "app.example.com/part-of": "chat", "empty": ""}

# From Kubernetes' own page on labels and its parser's tests.
FOUND = [
    ("", True), (" ", True), ("team", True), ("!team", False), ("none", False), ("!none", True),
    ("team=red", True), ("team==red", True), ("team = red", True), ("team=blue", False),
    ("team!=blue", True), ("team!=red", False), ("none!=red", True),
    ("team in (red, blue)", True), ("team in (blue)", False), ("none in (red)", False), ("none in ()", False),
    ("team notin (blue,green)", True), ("team notin (red)", False), ("none notin (red)", True),
    ("team=red,env in (dev,test),!old", True), ("team=red,env=prod", False), ("team,env,empty", True),
    ("app.example.com/part-of=chat", True), ("app.example.com/part-of in (chat)", True),
    ("empty=", True), ("empty in ()", True), ("empty in (,x)", True), ("team=", False), ("empty!=", False),
    ("in in (in)", False), ("notin notin (notin)", True), ("team=in", False),
]  # fmt: skip
REFUSED = [
    ",", "team,", ",team", "team,,env", "team=red env=dev", "team in red", "team in (red", "team in red)", "team (red)",
    "=red", "!=red", "!", "!!team", "! = x", "team=red=blue", "team > 1", "team=a b", "(team)", "team in ((a))", "()",
    "team==" + "x" * 64, "-team", "team-", "a/b/c", "/x", "x/", "UP.example/x", "team='red'", "team=\u00e9", "a\0b",
    "team=" + "r" * 1_000, "x" * 64, f"{'d' * 254}/x", ",".join(["team"] * 33),
]  # fmt: skip


@pytest.mark.parametrize(("text", "is_found"), FOUND)
def test_a_selector_finds_what_kubernetes_would(text: str, *, is_found: bool) -> None:
    """Equality, sets, existence; a label that is not there is not equal to anything."""
    assert holds(parse_selector(text), LABELS) is is_found


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_selector_is_refused(text: str) -> None:
    """With the rule that it breaks; nothing is guessed."""
    with pytest.raises(ValueError, match=r"."):
        parse_selector(text)


def test_as_many_requirements_as_may_be() -> None:
    """Thirty-two."""
    assert holds(parse_selector(",".join(["team"] * 32)), LABELS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("team=red SECRET", "expected , at character 10"),
        ("team in SECRET", "expected ( at character 9"),
        ("team in (red", "expected ) at the end"),
        ("SECRET SECRET", "expected =, ==, !=, in or notin at character 8"),
        ("team, =SECRET", "expected a label's key at character 7"),
        ("team,", "expected a label's key at the end"),
        ("SECRET/x", "at character 1)"),
        ("team=-SECRET", "at character 6)"),
        ("team=SECRET'", "character 12 cannot stand there"),
    ],
)
def test_a_refusal_says_where_and_nothing_of_what_stands_there(text: str, told: str) -> None:
    """A key's text may have been put there."""
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        parse_selector(text)
    assert "SECRET" not in str(refused.value)


@given(st.text(alphabet="ab.-_/=!,() in\u00e9\n", max_size=40))
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    """No text makes another fault; what is read can be asked of any labels."""
    try:
        selector = parse_selector(text)
    except ValueError:
        return
    assert holds(selector, LABELS) in {True, False}
    assert holds(selector, None) in {True, False}


@pytest.mark.parametrize(
    "key", ["a", "A.b_c-9", "x" * 63, "example.com/x", f"{'d' * 63}.{'e' * 63}/{'x' * 63}", "1.2/3"]
)
def test_good_keys(key: str) -> None:
    """Names, perhaps behind a DNS name."""
    assert key_fault(key) is None


@pytest.mark.parametrize(
    "key", ["", "-a", "a-", "x" * 64, "a b", "a/b/c", "/a", "a/", "Ex.com/a", "a\n", "\u00e9", "a@b"]
)
def test_bad_keys(key: str) -> None:
    """Everything else."""
    assert key_fault(key)


def test_values() -> None:
    """A name, or nothing."""
    assert [value_fault(one) for one in ("", "a", "A.b_c-9", "x" * 63)] == [None] * 4
    assert all(value_fault(one) for one in ("x" * 64, "a b", "-", "a/b", "\u00e9", " ", "a\n"))
