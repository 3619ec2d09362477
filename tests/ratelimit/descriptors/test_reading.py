"""Files of ordinary descriptors as text: what is read as what, and all that is wrong with one, by line and field."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.descriptors.fields import MAX_MERGED, MAX_PER_WINDOW
from ratelimit.descriptors.file import Limit
from ratelimit.descriptors.reading import MAX_DEPTH, MAX_TOLD, TAKEN, DescriptorsError, parse
from ratelimit.tokens.stream_done import DOMAIN
from ratelimit.windows.budgets import Window

HEAD = "domain: a\ndescriptors:\n"
X = HEAD + "- key: x\n"


def _limit(text: str, *entries: tuple[str, str]) -> Limit | None:
    return parse(HEAD + text).limit_of(entries)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("- {key: x, rate_limit: {unit: week, requests_per_unit: 5}}", Limit(Window.WEEK, 5)),
        ("- {key: x, rate_limit: {unit: WEEK, requests_per_unit: 4294967295}}", Limit(Window.WEEK, 2**32 - 1)),
        ("- {key: x, value: '', rate_limit: {unit: day, requests_per_unit: 5}}", Limit(Window.DAY, 5)),
        ("- {key: x, value: , rate_limit: {unit: day, requests_per_unit: 1_000}}", Limit(Window.DAY, 1_000)),
        ("- {key: x, value: ~, rate_limit: {unit: day, requests_per_unit: 0x10}}", Limit(Window.DAY, 16)),
        ("- {key: x, rate_limit: {unit: day, requests_per_unit: 5, name: , replaces: }}", Limit(Window.DAY, 5)),
        ("- {key: x, shadow_mode: yes, rate_limit: {unlimited: On}}", Limit(None, is_shadow=True)),
        ("- {key: x, quota_mode: true, rate_limit: {unlimited: true}}", Limit(None, is_quota=True)),
        ("- {key: x, quota_mode: true, shadow_mode: true, rate_limit: {unlimited: true}}", Limit(None, is_shadow=True)),
        (
            "- {key: x, quota_mode: , detailed_metric: True, rate_limit: {unlimited: true}}",
            Limit(None, is_detailed=True),
        ),
        ("- {key: x, value_to_metric: true, rate_limit: {unlimited: true}}", Limit(None, tells_values=True)),
        ("- {key: x, value: 1*, share_threshold: true, rate_limit: {unlimited: true}}", Limit(None, shares=True)),
        ("- {key: x, rate_limit: , descriptors: }", None),
        ("- {key: x, value: 1, rate_limit: {unlimited: true}}", Limit(None)),
        ("- {key: x, value: true}\n- &a {key: x, rate_limit: {unlimited: true}}", Limit(None)),
        ("- &a {key: y, rate_limit: {unlimited: true}}\n- {<<: *a, key: x}", Limit(None)),
        ("- {<<: [{key: x}, {key: y, rate_limit: {unlimited: true}}]}", Limit(None)),
    ],
)
def test_what_envoyproxys_service_reads_is_read_alike(text: str, limit: Limit | None) -> None:
    """Every flag, empty and null values, YAML's ways to write numbers and truths, anchors and merged mappings."""
    assert _limit(text, ("x", "1")) == limit


def test_merged_mappings_that_grow_without_end_are_refused() -> None:
    """Eight lines of aliases would be ten million fields, each to be looked at before the first limit is in force."""
    lines = ["- &a0 {key: x, value: '0'}"]
    lines += [f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], value: '{n}'}}" for n in range(1, 8)]
    with pytest.raises(DescriptorsError, match=f"line .*: a file may bring {MAX_MERGED} fields into mappings by <<"):
        parse(HEAD + "\n".join(lines))


def test_many_beginnings_of_one_key_are_read_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with the first alone, so that a long file is not compared with itself."""
    monkeypatch.setattr("ratelimit.descriptors.reading.MAX_COMPARED", 3)
    listed = "\n".join(f"- {{key: x, value: '{letter}*'}}" for letter in "abcde")
    assert len(parse(f"{HEAD}{listed}\n- {{key: x, value: 'cc*'}}").warnings) == 1
    assert parse(f"{HEAD}{listed}\n- {{key: x, value: 'dd*'}}").warnings == ()


def test_flags_above_a_limit_hold_below_it() -> None:
    """A key tells its value, or shares what it counts, whichever depth its limit stands at."""
    text = (
        "- {key: x, value: 1*, share_threshold: true, descriptors: [{key: y, rate_limit: {unlimited: true}}]}\n"
        "- {key: x, value_to_metric: true, descriptors: [{key: y, rate_limit: {unlimited: true}}]}"
    )
    assert _limit(text, ("x", "12"), ("y", "")) == Limit(None, shares=True)
    assert _limit(text, ("x", "2"), ("y", "")) == Limit(None, tells_values=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the file is empty"),
        ("[1]", "line 1: a file must be a mapping"),
        ("descriptors: []", "line 1: domain: is missing"),
        ("domain:", "line 1: domain: must be a text"),
        ("domain: tollkeeper", "line 1: domain: 'tollkeeper' is taken"),
        ("domain: a\ndescriptors: 5", "line 2: descriptors: must be a list"),
        ("domain: a\ndomain: b", "line 2: 'domain' stands here twice"),
        ("domain: a\nbudget: 5", "line 2: a file has no field 'budget'"),
        (HEAD + "- value: x", "line 3: descriptors[0].key: is missing"),
        (HEAD + "- key: ''", "line 3: descriptors[0].key: must be a text"),
        (HEAD + "- key: x*", "line 3: descriptors[0].key: ends in *, which only values may"),
        (X + "- key: x", "line 4: descriptors[1]: key 'x' without a value stands here twice, first in line 3"),
        (X + "- {key: x, value: ''}", "line 4: descriptors[1]: key 'x' without a value stands here twice"),
        (X + "- {key: x, value: v}\n- {key: x, value: v}", "line 5: descriptors[2]: key 'x' with value 'v' stands"),
        (X + "  rate_limit: 5", "line 4: descriptors[0].rate_limit: a rate_limit must be a mapping"),
        (X + "  rate_limit: {unit: eon, requests_per_unit: 1}", "unit: must be one of second, minute, hour, day, week"),
        (X + "  rate_limit: {requests_per_unit: 1}", "line 4: descriptors[0].rate_limit.unit: is missing"),
        (
            X + "  rate_limit: {unit: Month, requests_per_unit: 300}",
            "write unit: week with requests_per_unit: 70 (7 of",
        ),
        (X + "  rate_limit: {unit: year, requests_per_unit: 1}", "write unit: week with requests_per_unit: 1 (7 of"),
        (X + "  rate_limit: {unit: day}", "line 4: descriptors[0].rate_limit.requests_per_unit: is missing"),
        (X + "  rate_limit: {unit: day, requests_per_unit: -1}", f"0 to {MAX_PER_WINDOW}, not '-1'"),
        (X + "  rate_limit: {unit: day, requests_per_unit: 4294967296}", f"0 to {MAX_PER_WINDOW}, not '4294967296'"),
        (X + "  rate_limit: {unit: day, requests_per_unit: 010}", "must be a whole number"),
        (X + "  rate_limit: {unit: day, requests_per_unit: 1e3}", "must be a whole number"),
        (X + "  rate_limit: {unlimited: true, unit: day}", "rate_limit.unlimited: has no unit"),
        (X + "  rate_limit: {unlimited: true, shadow_mode: true}", "'shadow_mode'; it belongs to a descriptor"),
        (X + "  shadow_mode: maybe", "line 4: descriptors[0].shadow_mode: must be true or false"),
        (X + "  share_threshold: true", "line 4: descriptors[0].share_threshold: needs a value that ends in *"),
        (X + "  rate_limit: {unlimited: true, name: n, replaces: [{name: n}]}", "cannot replace itself"),
        (X + "  rate_limit: {unlimited: true, replaces: [{}]}", "rate_limit.replaces[0].name: is missing"),
        (X + "  rate_limit: {unlimited: true, replaces: [n]}", "replaces[0]: a replaces must be a mapping"),
        ("domain: [a", "line 1: "),
        ("domain: a\n\tx: 1", "line 2: "),
        ("domain: a\n---\ndomain: b", "line 2: "),
        ("[" * 5_000, "nested too deep"),
        ("domain: a\ndescriptors: &a [{key: x, descriptors: *a}]", f"may be nested {MAX_DEPTH} deep"),
    ],
)
def test_a_bad_file_is_told_by_line_field_and_rule(text: str, said: str) -> None:
    """So that whoever wrote it finds the place."""
    with pytest.raises(DescriptorsError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_the_domain_that_is_taken_is_the_one_of_endings() -> None:
    """Limits in it would hold nobody: what is asked there tells how calls ended."""
    assert TAKEN == DOMAIN


def test_all_faults_of_a_file_are_told_at_once() -> None:
    """One look mends them; beyond twenty their number is told."""
    faulty = (
        HEAD
        + "- {key: x, quota: 1, rate_limit: {unit: eon}}\n- 5\n- {value: v, descriptors: [{key: y, shadow_mode: 7}]}"
    )
    with pytest.raises(DescriptorsError) as caught:
        parse(faulty)
    parts = str(caught.value).split("; line ")
    assert [part.removeprefix("line ")[0] for part in parts] == ["3", "3", "3", "4", "5", "5"]
    assert "descriptors[2].descriptors[0].shadow_mode" in parts[-1]
    with pytest.raises(DescriptorsError, match=r"; and 10 more$"):
        parse(HEAD + "- {}\n" * (MAX_TOLD + 10))


def test_a_few_lines_of_aliases_do_not_become_millions_of_descriptors() -> None:
    """Each level names the one before nine times; the reader gives up, and soon."""
    names = "abcdefghi"
    text = "domain: a\ndescriptors:\n- {key: a, value: leaf}\n"
    level = "&l0 [{key: k}]"
    for number in range(1, 12):
        listed = ", ".join(f"{{key: {name}, descriptors: *l{number - 1}}}" for name in names)
        text += f"- {{key: level{number}, descriptors: {level}}}\n"
        level = f"&l{number} [{listed}]"
    with pytest.raises(DescriptorsError, match="a file may have 100000 descriptors"):
        parse(text + f"- {{key: last, descriptors: {level}}}")


@given(text=st.text(alphabet="abdk:-[]{} \n\t*&!#'\"0159<", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """A file is read or refused."""
    with contextlib.suppress(DescriptorsError):
        assert parse(text).domain
