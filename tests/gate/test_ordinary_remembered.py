"""A call that was planned before is decided as one that never was: by the file in force, with its own hits."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis
from prometheus_client import CollectorRegistry

from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.descriptors.asking import Asked
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.reading import parse
from ratelimit.service.edge import RateLimitService
from ratelimit.service.stream_done import StreamDone

FILES = [
    """
domain: {domain}
descriptors:
  - {{key: path, rate_limit: {{unit: day, requests_per_unit: 40, name: paths}}}}
  - {{key: user, rate_limit: {{unit: day, requests_per_unit: 30}}}}
  - {{key: free, rate_limit: {{unlimited: true}}}}
  - {{key: banned, rate_limit: {{unit: day, requests_per_unit: 0}}}}
  - {{key: trial, shadow_mode: true, rate_limit: {{unit: day, requests_per_unit: 5}}}}
  - {{key: gold, rate_limit: {{unit: day, requests_per_unit: 50, replaces: [{{name: paths}}]}}}}
""",
    """
domain: {domain}
descriptors:
  - {{key: user, rate_limit: {{unit: hour, requests_per_unit: 25}}}}
  - {{key: path, shadow_mode: true, rate_limit: {{unit: day, requests_per_unit: 8}}}}
""",
    "domain: another",
]


def _service(store: redis.Redis, ordinary: Ordinary) -> RateLimitService:
    return RateLimitService(
        StreamDone(lambda _told: None, lambda: None),
        lambda asked, _deadline_ms: ordinary.decide(asked, store.execute_command, 0),
        lambda: pytest.fail("unreadable"),
        on_fault=lambda _calls: pytest.fail("a fault of ours"),
        denies_undecided=lambda: True,
    )


def _request(dice: random.Random) -> Callable[[str], bytes]:
    """A call, for any domain: few different ones, so that they come again."""
    hits = dice.choice((0, 0, 1, 2, 45))
    picked = [
        (
            dice.choice(("path", "user", "free", "trial", "gold", "other")),
            dice.choice("ab"),
            dice.choice((None, None, 0, 2)),
        )
        for _ in range(dice.choice((1, 1, 2, 3)))
    ] + ([("banned", "a", None)] if dice.random() < 0.1 else [])

    def request(domain: str) -> bytes:
        made = RateLimitRequest(domain=domain, hits_addend=hits)
        for key, value, own in picked:
            one = made.descriptors.add()
            one.entries.add(key=key, value=value)
            if own is not None:
                one.hits_addend.value = own
        return made.SerializeToString()

    return request


def _told(answer: object) -> list[object]:
    """All that is said but for times, which differ between two runs of the script."""
    assert isinstance(answer, bytes)
    response = RateLimitResponse.FromString(answer)
    for status in response.statuses:
        status.ClearField("duration_until_reset")
    return [response.overall_code, *map(str, response.statuses)]


@pytest.mark.replaces
@pytest.mark.parametrize("seed", range(4))
def test_a_remembered_call_is_decided_as_a_fresh_one(
    store: redis.Redis, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two services count the same calls in two domains; one remembers, the other never does. The file changes too."""
    dice = random.Random(seed)  # noqa: S311  chance, no secret
    pair = [Ordinary(cells=1, metrics=OrdinaryMetrics(CollectorRegistry())) for _ in range(2)]
    remembering, forgetful = (_service(store, ordinary) for ordinary in pair)
    monkeypatch.setattr(forgetful._remembered, "offer", lambda _payload, _asked: None)
    pool = [_request(dice) for _ in range(12)]
    for _ in range(40):
        if dice.random() < 0.15:
            file = dice.choice(FILES)
            for ordinary, domain in zip(pair, ("one", "two"), strict=True):
                ordinary.use(parse(file.format(domain=domain)))
        calls = [dice.choice(pool) for _ in range(dice.choice((1, 3, 20)))]
        for mine, fresh in zip(
            remembering.answer([call("one") for call in calls], 0.0),
            forgetful.answer([call("two") for call in calls], 0.0),
            strict=True,
        ):
            assert _told(mine) == _told(fresh)
    assert len(remembering._remembered) > 5
    assert len(forgetful._remembered) == 0


def test_a_plan_of_the_file_before_is_not_used(store: redis.Redis) -> None:
    """From the first batch after the change on."""
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(CollectorRegistry()))
    asked = Asked("one", (((("user", "a"),), 1),))
    for limit in (3, 7):
        ordinary.use(
            parse(f"domain: one\ndescriptors: [{{key: user, rate_limit: {{unit: day, requests_per_unit: {limit}}}}}]")
        )
        (said,) = ordinary.decide([asked], store.execute_command, 0)
        assert said.statuses[0].limit is not None
        assert said.statuses[0].limit.per_window == limit


def test_calls_that_meet_the_same_limits_are_told_their_own_numbers(store: redis.Redis) -> None:
    """One names a value twice, the next two values, all of one limit: their answers share no more than its words."""
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(CollectorRegistry()))
    ordinary.use(parse("domain: one\ndescriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: 9}}]"))
    service = _service(store, ordinary)
    for values, remaining in (("aa", [7, 7]), ("bc", [8, 8]), ("ab", [6, 7]), ("aa", [4, 4]), ("cb", [7, 6])):
        request = RateLimitRequest(domain="one")
        for value in values:
            request.descriptors.add().entries.add(key="user", value=value)
        (answer,) = service.answer([request.SerializeToString()], 0.0)
        assert isinstance(answer, bytes)
        assert [status.limit_remaining for status in RateLimitResponse.FromString(answer).statuses] == remaining
