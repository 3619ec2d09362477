"""What a publication's calls turn out to cost: small histograms in the store. The only caller of ``lua/learn.lua``.

Three ratios are learnt from calls whose answers told their usage and were believed: prompt tokens per byte of the body,
completion tokens per token asked for, completion tokens per byte of the answer. Each is counted in bins an eighth of an
octave wide, so a 95th percentile is at most 9 % too high, never too low. Only the policy ``adaptive`` reserves by them.
No caller teaches more than all others together, so what is learnt covers at least 90 of 100 calls of those others,
whatever one caller does; who is the only one teaches as it likes, and is outvoted as soon as others come.
"""

from __future__ import annotations

import collections
import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio

from ratelimit.names import learned_key, taught_key
from ratelimit.tokens.costs import Cost, Ended, Ending, Learned, Terms
from ratelimit.windows.limiter import Execute

LEAST_CALLS: Final = 200
"""Nothing is said before so many calls have told."""
MOST_CALLERS: Final = 500
"""Callers told apart in what one subject's calls taught; all others are taken for one."""
MOST_CALLS: Final = 5_000
"""Calls remembered; then all counts are halved, so that the old ones fade."""
TTL_S: Final = 90 * 24 * 3600
QUANTILE: Final = 0.95

_BINS_AN_OCTAVE: Final = 8
_OCTAVES: Final = 10
_BINS: Final = _BINS_AN_OCTAVE * _OCTAVES  # ratios from 2**-10 to 1
_CALLS: Final = "calls"
_PROMPT, _SHARE, _COMPLETION = "prompt", "share", "completion"
_LEARN: Final = importlib.resources.files("ratelimit.tokens").joinpath("lua/learn.lua").read_bytes()


@dataclass(frozen=True, slots=True)
class Sample:
    """One call's ratios; ``None`` where it says nothing about one."""

    prompt_tokens_per_byte: float | None
    completion_share: float | None
    completion_tokens_per_byte: float | None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What has been learnt, and from how many calls."""

    learned: Learned
    calls: int


def sample_of(terms: Terms, ended: Ended, cost: Cost) -> Sample | None:
    """What an ended call teaches; ``None`` where its answer did not tell, or cannot be believed."""
    if cost.ending is not Ending.USAGE or cost.clamped or ended.aborted or ended.prompt is None:
        return None
    asked, completion = terms.asked, ended.completion or 0
    bound = (asked.max_tokens or 0) * asked.choices
    return Sample(
        _ratio(ended.prompt, asked.prompt_bytes),
        _ratio(completion, bound),
        _ratio(completion, ended.bytes_sent),
    )


def learn(
    execute: Execute, cell: str, subject: str, taught: Mapping[str, Sequence[Sample]], *, day: int | None = None
) -> Lessons:
    """Add each caller's samples to a subject's histograms, and tell what they say now; raises what ``execute`` raises.

    ``day``: a number, for tests; None is the store's own.
    """
    parts = [part for caller, samples in taught.items() for part in _told_by(caller, samples)]
    numbers = (MOST_CALLS, TTL_S, LEAST_CALLS, MOST_CALLERS, "" if day is None else day)
    reply = execute("EVAL", _LEARN, 2, learned_key(cell, subject), taught_key(cell, subject), *numbers, *parts)
    return read_lessons(dict(zip(reply[::2], reply[1::2], strict=True)))


def _told_by(caller: str, samples: Sequence[Sample]) -> list[str | int]:
    counted = collections.Counter(field for sample in samples for field in _fields(sample))
    return [caller, len(samples), len(counted), *(part for pair in counted.items() for part in pair)]


async def read_learned(client: redis.asyncio.Redis, cell: str, subject: str) -> Lessons:
    """Read what a subject's calls taught; raises what the client raises."""
    counted: dict[bytes, bytes] = await client.hgetall(learned_key(cell, subject))  # type: ignore[assignment]
    return read_lessons(counted)


def read_lessons(counted: Mapping[bytes, Any]) -> Lessons:
    """Say what histograms tell."""
    counts = {field.decode(): int(calls) for field, calls in counted.items()}
    percentiles = [_percentile(counts, quantity) for quantity in (_PROMPT, _SHARE, _COMPLETION)]
    return Lessons(Learned(*percentiles), counts.get(_CALLS, 0))


def _ratio(part: int, of: int) -> float | None:
    return part / of if of > 0 else None


def _fields(sample: Sample) -> Iterable[str]:
    given = (
        (_PROMPT, sample.prompt_tokens_per_byte),
        (_SHARE, sample.completion_share),
        (_COMPLETION, sample.completion_tokens_per_byte),
    )
    return (f"{quantity}:{_bin(ratio)}" for quantity, ratio in given if ratio is not None)


def _bin(ratio: float) -> int:
    """The bin whose upper edge is the first that is not below the ratio."""
    if ratio <= 0:
        return 0
    return min(_BINS, max(0, _BINS + math.ceil(round(_BINS_AN_OCTAVE * math.log2(ratio), 9))))


def _edge(number: int) -> float:
    return float(2 ** ((number - _BINS) / _BINS_AN_OCTAVE))


def _percentile(counts: Mapping[str, int], quantity: str) -> float | None:
    bins = [(number, counts.get(f"{quantity}:{number}", 0)) for number in range(_BINS + 1)]
    total = sum(calls for _, calls in bins)
    if total < LEAST_CALLS:
        return None
    seen = 0
    for number, calls in bins:
        seen += calls
        if seen >= QUANTILE * total:
            return _edge(number)
    return 1.0
