"""What the process that follows a cluster's models says of it; other processes say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from admin.troubles import MIRROR_INCOMPLETE, MODELS_BEHIND, MODELS_GONE, MODELS_UNMATCHED
from runtime.readiness import Trouble

_NAMED: Final = 10


@dataclass(slots=True)
class Report:
    """What is wrong at the moment; written by the follower, read by ``/readyz``."""

    behind: str = ""  # why changes are not heard of, or not written
    unmatched: Sequence[str] = ()  # what is not taken over, and why
    gone: Sequence[str] = ()  # published models whose InferenceService is not there: "tenant-a/my-model"

    unmirrored: Sequence[str] = ()  # what of the publications is not shown in the cluster, and why

    def troubles(self) -> tuple[Trouble, ...]:
        """Tell what keeps the catalog from being as the cluster is; empty when nothing does."""
        return tuple(self._found())

    def tell_of_mirrors(self, faults: Sequence[str]) -> None:
        """Say what of the publications is not shown in the cluster."""
        self.unmirrored = faults

    def clear(self) -> None:
        """Know nothing: another process follows."""
        self.behind, self.unmatched, self.gone, self.unmirrored = "", (), (), ()

    def _found(self) -> Iterator[Trouble]:
        if self.behind:
            yield MODELS_BEHIND.found(f"changes of models do not reach the catalog: {self.behind}")
        if self.unmatched:
            yield MODELS_UNMATCHED.found(f"{len(self.unmatched)} are not taken over: {_some(self.unmatched, '; ')}")
        if self.gone:
            yield MODELS_GONE.found(f"{len(self.gone)} published models are gone: {_some(self.gone, ', ')}")
        if self.unmirrored:
            yield MIRROR_INCOMPLETE.found(f"not all publications are mirrored: {_some(self.unmirrored, '; ')}")


def _some(told: Sequence[str], between: str) -> str:
    return between.join(told[:_NAMED]) + (f"{between}…" if len(told) > _NAMED else "")
