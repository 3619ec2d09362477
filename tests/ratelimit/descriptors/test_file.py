"""Files of ordinary descriptors: which limit a call meets, and what is said of a file that is not good."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.descriptors.file import Entries, Limit, subject_of, without_replaced
from ratelimit.descriptors.reading import parse
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
    value: /static/big/*
    rate_limit: {unit: DAY, requests_per_unit: 1}
  - key: path
    value: /static/*
    rate_limit: {unlimited: true}
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
    """The exact value first, then the first beginning, then the key alone; never one of another depth."""
    file = parse(FILE)
    assert file.domain == "shop"
    assert file.limit_of(entries) == limit


def test_a_limit_can_stand_in_for_another() -> None:
    """Where both are met, the replaced one does not count."""
    file = parse(FILE)
    user, gold = file.limit_of((("path", "/x"), ("user", "ann"))), file.limit_of((("gold", "yes"),))
    assert without_replaced([user]) == [user]
    assert without_replaced([user, None, gold]) == [None, None, gold]
    unlimited = Limit(None, name="per-user")
    assert without_replaced([unlimited, gold]) == [unlimited, gold]  # as at envoyproxy/ratelimit


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
def test_of_many_beginnings_the_first_of_the_file_counts(listed: list[str], asked: str) -> None:
    """After the value itself; one that stands behind a shorter one is met by nothing, which is said."""
    file = parse(
        "domain: d\ndescriptors:\n"
        + "".join(
            f"  - {{key: k, value: '{one}', rate_limit: {{unit: day, requests_per_unit: {number}}}}}\n"
            for number, one in enumerate(listed, 1)
        )
    )
    beginnings = [one for one in listed if one.endswith("*") and asked.startswith(one[:-1])]
    best = asked if asked in listed else next(iter(beginnings), None)
    found = file.limit_of((("k", asked),))
    assert (found.per_window if found else None) == (listed.index(best) + 1 if best else None)
    if beginnings and asked in beginnings[1:]:
        assert any(f"value {asked!r} is never met" in one for one in file.warnings)


SHARING = """
domain: d
descriptors:
  - key: file
    value: pdf/*
    share_threshold: true
    descriptors:
      - {key: user, rate_limit: {unit: day, requests_per_unit: 9}}
      - {key: user, value: root, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: file, value: txt/*, value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: file, value: png/*, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: file, value: one, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - key: route
    value_to_metric: true
    descriptors:
      - {key: verb, rate_limit: {unit: day, requests_per_unit: 9}}
      - {key: user, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
"""


@pytest.mark.parametrize(
    ("entries", "counted_as", "label"),
    [
        ((("file", "pdf/a"), ("user", "ann")), (("file", "pdf/*"), ("user", "ann")), "d.file_pdf/*.user"),
        ((("file", "pdf/a"), ("user", "root")), (("file", "pdf/*"), ("user", "root")), "d.file_pdf/*.user_root"),
        ((("file", "pdf/*"), ("user", "ann")), (("file", "pdf/*"), ("user", "ann")), "d.file_pdf/*.user"),
        ((("file", "txt/a"),), (("file", "txt/a"),), "d.file_txt/a"),
        ((("file", "png/a"),), (("file", "png/a"),), "d.file_png/*"),
        ((("file", "one"),), (("file", "one"),), "d.file_one"),
        ((("route", "r"), ("verb", "get")), (("route", "r"), ("verb", "get")), "d.route_r.verb"),
        ((("route", ""), ("verb", "get")), (("route", ""), ("verb", "get")), "d.route.verb"),
        ((("route", "r"), ("user", "ann")), (("route", "r"), ("user", "ann")), "d.route_r.user_ann"),
    ],
)
def test_values_share_a_budget_or_tell_themselves(entries: Entries, counted_as: Entries, label: str) -> None:
    """envoyproxy/ratelimit's rules: the beginning stands for the values that share it, in the budget and the metric."""
    file = parse(SHARING)
    limit = file.limit_of(entries)
    assert limit is not None
    assert limit.shares == (entries[0][1].startswith("pdf/"))
    assert file.counted_as(entries) == counted_as
    assert file.label_of(entries, limit) == label
