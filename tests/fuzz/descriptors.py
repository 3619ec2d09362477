"""ShouldRateLimit under fire: ordinary descriptors against an exact tally, forged endings, and bytes that are neither.

The limits are by the day and a run is shorter, so that nothing lapses: the tally kept here must be the store's.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.descriptors.asking import MAX_DESCRIPTORS
from ratelimit.service.edge import RateLimitService
from ratelimit.tokens.stream_done import DOMAIN
from ratelimit.windows.budgets import MAX_UNITS
from runtime.grpc.front import INVALID_ARGUMENT, Answer, Failure
from tests.fuzz.found import Found, Tally
from tests.fuzz.texts import mutated, odd_text

FILE: Final = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: day, requests_per_unit: 50}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: banned, rate_limit: {unit: day, requests_per_unit: 0}}
  - key: path
    descriptors:
      - {key: verb, value: post, rate_limit: {unit: day, requests_per_unit: 20}}
"""
BATCH: Final = 50
FRESH_EVERY: Final = 40  # batches: then other values, so that calls go on being admitted
PATIENCE_MS: Final = 5_000
MAX_UNDECIDED: Final = 0.01
_LARGEST: Final = 4_000_000_000
"""Of a limit that is exact while gates of the release before run too: what a bucket of stored format 1 holds."""
_HITS: Final = (0, 0, 1, 1, 1, 2, 7, 50, 51, 2**31, 2**32 - 1)
_VALUES: Final = ("", "a", "b", "c", "post", "/x")
_OK: Final = RateLimitResponse.OK
_UNITS: Final = (1, 2, 3, 4)
_DAY: Final = 4
_SHORT: Final = (1, 2)

Subject = tuple[str, ...]


class DescriptorTarget:
    """Feeds ``RateLimitService/ShouldRateLimit`` of a gate that holds the file above."""

    name = "descriptors"

    def __init__(self, service: RateLimitService, tally: Tally) -> None:
        self._service = service
        self._tally = tally
        self._used: Counter[Subject] = Counter()
        self._batches = 0
        self._faults: list[BaseException | None] = []
        service._on_fault = lambda _calls: self._faults.append(sys.exc_info()[1])

    def run(self, rng: random.Random, count: int) -> None:
        """Ask this many questions; raises ``Found``."""
        for first in range(0, count, BATCH):
            self._batches += 1
            payloads = [self._payload(rng) for _ in range(min(BATCH, count - first))]
            answers = self._service.answer(payloads, time.monotonic() * 1000 + PATIENCE_MS)
            if self._faults:
                raise Found(f"a batch was left undecided: {self._faults[0]!r}")
            if len(answers) != len(payloads):
                raise Found(f"{len(payloads)} questions, {len(answers)} answers")
            for payload, answer in zip(payloads, answers, strict=True):
                self._judge(payload, answer)

    def verify(self) -> None:
        """Say whether the run proved anything."""
        outcomes, asked = self._tally.outcomes, self._tally.inputs[self.name]
        for due in ("admitted", "refused", "nonsense", "ending", "unreadable"):
            if not outcomes[f"{self.name} {due}"]:
                raise Found(f"no question came out as {due}: the fuzzer asks nonsense only")
        if outcomes[f"{self.name} undecided"] > 10 + asked * MAX_UNDECIDED:
            raise Found("too many questions were left undecided")

    def _payload(self, rng: random.Random) -> bytes:
        domain = rng.choice(("shop",) * 8 + (DOMAIN, "other", odd_text(rng)[:200]))
        request = RateLimitRequest(domain=domain, hits_addend=rng.choice(_HITS))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1))):
            made = request.descriptors.add()
            for key, value in self._entries(rng, domain):
                made.entries.add(key=key, value=value)
            if rng.random() < 0.3:
                made.hits_addend.value = rng.choice((*_HITS, 2**64 - 1))
            made.is_negative_hits = rng.random() < 0.05
            if rng.random() < 0.1:
                made.limit.requests_per_unit = rng.choice((0, 1, 7, 50, _LARGEST))
                made.limit.unit = rng.choice((1, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, rng.randrange(9)))  # type: ignore[assignment]
        payload = request.SerializeToString()
        return mutated(rng, payload) if rng.random() < 0.1 else payload

    def _entries(self, rng: random.Random, domain: str) -> Sequence[tuple[str, str]]:
        if domain == DOMAIN:
            told = (
                "reservation",
                "publication",
                "status",
                "bytes",
                "total",
                "prompt",
                "completion",
                odd_text(rng)[:50],
            )
            return [(name, rng.choice(("", "-", "200", "-1", "1e9", odd_text(rng)))) for name in told]
        fresh = f"{self._batches // FRESH_EVERY}:"
        value = fresh + (rng.choice(_VALUES) if rng.random() < 0.9 else odd_text(rng)[:5_000])
        others = ("free", rng.choice(_VALUES)), ("banned", value), (odd_text(rng)[:50], value)
        path = ("path", value)
        kinds = [[("user", value)]] * 6 + [[path, ("verb", rng.choice(_VALUES))]] * 6 + [[path]]
        return rng.choice([*kinds, [("user", value), path], *([other] for other in others)])

    def _judge(self, payload: bytes, answer: Answer) -> None:
        if isinstance(answer, Failure):
            return self._judge_failure(payload, answer)
        try:
            response = RateLimitResponse.FromString(answer)
        except DecodeError:
            raise Found("an answer that is none") from None
        try:
            request = RateLimitRequest.FromString(payload)
        except DecodeError:
            return self._judge_silence(response, "unreadable")
        if request.domain == DOMAIN:
            return self._judge_silence(response, "ending")
        if request.descriptors and not response.statuses:  # only the store's absence leaves them out
            return self._tally.add(self.name, "undecided")
        try:
            self._judge_decision(request, response)
        except Found as found:
            raise Found(f"{found}: {request}"[:2_000]) from None

    def _judge_failure(self, payload: bytes, answer: Failure) -> None:
        """Only what asks nothing gets an error, or brings along a limit of a unit that is not offered."""
        request = RateLimitRequest.FromString(payload)
        is_question = bool(request.domain and request.descriptors)
        if answer.code != INVALID_ARGUMENT or (is_question and not _brings_nonsense(request)):
            raise Found(f"answered {answer}: {request}"[:2_000])
        self._tally.add(self.name, "nonsense" if is_question else "no question")

    def _judge_silence(self, response: RateLimitResponse, outcome: str) -> None:
        """Whoever tells an ending, or nothing, learns nothing and is kept from nothing."""
        if response != RateLimitResponse(overall_code=_OK):
            raise Found(f"{outcome}, and yet answered {response}")
        self._tally.add(self.name, outcome)

    def _judge_decision(self, request: RateLimitRequest, response: RateLimitResponse) -> None:
        mine = request.domain == "shop"
        kept = min(len(request.descriptors), MAX_DESCRIPTORS)
        if len(response.statuses) != kept:
            raise Found(f"{len(response.statuses)} statuses of {kept}")
        costs: Counter[Subject] = Counter()
        limits: dict[Subject, int] = {}
        due = not mine or len(request.descriptors) <= MAX_DESCRIPTORS
        for one in request.descriptors[:MAX_DESCRIPTORS] if mine else ():
            hits = _hits(one, request)
            subject, limit = _met(one)
            due &= limit is None or hits <= 0 or (limit > 0 and hits <= MAX_UNITS)
            if limit:
                costs[subject] += hits
                limits[subject] = min(limit, limits.get(subject, limit))
        if mine and any(one.limit.unit in _SHORT for one in request.descriptors):
            due = response.overall_code == _OK  # what it counts may have lapsed
        else:
            due &= all(cost <= 0 or self._used[one] + cost <= limits[one] for one, cost in costs.items())
        if (response.overall_code == _OK) != due or (mine and _brings_nonsense(request)):
            raise Found(f"answered {response.overall_code}, due was {due}; used {[self._used[one] for one in costs]}")
        for subject, cost in costs.items() if due else ():
            self._used[subject] = max(0, self._used[subject] + cost)
        for one, status in zip(request.descriptors, response.statuses, strict=False):
            self._judge_status(one, status, mine=mine)
        self._tally.add(self.name, "admitted" if due else "refused")

    def _judge_status(self, one: Any, status: Any, *, mine: bool) -> None:
        """What Envoy will put into its headers: the limit met and what is left of it."""
        _, limit = _met(one) if mine else ((), None)
        if status.current_limit.requests_per_unit != (limit or 0):
            raise Found(f"told of a limit of {status.current_limit.requests_per_unit}, due was {limit}")
        if limit and status.limit_remaining > limit:
            raise Found(f"{status.limit_remaining} are left of {limit}")


def _hits(one: Any, request: RateLimitRequest) -> int:
    hits: int = one.hits_addend.value if one.HasField("hits_addend") else request.hits_addend or 1
    return -hits if one.is_negative_hits else hits


def _brings_nonsense(request: RateLimitRequest) -> bool:
    return request.domain == "shop" and any(
        one.HasField("limit") and one.limit.unit not in _UNITS for one in request.descriptors
    )


def _met(one: Any) -> tuple[Subject, int | None]:
    """What a descriptor is held to: the limit that it brings along; in the file's budget where both are by the day."""
    entries = [(entry.key, entry.value) for entry in one.entries]
    subject, limit = _limit(entries)
    if not one.HasField("limit"):
        return subject, limit
    is_common = limit is not None and one.limit.unit == _DAY
    return subject if is_common else ("brought", str(one.limit.unit), repr(entries)), one.limit.requests_per_unit


def _limit(entries: Sequence[tuple[str, str]]) -> tuple[Subject, int | None]:
    """What a descriptor meets in the file above."""
    match entries:
        case [("user", value)]:
            return ("user", value), 50
        case [("banned", value)]:
            return ("banned", value), 0
        case [("path", value), ("verb", "post")]:
            return ("path", value), 20
    return (), None
