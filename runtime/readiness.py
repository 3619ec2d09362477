"""Whether a process can do its job, told to its operator: what is wrong, and what to do about it. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, or could be better."""

    code: str  # stable; docs/operations.md has a row for each: "store_away"
    problem: str  # what is wrong, with what is known of it
    advice: str  # what to do


@dataclass(frozen=True, slots=True)
class Ailment:
    """A kind of trouble. Each is a constant of its room's ``troubles.py``, so that a test finds them all."""

    code: str
    advice: str

    def found(self, problem: str) -> Trouble:
        """Tell that it is there, and what is known of it."""
        return Trouble(self.code, problem, self.advice)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a process. ``problems`` are why it is not ready, ``warnings`` what it can work with."""

    problems: tuple[Trouble, ...] = ()
    warnings: tuple[Trouble, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether nothing stops it."""
        return not self.problems

    def warned(self, more: Iterable[Trouble]) -> Readiness:
        """Return it with further warnings."""
        return replace(self, warnings=(*self.warnings, *more))

    def document(self) -> dict[str, Any]:
        """What ``/readyz`` answers."""
        return {
            "ready": self.ready,
            "problems": [asdict(trouble) for trouble in self.problems],
            "warnings": [asdict(trouble) for trouble in self.warnings],
            **self.facts,
        }
