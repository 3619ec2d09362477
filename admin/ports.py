"""What the API asks of the rooms beside it. The wiring of the process gives the parts that do it."""

from __future__ import annotations

from typing import Protocol

from catalog.status import State, Status


class Publisher(Protocol):
    """Brings publications into the proxy and knows how far each one is."""

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands."""
        ...

    def poke(self) -> None:
        """Say that something changed; returns at once."""
        ...


class NoPublisher:
    """Stands in where this process publishes nothing."""

    def status(self, uid: str, version: int) -> Status:
        """Nothing is known here."""
        del uid, version
        return Status(State.PENDING, "this process publishes nothing (--publish-to is not set)")

    def poke(self) -> None:
        """Nobody waits for it."""
