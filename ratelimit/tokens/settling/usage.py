"""What settlements add to usage, told to whoever counts that. Knows nothing of how it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from ratelimit.tokens.ledger import DONE, Settled, Settlement, Subjects


class Usage(Protocol):
    """Counts (``ratelimit.usage.book.UsageBook``). ``now_ms`` is the store's clock, as everywhere here."""

    def charged(self, subjects: Subjects, tokens: int, now_ms: int) -> None:
        """Count tokens of these subjects; below 0 where what was presumed was too much."""
        ...

    def told(self, publication: str, now_ms: int, above: int, usage: bool | None) -> None:  # noqa: FBT001  three answers
        """Note that the end of a call was told."""
        ...

    def presumed(self, publication: str, admitted_ms: float) -> None:
        """Note that nobody told in time how a call ended."""
        ...


def note_usage(usage: Usage, settlements: Sequence[Settlement], settled: Settled) -> None:
    """Note what a run did: tokens added up by subjects, and once in a row that a publication's calls tell."""
    now_ms, tokens, told, last = settled.now_ms, defaultdict[Subjects, int](int), iter(settled.used), None
    for one, outcome in zip(settlements, settled.outcomes, strict=False):
        if outcome not in DONE:
            continue
        subjects, used = next(told)
        tokens[subjects] += used
        if not one.is_told or not subjects:
            continue
        say = (subjects[-1], one.above, one.usage)
        if say != last or one.above or one.usage is False:
            usage.told(subjects[-1], now_ms, one.above, one.usage)
            last = say
    for subjects, used, admitted_ms in settled.used_presumed:
        tokens[subjects] += used
        if subjects:
            usage.presumed(subjects[-1], admitted_ms)
    for subjects, used in tokens.items():
        usage.charged(subjects, used, now_ms)
