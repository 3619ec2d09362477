"""What a publication's calls turn out to cost: small histograms in the store. The only caller of ``lua/learn.lua``.

Learnt from calls whose answers told their usage and were believed: prompt tokens per byte of the body, completion
tokens per token asked for, completion tokens of answers that nobody bounded, and completion tokens per byte of JSON,
per byte of a stream, per event of a stream and per second. Each is counted in bins an eighth of an octave wide, so a
95th percentile is at most 9 % too high, never too low. Only the policy ``adaptive`` reserves by them.
No caller teaches more than all others together, so what is learnt covers at least 90 of 100 calls of those others,
whatever one caller does; who is the only one teaches as it likes, and is outvoted as soon as others come.
"""

from __future__ import annotations

import collections
import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import redis.asyncio

from ratelimit.names import learned_key, taught_key
from ratelimit.tokens.costs import Cost, Ended, Ending
from ratelimit.tokens.estimates import Framing
from ratelimit.tokens.learned import Learned
from ratelimit.tokens.terms import Asked, Terms, Work
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
_CALLS: Final = "calls"
_LEARN: Final = importlib.resources.files("ratelimit.tokens").joinpath("lua/learn.lua").read_bytes()


class _Quantity(NamedTuple):
    """One thing that is learnt: how its bins are called in the store, and the powers of two between which they lie."""

    name: str
    top: int = 0  # 2**top is the most that is told apart
    octaves: int = 10

    @property
    def bins(self) -> int:
        """How many there are, but for the lowest, which is what is below."""
        return _BINS_AN_OCTAVE * self.octaves

    def field(self, value: float) -> str:
        """The bin whose upper edge is the first that is not below the value."""
        bins, number = self.bins, 0
        if value > 0:
            number = bins + math.ceil(round(_BINS_AN_OCTAVE * (math.log2(value) - self.top), 9))
        return f"{self.name}:{min(bins, max(0, number))}"

    def edge(self, number: int) -> float:
        """The upper edge of a bin."""
        return float(2 ** (self.top + (number - self.bins) / _BINS_AN_OCTAVE))


_QUANTITIES: Final = {
    "prompt_tokens_per_byte": _Quantity("prompt"),
    "completion_share": _Quantity("share"),
    "completion_tokens_per_byte": _Quantity("completion"),
    "unbounded_completion": _Quantity("unbounded", top=20, octaves=20),
    "tokens_per_event": _Quantity("event", top=6),
    "tokens_per_stream_byte": _Quantity("stream"),
    "tokens_per_second": _Quantity("second", top=12, octaves=12),
}
"""By the fields of what was learnt, which are also those of a sample."""


class Sample(NamedTuple):
    """One call's ratios; ``None`` where it says nothing about one. Its fields are those of ``Learned``."""

    prompt_tokens_per_byte: float | None = None
    completion_share: float | None = None
    completion_tokens_per_byte: float | None = None
    unbounded_completion: float | None = None
    tokens_per_event: float | None = None
    tokens_per_stream_byte: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What has been learnt, and from how many calls."""

    learned: Learned
    calls: int


def sample_of(terms: Terms, ended: Ended, cost: Cost) -> Sample | None:
    """What an ended call teaches; ``None`` where its answer did not tell, or cannot be believed."""
    asked = terms.asked
    if cost.ending is not Ending.USAGE or cost.clamped or ended.aborted or ended.prompt is None or asked.says_usage:
        return None
    per_byte = None if asked.media_parts else _ratio(ended.prompt, asked.prompt_bytes)
    if asked.work is not Work.GENERATES:
        return Sample(per_byte) if asked.work is Work.READS else None
    return _of_answer(per_byte, asked, ended, ended.completion or 0)


def _of_answer(prompt_per_byte: float | None, asked: Asked, ended: Ended, completion: int) -> Sample:
    is_stream = bool(ended.events) or (asked.framing is not Framing.JSON and ended.events is None)
    per_byte = _ratio(completion, ended.bytes_sent)
    return Sample(
        prompt_tokens_per_byte=prompt_per_byte,
        completion_share=_ratio(completion, (asked.max_tokens or 0) * asked.answers),
        completion_tokens_per_byte=None if is_stream else per_byte,
        unbounded_completion=_ratio(completion, asked.answers) if asked.max_tokens is None else None,
        tokens_per_event=_ratio(completion, ended.events or 0),
        tokens_per_stream_byte=per_byte if is_stream else None,
        tokens_per_second=_ratio(1_000 * completion, ended.duration_ms or 0),
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
    learned = {name: _percentile(counts, quantity) for name, quantity in _QUANTITIES.items()}
    return Lessons(Learned(**learned), counts.get(_CALLS, 0))


def _ratio(part: int, of: int) -> float | None:
    return part / of if of > 0 else None


def _fields(sample: Sample) -> Iterable[str]:
    given = ((quantity, getattr(sample, name)) for name, quantity in _QUANTITIES.items())
    return (quantity.field(value) for quantity, value in given if value is not None)


def _percentile(counts: Mapping[str, int], quantity: _Quantity) -> float | None:
    bins = [(number, counts.get(f"{quantity.name}:{number}", 0)) for number in range(quantity.bins + 1)]
    total = sum(calls for _, calls in bins)
    if total < LEAST_CALLS:
        return None
    seen = 0
    for number, calls in bins:
        seen += calls
        if seen >= QUANTILE * total:
            return quantity.edge(number)
    return quantity.edge(quantity.bins)
