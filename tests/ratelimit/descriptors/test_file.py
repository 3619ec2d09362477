"""Files of ordinary descriptors: which limit a call meets, and what is said of a file that is not good."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.descriptors.file import DescriptorsError, Entries, Limit, limits_met, parse, subject_of
from ratelimit.windows.budgets import Window

FILE = """
domain: shop
descriptors:
  - key: path
    rate_limit: {unit: minute, requests_per_unit: 100}
    descriptors:
      - key: user
        rate_limit: {unit: second, requests_per_unit: 3, name: per-user}
  - key: path
    value: /pay
    rate_limit: {unit: hour, requests_per_unit: 5}
  - key: path
    value: /static/*
    rate_limit: {unlimited: true}
  - key: path
    value: /static/big/*
    rate_limit: {unit: DAY, requests_per_unit: 1}
  - key: banned
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: trial
    shadow_mode: true
    rate_limit: {unit: day, requests_per_unit: 7}
  - key: gold
    rate_limit: {unit: second, requests_per_unit: 50, replaces: [{name: per-user}]}
  - key: nothing
"""

MINUTE = Limit(Window.MINUTE, 100)
ROWS = [
    ((("path", "/x"),), MINUTE),
    ((("path", "/pay"),), Limit(Window.HOUR, 5)),
    ((("path", "/static/a"),), Limit(None)),
    ((("path", "/static/big/a"),), Limit(Window.DAY, 1)),
    ((("path", "/static"),), MINUTE),
    ((("path", "/x"), ("user", "ann")), Limit(Window.SECOND, 3, "per-user")),
    ((("path", "/pay"), ("user", "ann")), None),  # nothing stands below the exact value
    ((("user", "ann"),), None),  # it stands deeper
    ((("path", "/x"), ("user", "ann"), ("more", "1")), None),
    ((("banned", "bob"),), Limit(Window.SECOND, 0)),
    ((("trial", "1"),), Limit(Window.DAY, 7, is_shadow=True)),
    ((("nothing", "1"),), None),
    ((("unknown", "1"),), None),
    ((), None),
]


@pytest.mark.parametrize(("entries", "limit"), ROWS, ids=str)
def test_a_descriptor_meets_the_limit_of_its_depth(entries: Entries, limit: Limit | None) -> None:
    """The exact value first, then the longest beginning, then the key alone; never one of another depth."""
    file = parse(FILE)
    assert file.domain == "shop"
    assert file.limit_of(entries) == limit


def test_a_limit_can_stand_in_for_another() -> None:
    """Where both are met, the replaced one does not count."""
    file = parse(FILE)
    user, gold = (("path", "/x"), ("user", "ann")), (("gold", "yes"),)
    alone = limits_met(file, [user])
    both = limits_met(file, [user, gold])
    assert alone[0] is not None
    assert [one is None for one in both] == [True, False]
    assert limits_met(None, [user]) == [None]


def test_every_value_has_a_budget_of_its_own() -> None:
    """Whatever the texts are, no two descriptors share a name by being written together."""
    limit = Limit(Window.MINUTE, 5)
    names = {
        subject_of(domain, entries, limit).name
        for domain, entries in [
            ("a", (("k", "v"),)),
            ("b", (("k", "v"),)),
            ("a", (("k", "v2"),)),
            ("a", (("k", "v"), ("l", "w"))),
            ("a", (("k", 'v"],["l","w'),)),
            ("a", (("kv", ""),)),
        ]
    }
    assert len(names) == 6
    assert subject_of("a", (("k", "v"),), limit).budgets[0].limit == 5
    assert subject_of("a", (("k", "v"),), Limit(None)).budgets == ()


texts = st.text(alphabet=st.one_of(st.sampled_from('"\\/\n\x00\x7f\u2028é\ud800,[] '), st.characters()), max_size=9)


@given(domain=texts, entries=st.lists(st.tuples(texts, texts), max_size=3).map(tuple))
@settings(deadline=None)
def test_a_budgets_name_is_the_same_in_every_release(domain: str, entries: Entries) -> None:
    """The hash of the same JSON as ever, or each update would begin all budgets anew."""
    text = json.dumps([domain, entries], ensure_ascii=False).encode(errors="surrogatepass")
    expected = f"d:{hashlib.sha256(text).hexdigest()[:40]}"
    assert subject_of(domain, entries, Limit(Window.DAY, 1)).name == expected


values = st.text(alphabet="ab*", min_size=1, max_size=4)


@given(listed=st.lists(values, unique=True, min_size=1, max_size=8), asked=values)
def test_of_many_beginnings_the_longest_counts(listed: list[str], asked: str) -> None:
    """After the value itself, in whatever order they stand."""
    file = parse(
        "domain: d\ndescriptors:\n"
        + "".join(
            f"  - {{key: k, value: '{one}', rate_limit: {{unit: day, requests_per_unit: {number}}}}}\n"
            for number, one in enumerate(listed, 1)
        )
    )
    beginnings = [one for one in listed if one.endswith("*") and asked.startswith(one[:-1])]
    best = asked if asked in listed else max(beginnings, key=len, default=None)
    found = file.limit_of((("k", asked),))
    assert (found.per_window if found else None) == (listed.index(best) + 1 if best else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the file is empty"),
        ("[1]", "line 1: a file must be a mapping"),
        ("descriptors: []", "line 1: domain: is missing"),
        ("domain: a\ndescriptors: 5", "line 2: descriptors: must be a list"),
        ("domain: a\ndomain: b", "line 2: 'domain' stands here twice"),
        ("domain: a\nbudget: 5", "line 2: a file has no field 'budget'"),
        ("domain: a\ndescriptors:\n- value: x", "line 3: key: is missing"),
        ("domain: a\ndescriptors:\n- key: x\n- key: x", "line 4: key 'x' with value None stands here twice"),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: 5", "line 4: a rate_limit must be a mapping"),
        (
            "domain: a\ndescriptors:\n- key: x\n  rate_limit: {unit: week, requests_per_unit: 1}",
            "unit: must be one",
        ),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: {unit: day}", "line 4: requests_per_unit: is missing"),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: {unit: day, requests_per_unit: -1}", "0 to 1000000000"),
        ("domain: a\ndescriptors:\n- key: x\n  rate_limit: {unlimited: true, unit: day}", "unlimited: has no unit"),
        ("domain: a\ndescriptors:\n- key: x\n  shadow_mode: maybe", "line 4: shadow_mode: must be true or false"),
        (
            "domain: a\ndescriptors:\n- key: x\n  rate_limit: {unlimited: true, name: n, replaces: [{name: n}]}",
            "cannot replace itself",
        ),
        ("domain: [a", "line 1: "),
        ("domain: a\n\tx: 1", "line 2: "),
    ],
)
def test_a_bad_file_is_told_by_line_and_rule(text: str, said: str) -> None:
    """So that whoever wrote it finds the place."""
    with pytest.raises(DescriptorsError) as caught:
        parse(text)
    assert said in str(caught.value)


@given(text=st.text(alphabet="abdk:-[]{} \n\t*&!#'\"0159", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """A file is read or refused."""
    with contextlib.suppress(DescriptorsError):
        assert parse(text).domain
