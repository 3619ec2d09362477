"""What each ending of a call costs, through Envoy Gateway: the same scenarios as through plain Envoy, and more."""

from __future__ import annotations

import pytest
from gatewayground import Ground, MeteredHere

from tests.e2e.test_endings import (
    test_a_call_holds_back_the_most_that_it_can_cost_until_it_is_settled,
    test_a_compressed_request_is_refused,
    test_a_failure_costs_nothing,
    test_a_fraction_is_rounded_down,
    test_a_lie_is_clamped_and_counted,
    test_a_refused_call_holds_nothing,
    test_a_stream_that_breaks_costs_what_was_sent,
    test_a_whole_answer_without_usage_is_estimated,
    test_an_answer_that_is_too_large_costs_the_prompt,
    test_long_prompts_pass,
    test_no_duplicate_hides_what_a_call_costs,
    test_traditional_calls_are_told_to_nobody,
    test_usage_is_read_in_every_form,
    test_usage_that_cannot_be_meant_is_no_usage,
    test_who_leaves_before_an_answer_pays_for_the_prompt,
    test_who_leaves_in_the_middle_pays_for_what_was_sent,
)

__all__ = [
    "test_a_call_holds_back_the_most_that_it_can_cost_until_it_is_settled",
    "test_a_compressed_request_is_refused",
    "test_a_failure_costs_nothing",
    "test_a_fraction_is_rounded_down",
    "test_a_lie_is_clamped_and_counted",
    "test_a_refused_call_holds_nothing",
    "test_a_stream_that_breaks_costs_what_was_sent",
    "test_a_whole_answer_without_usage_is_estimated",
    "test_an_answer_that_is_too_large_costs_the_prompt",
    "test_long_prompts_pass",
    "test_no_duplicate_hides_what_a_call_costs",
    "test_traditional_calls_are_told_to_nobody",
    "test_usage_is_read_in_every_form",
    "test_usage_that_cannot_be_meant_is_no_usage",
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
