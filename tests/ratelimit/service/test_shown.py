"""An answer in a message that is kept for its shape is the answer that is made anew."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from protos.rate_limit_pb2 import RateLimitResponse
from ratelimit.descriptors.asking import Asked, Planner
from ratelimit.descriptors.reading import parse
from ratelimit.descriptors.telling import Outcome, Said
from ratelimit.service.shown import _response, shown
from ratelimit.windows.budgets import Answer, Grant

PLANNER = Planner(
    parse("""
domain: shop
descriptors:
  - {key: path, rate_limit: {unit: minute, requests_per_unit: 1000000000, name: paths}}
  - {key: user, rate_limit: {unit: day, requests_per_unit: 300}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 2}}
  - {key: banned, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 0}}
  - {key: gold, rate_limit: {unit: hour, requests_per_unit: 50, replaces: [{name: paths}]}}
""")
)
NOW_MS = 1_700_000_000_000

entries = st.tuples(
    st.tuples(st.sampled_from(["path", "user", "free", "trial", "banned", "gold", "other"]), st.just("v"))
)
calls = st.lists(st.tuples(entries, st.integers(0, 3)), min_size=1, max_size=5).map(tuple)
numbers = st.tuples(st.integers(0, 2 * 10**9), st.one_of(st.just(0), st.integers(NOW_MS - 5, NOW_MS + 10**8)))


@given(st.data(), st.lists(calls, min_size=1, max_size=6))
@settings(deadline=None)
def test_every_answer_is_as_if_it_were_the_first(data: st.DataObject, asked: list[tuple[object, ...]]) -> None:
    """Admitted or refused, whatever was answered to calls of the same shape before."""
    for descriptors in asked:
        plan = PLANNER.plan_of(Asked("shop", descriptors))  # type: ignore[arg-type]
        if plan.draw is None:
            continue
        told = [data.draw(numbers) for _ in plan.draw.charge.budgets]
        outcome = data.draw(st.sampled_from([Outcome.OK, Outcome.OVER_LIMIT]))
        answer = Answer.ADMITTED if outcome is Outcome.OK else Answer.REFUSED
        grant = Grant(answer, plan.draw, tuple(number for pair in told for number in pair))
        said = Said(outcome, plan, grant, NOW_MS)
        assert RateLimitResponse.FromString(shown(said)) == _response(said)
