"""What the fuzzer says when something is wrong, and what it counts while nothing is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class Found(AssertionError):  # noqa: N818  a find, not a fault of the fuzzer
    """An input that the product must not treat as it does."""


@dataclass(slots=True)
class Tally:
    """Inputs and what became of them, by target."""

    inputs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, target: str, outcome: str, count: int = 1) -> None:
        """Count inputs of a target that came out alike."""
        self.inputs[target] += count
        self.outcomes[f"{target} {outcome}"] += count

    @property
    def total(self) -> int:
        """All inputs."""
        return self.inputs.total()
