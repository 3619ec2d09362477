"""What may be in force after acts of which some were answered and some were not. Pure.

One operator does one act at a time to one tenant with one model, so his belief is exact: the states that are possible.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class State:
    """A tenant with one model. Texts are key texts, or the name of an act whose new text nobody was told."""

    limit: int | None = None  # calls a minute, another one at each change; None: not published
    current: str = ""  # the key's text
    previous: str = ""  # the one before, while its grace lasts
    disabled: bool = False  # the tenant
    further: frozenset[str] = frozenset()  # of other keys made for the publication
    orphans: frozenset[str] = frozenset()  # of keys whose publication is gone; a new one does not revive them

    @property
    def admitted(self) -> frozenset[str]:
        """Texts with which a call is admitted."""
        if self.limit is None or self.disabled:
            return frozenset()
        return self.further | {self.current, self.previous} - {""}


Change = Callable[[State], State]


def publish(limit: int, text: str) -> Change:
    """Publish with a new key."""
    return lambda state: dataclasses.replace(state, limit=limit, current=text, previous="")


def update(limit: int) -> Change:
    """Change the publication's limit."""
    return lambda state: dataclasses.replace(state, limit=limit)


def rotate(text: str, *, grace: bool) -> Change:
    """Give the key a new text; the old one dies now, or later than the test lasts."""
    return lambda state: dataclasses.replace(state, current=text, previous=state.current if grace else "")


def unpublish(state: State) -> State:
    """Take the model back; its key dies, and the others call nothing any more."""
    return State(disabled=state.disabled, orphans=state.orphans | state.further)


def mint(text: str) -> Change:
    """Make another key for the publication."""
    return lambda state: dataclasses.replace(state, further=state.further | {text})


def revoke(text: str) -> Change:
    """Delete one of the other keys."""
    return lambda state: dataclasses.replace(state, further=state.further - {text}, orphans=state.orphans - {text})


def disable(*, disabled: bool) -> Change:
    """Disable the tenant, or enable it again."""
    return lambda state: dataclasses.replace(state, disabled=disabled)


@dataclass(frozen=True, slots=True)
class Belief:
    """The states of which one is in force."""

    possible: frozenset[State] = frozenset({State()})

    def asked(self, change: Change) -> Belief:
        """The change was sent: it may be in force or not."""
        return Belief(self.possible | self.done(change).possible)

    def done(self, change: Change) -> Belief:
        """The change is in force."""
        return Belief(frozenset(change(state) for state in self.possible))

    @property
    def only(self) -> State:
        """The one state, where nothing is in doubt."""
        (state,) = self.possible
        return state

    def refuses(self, text: str) -> bool:
        """Whether the text is surely refused."""
        return all(text not in state.admitted for state in self.possible)

    def admits(self, text: str) -> bool:
        """Whether the text is surely admitted."""
        return all(text in state.admitted for state in self.possible)
