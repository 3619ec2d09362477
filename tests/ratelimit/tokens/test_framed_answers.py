"""How far off estimates are, of answers as nine servers frame them: the figures that docs/tokens.md states."""

from __future__ import annotations

import pytest

from benchmarks.framing.errors import (
    RESULT,
    Estimate,
    answers,
    as_document,
    as_prompt,
    as_stream,
    by_events,
    factors,
    learnt,
    table,
)
from benchmarks.framing.servers import SERVERS
from ratelimit.tokens.estimates import UNTOLD, WIDEST_BYTES_PER_TOKEN

BY_NAME = {server.name: server for server in SERVERS}
ANTHROPIC, BUNDLING, SHORT = "Anthropic messages", "vLLM chat, 3 tokens an event", "llama.cpp messages"
A_TOKEN_AN_EVENT = [name for name in BY_NAME if name not in {ANTHROPIC, BUNDLING}]


def _factors(way: Estimate, name: str, *, learned: bool = False) -> list[float]:
    of_server = [one for one in answers() if one.server == name]
    return factors(way, BY_NAME[name], of_server, learnt(of_server) if learned else UNTOLD)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_json_answer_is_taken_for_too_many_tokens_and_not_for_five_times_as_many(name: str) -> None:
    """Before anything is learnt no answer of a current tokenizer is taken for too few; Claude 2's made more tokens."""
    found = _factors(as_document, name)
    assert min(found) > (0.84 if name == ANTHROPIC else 1.2)
    assert max(found) < 5


@pytest.mark.parametrize("name", BY_NAME)
def test_no_stream_is_longer_than_its_tokens_can_make_it(name: str) -> None:
    """So no honest server's stream is taken for more than its caller asked for."""
    widest = WIDEST_BYTES_PER_TOKEN[BY_NAME[name].framing]
    assert all(one.stream_bytes <= widest * one.tokens for one in answers() if one.server == name)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_prompt_is_taken_for_too_many_tokens_and_not_for_four_times_as_many(name: str) -> None:
    """Of current tokenizers; the tokens that a server's template adds are not counted here."""
    found = _factors(as_prompt, name)
    assert min(found) > (0.83 if name == ANTHROPIC else 1.0)
    assert max(found) < 4


@pytest.mark.parametrize("name", BY_NAME)
def test_what_was_learnt_halves_what_a_json_answer_is_off_by(name: str) -> None:
    """It is a 95th percentile of dense and loose texts: of one kind of text it is closer."""
    found = _factors(as_document, name, learned=True)
    assert min(found) > 0.88
    assert max(found) < 3.2


@pytest.mark.parametrize("name", [name for name in A_TOKEN_AN_EVENT if name != SHORT])
def test_a_stream_of_a_token_an_event_is_taken_by_its_bytes_for_at_most_three_times_as_many(name: str) -> None:
    """Never for too few."""
    found = _factors(as_stream, name)
    assert min(found) > 1.3
    assert max(found) < 3.2


def test_streams_of_messages_are_taken_for_anthropics_by_their_bytes() -> None:
    """Of a local server that sends a token an event the estimate is thirty times too high until something is known."""
    anthropic, local = _factors(as_stream, ANTHROPIC), _factors(as_stream, SHORT)
    assert (min(anthropic) > 1, max(anthropic) < 4.1) == (True, True)
    assert (min(local) > 27, max(local) < 32) == (True, True)


def test_three_tokens_an_event_are_taken_for_a_third_too_few_at_most() -> None:
    """By bytes; by events they are a third until a stream has told its usage."""
    assert min(_factors(as_stream, BUNDLING)) > 0.69
    assert min(_factors(by_events, BUNDLING)) > 0.33
    assert min(_factors(by_events, BUNDLING, learned=True)) > 0.99


@pytest.mark.parametrize("name", A_TOKEN_AN_EVENT)
def test_events_say_tokens_where_each_is_one(name: str) -> None:
    """Within a twelfth: a character of several tokens is one event, and a few events hold no text."""
    found = _factors(by_events, name)
    assert min(found) > 0.91
    assert max(found) < 1.05


@pytest.mark.parametrize("name", A_TOKEN_AN_EVENT)
def test_a_stream_is_known_once_streams_of_the_model_have_told(name: str) -> None:
    """Within a quarter, by bytes or events."""
    for way in (as_stream, by_events):
        found = _factors(way, name, learned=True)
        assert min(found) > 0.97
        assert max(found) < 1.25


def test_the_table_that_is_shown_is_the_one_that_is_measured() -> None:
    """benchmarks/results/framed-answers.md holds what the estimate makes of the answers now."""
    assert table() in RESULT.read_text()
