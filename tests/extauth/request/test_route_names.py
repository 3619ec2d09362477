"""Names of rules: written by the publisher, read by the gate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.request.route_names import (
    ENTRY,
    NAMED,
    checked_rule,
    entry_rule,
    is_by_path,
    named_rule,
    publication_rule,
    read_rule,
)

_UIDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True).filter(
    lambda uid: uid not in {ENTRY, NAMED}
)
_PARTS = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
_HOSTS = st.from_regex(r"[a-z0-9]{1,9}(\.[a-z0-9]{1,9}){0,4}", fullmatch=True)


@given(uid=_UIDS, part=_PARTS)
def test_a_publications_rule_names_it(uid: str, part: str) -> None:
    """Whatever the part, the uid comes back, and no host."""
    assert read_rule(publication_rule(uid, part)) == read_rule(checked_rule(uid, part)) == (uid, "")


@given(host=_HOSTS)
def test_an_entry_names_its_host(host: str) -> None:
    """The host comes back whole, dots and all, and no publication."""
    assert read_rule(entry_rule(host)) == read_rule(named_rule(host)) == ("", host)


@given(uid=_UIDS, part=_PARTS, host=_HOSTS)
def test_a_rule_says_whether_the_path_names_the_model(uid: str, part: str, host: str) -> None:
    """A host's entry of its own, and one part of a publication; no host that is called like it."""
    assert is_by_path(named_rule(host))
    assert is_by_path(publication_rule(uid, NAMED))
    assert is_by_path(publication_rule(uid, f"{NAMED}.{part}"))
    assert not is_by_path(entry_rule(host))
    assert not is_by_path(entry_rule(NAMED))
    assert is_by_path(publication_rule(uid, part)) is (part == NAMED)


@pytest.mark.parametrize("rule", ["", "closed", "u1", "u1.", "openai", "openai."])
def test_any_other_name_names_nothing(rule: str) -> None:
    """A rule without two parts leads nowhere."""
    assert read_rule(rule) == ("", "")


@given(rule=st.text())
def test_no_name_names_two_things(rule: str) -> None:
    """At most one of the two, whatever a rule is called."""
    assert "" in read_rule(rule)
