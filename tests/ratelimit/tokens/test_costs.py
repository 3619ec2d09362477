"""What a call holds back before it runs and what it is charged when it has ended."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit.tokens.costs import Cost, Ended, Ending, charge_of, goes_on, result_of
from ratelimit.tokens.endings import Told
from ratelimit.tokens.estimates import Framing
from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.settling.backlog import Waiting
from ratelimit.tokens.settling.dues import Due, Left, due_of
from ratelimit.tokens.terms import MAX_TOKENS, Asked, Basis, MissingUsage, Policy, Terms, Work, terms_of
from tests.tables import endings, holds

_tokens = st.integers(0, MAX_TOKENS)
_asked = st.builds(
    Asked,
    prompt_bytes=st.integers(0, 4 * 2**20) | st.integers(0, 2**63),
    max_tokens=st.none() | st.integers(0, MAX_TOKENS),
    choices=st.integers(1, 128),
    prompts=st.integers(1, 2**20),
    media_parts=st.integers(0, 2**20),
    framing=st.sampled_from(Framing),
    says_usage=st.booleans(),
    is_background=st.booleans(),
    work=st.sampled_from(Work),
)
_policies = st.builds(
    Policy,
    context_tokens=st.integers(1, 10**7),
    adaptive=st.booleans(),
    missing_usage=st.sampled_from(MissingUsage),
    default_completion_tokens=st.integers(1, 10**7),
    clamp_usage=st.booleans(),
    media_tokens=st.integers(0, 10**6),
    bytes_per_token=st.floats(1, 1_000),
)
_shares = st.none() | st.floats(0, 1)
_rates = st.none() | st.floats(0, 10**6)
_learned = st.builds(Learned, _shares, _shares, _shares, _rates, _rates, _shares, _rates)
_ended = st.builds(
    Ended,
    status=st.sampled_from((0, 200, 204, 400, 404, 408, 429, 500, 503, 504)),
    bytes_sent=st.integers(0, 10**9),
    total=st.none() | _tokens,
    prompt=st.none() | _tokens,
    completion=st.none() | _tokens,
    aborted=st.sampled_from((None, True, False)),
    duration_ms=st.none() | st.integers(0, 2**63),
    events=st.none() | st.integers(0, 2**63),
)


@pytest.mark.parametrize("row", endings.ROWS, ids=lambda row: row.says)
def test_every_ending_costs_what_the_table_says(row: endings.Row) -> None:
    """The table is the specification."""
    assert charge_of(terms_of(row.asked, row.policy, row.learned), row.ended) == row.cost


@pytest.mark.parametrize("row", holds.ROWS, ids=lambda row: row.says)
def test_every_call_holds_what_the_table_says(row: holds.Row) -> None:
    """The table is the specification."""
    assert terms_of(row.asked, row.policy, row.learned).reserved == row.held


@pytest.mark.parametrize("row", endings.RESULTS, ids=lambda row: row.says)
def test_work_in_the_background_is_told_by_whom_the_table_says(row: endings.Result) -> None:
    """A result is charged exactly what it told, however it ended; no other call waits for one."""
    terms = terms_of(endings.LATER, endings.LARGE)
    assert goes_on(terms, row.ended) == row.goes_on
    assert not goes_on(terms_of(endings.CHAT, endings.LARGE), row.ended)
    result = result_of(row.ended)
    assert (result is not None) == row.tells
    if result:
        assert charge_of(terms, result) == Cost(Ending.USAGE, 90)


@pytest.mark.parametrize("missing", MissingUsage)
def test_who_never_tells_is_presumed_at_all_that_work_in_the_background_holds(missing: MissingUsage) -> None:
    """Whatever the policy says of others: nothing can come that would give a part of it back."""
    terms = terms_of(endings.LATER, Policy(missing_usage=missing))
    assert terms.presumed == terms.reserved == 500


@given(asked=_asked, policy=_policies, learned=_learned, text=st.floats(0, 1), share=st.floats(0, 1))
def test_no_honest_call_that_names_its_most_costs_more_than_strict_held(
    asked: Asked, policy: Policy, learned: Learned, text: float, share: float
) -> None:
    """Whatever tokenizer, whatever of the completion comes: the real usage is within what was held."""
    most = asked.max_tokens or 0
    asked = asked._replace(max_tokens=most, work=Work.GENERATES, media_parts=0)
    terms = terms_of(asked, replace(policy, adaptive=False), learned)
    prompt = int(min(asked.prompt_bytes, policy.context_tokens) * text)
    real = prompt + int(min(policy.context_tokens - prompt, most) * share) * asked.answers
    assert min(real, MAX_TOKENS) <= terms.reserved
    assert charge_of(terms, Ended(200, total=min(real, MAX_TOKENS))).above == 0


@given(asked=_asked, policy=_policies, learned=_learned, ended=_ended)
def test_charges_are_within_bounds(asked: Asked, policy: Policy, learned: Learned, ended: Ended) -> None:
    """No charge is below nothing or above the script's ceiling, and what was not held is counted to the token."""
    terms = terms_of(asked, policy, learned)
    assert 0 <= terms.presumed <= terms.reserved <= terms.ceiling <= MAX_TOKENS
    assert (terms.reserved == 0) == (asked.work is Work.FETCHES)
    assert 0 <= terms.prompt_estimate <= terms.bound <= MAX_TOKENS
    cost = charge_of(terms, ended)
    assert 0 <= cost.tokens <= terms.ceiling
    assert cost.above == max(0, cost.tokens - terms.reserved)


@given(asked=_asked, policy=_policies, learned=_learned, ended=_ended)
def test_what_was_told_is_charged(asked: Asked, policy: Policy, learned: Learned, ended: Ended) -> None:
    """To the token where the server is believed, and never hidden by the caller's own words where it is not."""
    terms = terms_of(asked, policy, learned)
    cost = charge_of(terms, ended)
    if asked.work is Work.FETCHES:
        assert (cost.tokens, cost.clamped) == (0, False)
    elif ended.told is None or (asked.is_background and ended.told == 0):  # work that has yet to be done
        assert not cost.clamped
    elif not terms.is_clamped:
        assert cost.tokens >= ended.told
        assert cost.tokens == ended.told or ended.aborted
    else:
        assert cost.tokens <= max(terms.reserved, terms.bound)
        assert cost.clamped or cost.tokens >= ended.told


@example(
    asked=Asked(400, 1), policy=Policy(128_000), learned=UNLEARNED, ended=Ended(200, bytes_sent=10**7, events=20_000)
)
@given(asked=_asked, policy=_policies, learned=_learned, ended=_ended)
def test_who_names_usage_pays_for_what_was_sent(asked: Asked, policy: Policy, learned: Learned, ended: Ended) -> None:
    """A key called usage in one's body hides nothing of what the answer's own size shows."""
    silent = ended._replace(total=None, prompt=None, completion=None, aborted=True, status=200)
    shown = charge_of(terms_of(asked._replace(says_usage=False), policy, learned), silent).tokens
    told = charge_of(terms_of(asked._replace(says_usage=True), policy, learned), silent._replace(total=MAX_TOKENS))
    assert told.tokens >= shown


@given(asked=_asked, policy=_policies, learned=_learned)
def test_terms_are_read_as_they_were_written(asked: Asked, policy: Policy, learned: Learned) -> None:
    """They go to the store and back; any gate charges by them what the one that wrote them would."""
    terms = terms_of(asked, policy, learned)
    assert Terms.unpack(terms.pack()) == terms


_WRITTEN: Final = st.builds(
    lambda asked, policy, learned: terms_of(asked, policy, learned).pack(), _asked, _policies, _learned
)
_DAMAGED: Final = st.builds(
    lambda raw, at, byte: raw[:at] + bytes((byte,)) + raw[at + 1 :], _WRITTEN, st.integers(0, 86), st.integers(0, 255)
)


@example(raw=terms_of(Asked(100, 10, says_usage=True), Policy()).pack(), ended=Ended(200, total=5_000))
@example(raw=terms_of(Asked(100, 10), Policy(clamp_usage=True)).pack(), ended=Ended(200, total=5_000))
@example(raw=terms_of(Asked(100, 10, is_background=True), Policy()).pack(), ended=Ended(200, total=0))
@example(raw=terms_of(Asked(0, work=Work.FETCHES), Policy()).pack(), ended=Ended(200, total=100))
@example(raw=terms_of(Asked(100, work=Work.FORM), Policy()).pack(), ended=Ended(200, total=100))
@example(raw=terms_of(Asked(100, 10), Policy()).pack(), ended=Ended(200, bytes_sent=10**6, prompt=1, aborted=True))
@given(raw=_WRITTEN | _DAMAGED | st.binary(max_size=120), ended=_ended)
def test_no_more_of_the_terms_is_read_than_an_ending_needs_and_it_costs_the_same(raw: bytes, ended: Ended) -> None:
    """What is charged, what was not held and whether the terms can be read: as if all of them were read."""
    due = due_of(Waiting("r", Told("r", "p", ended), 0.0), raw)
    try:
        terms = Terms.unpack(raw)
    except ValueError:
        assert due is Left.UNREADABLE
        return
    cost = charge_of(terms, ended)
    assert isinstance(due, Due)
    assert (due.cost, due.settlement.tokens) == (cost, cost.tokens)
    assert due.settlement.above == (0 if terms.asked.work is Work.FORM else cost.above)
    told = {Ending.USAGE: True, Ending.NO_USAGE: False}.get(cost.ending)
    assert due.settlement.usage is (None if terms.asked.work is Work.FETCHES else told)
    assert due.terms == terms or (due.terms is None and due.raw_terms == raw)
    if due.terms is None:  # nobody waits for what it comes to, and it fetches nothing
        assert not goes_on(terms, ended)
        assert terms.asked.work is not Work.FETCHES


@given(raw=st.binary(max_size=120) | st.binary(min_size=86, max_size=86).map(lambda rest: b"\x02" + rest))
def test_what_is_none_is_refused(raw: bytes) -> None:
    """Bytes that cannot have been written raise ``ValueError`` and nothing else; others charge no less than nothing."""
    try:
        terms = Terms.unpack(raw)
    except ValueError:
        return
    assert len(raw) in {len(terms_of(Asked(1), Policy(), UNLEARNED).pack()), 34}
    assert charge_of(terms, Ended(200, 800, aborted=True)).tokens >= 0


OLD: Final = struct.pack("<BIIIIBQII", 1, 500, 1_000, 100, 300, 0, 400, 100, 1)
"""Terms as the release before wrote them, of a chat with a context of 1,000."""


@pytest.mark.parametrize(
    ("ended", "tokens", "clamped"),
    [
        (Ended(200, 800, total=160), 160, False),
        (Ended(200, 800, total=10**9), 1_000, True),  # its script has written down that no more may be charged
        (Ended(200, 800, aborted=False), 340, False),
        (Ended(0, aborted=True), 100, False),
        (Ended(503), 0, False),
    ],
)
def test_what_the_release_before_admitted_is_charged(ended: Ended, tokens: int, clamped: bool) -> None:  # noqa: FBT001
    """By its terms, of which 34 bytes are in the store while its calls run."""
    cost = charge_of(Terms.unpack(OLD), ended)
    assert (cost.tokens, cost.clamped) == (tokens, clamped)


def test_embeddings_of_the_release_before_are_charged() -> None:
    """It wrote no choice where nothing is generated."""
    old = struct.pack("<BIIIIBQII", 1, 400, 400, 100, 100, 0, 400, 0, 0)
    assert charge_of(Terms.unpack(old), Ended(200, 10**6, aborted=False)).tokens == 100


def test_the_release_before_cannot_read_ours_and_leaves_them_to_the_sweep() -> None:
    """It takes 34 bytes of version 1 for terms and nothing else, counts what it cannot read, and charges nothing."""
    raw = terms_of(Asked(400, 100), Policy()).pack()
    assert len(raw) != len(OLD)
    assert raw[0] != OLD[0]


@given(asked=_asked, policy=_policies, learned=_learned)
def test_what_the_script_is_told_is_what_the_terms_say(asked: Asked, policy: Policy, learned: Learned) -> None:
    """Packed at once or by way of the terms; and what was packed is read as it was meant."""
    asked = asked._replace(choices=1, prompts=min(asked.prompts, 100), media_parts=min(asked.media_parts, 100))
    terms = terms_of(asked, policy, learned)
    amounts, packed = Basis(policy, learned).held(asked)
    assert packed == terms.pack()
    assert Terms.unpack(packed) == terms
    assert tuple(amounts) == terms[: len(amounts)]
