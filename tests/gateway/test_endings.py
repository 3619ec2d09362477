"""What each ending of a call costs, through Envoy Gateway: the same scenarios as through plain Envoy, and more."""

from __future__ import annotations

import gzip

import pytest
from gatewayground import Ground, MeteredHere

from tests.e2e.test_endings import (
    test_a_call_holds_back_the_most_that_it_can_cost_until_it_is_settled,
    test_a_compressed_request_is_refused,
    test_a_failure_costs_nothing,
    test_a_fraction_is_rounded_up,
    test_a_stream_that_breaks_costs_what_was_sent,
    test_a_whole_answer_without_usage_is_estimated,
    test_long_prompts_pass,
    test_traditional_calls_are_told_to_nobody,
    test_usage_is_read_in_every_form,
    test_usage_that_cannot_be_meant_is_no_usage,
    test_what_is_told_above_the_hold_is_charged_and_counted,
    test_who_leaves_before_an_answer_pays_for_the_prompt,
    test_who_leaves_in_the_middle_pays_for_what_was_sent,
)

__all__ = [
    "test_a_call_holds_back_the_most_that_it_can_cost_until_it_is_settled",
    "test_a_compressed_request_is_refused",
    "test_a_failure_costs_nothing",
    "test_a_fraction_is_rounded_up",
    "test_a_stream_that_breaks_costs_what_was_sent",
    "test_a_whole_answer_without_usage_is_estimated",
    "test_long_prompts_pass",
    "test_traditional_calls_are_told_to_nobody",
    "test_usage_is_read_in_every_form",
    "test_usage_that_cannot_be_meant_is_no_usage",
    "test_what_is_told_above_the_hold_is_charged_and_counted",
    "test_who_leaves_before_an_answer_pays_for_the_prompt",
    "test_who_leaves_in_the_middle_pays_for_what_was_sent",
]

pytestmark = pytest.mark.gateway


@pytest.fixture
def rig(ground: Ground) -> MeteredHere:
    """The model whose server sends any bytes, with nothing held."""
    made = ground.metered()
    made.settled()
    return made


def test_what_plain_envoy_unpacks_is_refused_here(rig: MeteredHere) -> None:
    """Nobody would unpack it for the model's server."""
    assert rig.call("json", gzip.compress(rig.body()), "content-encoding: gzip").status == 415


REFUSED: dict[str, bytes] = {
    "broken": b'{"max_tokens": ',
    "a deciding name twice": b'{"max_tokens": 1, "max_tokens": 900}',
    "a deciding name in another case": b'{"MAX_TOKENS": 900}',
    "a name that is not UTF-8": b'{"max_tok\xffens": 900}',
    "no object": b"[1]",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_refused_body_holds_nothing(rig: MeteredHere, body: bytes) -> None:
    """400 in OpenAI's shape; neither its server nor the budget hears of it."""
    before, seen = rig.settled(), rig.server.seen
    answer = rig.call("json", body)
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error"), answer.body
    assert (rig.settled(), rig.server.seen) == (before, seen)
