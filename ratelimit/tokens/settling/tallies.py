"""What the ended calls of one batch and publication add up to, before it goes to the instruments. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from ratelimit.tokens.costs import Cost, Ended
from ratelimit.tokens.ledger import Outcome


@dataclass(slots=True)
class Tally:
    """Sums over calls of one publication. All but ``outcomes`` are of those that were settled."""

    outcomes: dict[tuple[str, str], int] = field(default_factory=dict)  # calls by row of the endings table and outcome
    calls: int = 0
    tokens: int = 0
    clamped: int = 0  # calls
    above: int = 0  # calls that cost more than they held
    tokens_above: int = 0
    statuses: dict[str, int] = field(default_factory=dict)  # calls by class: "2xx", "none"
    parts: dict[str, int] = field(default_factory=dict)  # tokens told, by part of the usage; those above 0
    durations_ms: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, endings: Sequence[tuple[Ended, Cost, Outcome]]) -> Self:
        """Add calls up."""
        made = cls()
        for ended, cost, outcome in endings:
            row = (cost.ending, outcome)
            made.outcomes[row] = made.outcomes.get(row, 0) + 1
            if outcome is Outcome.SETTLED or outcome is Outcome.REPLACED:
                made._add(ended, cost)
        return made

    def _add(self, ended: Ended, cost: Cost) -> None:
        self.calls += 1
        self.tokens += cost.tokens
        self.clamped += cost.clamped
        if cost.above:
            self.above += 1
            self.tokens_above += cost.above
        status = _STATUSES[ended.status // 100]
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if ended.duration_ms is not None:
            self.durations_ms.append(ended.duration_ms)
        if ended.prompt:
            self._add_part("prompt", ended.prompt)
        if ended.completion:
            self._add_part("completion", ended.completion)
        if ended.cached:
            self._add_part("cached", ended.cached)
        if ended.cache_written:
            self._add_part("cache_written", ended.cache_written)
        if ended.reasoning:
            self._add_part("reasoning", ended.reasoning)

    def _add_part(self, part: str, tokens: int) -> None:
        self.parts[part] = self.parts.get(part, 0) + tokens


_STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
