"""What the API asks of the rooms beside it. The wiring of the process gives the parts that do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from admin.troubles import NOT_PUBLISHING
from catalog.status import State, Status
from runtime.readiness import Trouble


class Publisher(Protocol):
    """Brings publications into the proxy and knows how far each one is."""

    @property
    def most(self) -> int | None:
        """How many publications the proxy takes; ``None`` where no bound is known."""
        ...

    @property
    def rewrites(self) -> bool:
        """Whether the proxy can tell a server its own name of a model where callers say another."""
        ...

    @property
    def speaks_grpc(self) -> bool:
        """Whether the proxy serves models by gRPC."""
        ...

    @property
    def injects_values(self) -> bool:
        """Whether the proxy can give servers a header whose value was sent here."""
        ...

    @property
    def injects_secrets(self) -> bool:
        """Whether the proxy can give servers a header whose value a Secret has."""
        ...

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands."""
        ...

    def poke(self) -> None:
        """Say that something changed; returns at once."""
        ...

    def troubles(self) -> Sequence[Trouble]:
        """Tell what keeps publications from coming into force; empty when nothing does."""
        ...


class NoPublisher:
    """Stands in where this process publishes nothing."""

    most = None
    rewrites = True  # whoever publishes may; nobody here knows
    speaks_grpc = True
    injects_values = True
    injects_secrets = True

    def status(self, uid: str, version: int) -> Status:
        """Nothing is known here."""
        del uid, version
        return Status(State.PENDING, "this process publishes nothing (--publish-to is not set)")

    def poke(self) -> None:
        """Nobody waits for it."""

    def troubles(self) -> Sequence[Trouble]:
        """Publications stay where they are."""
        return (NOT_PUBLISHING.found("this process publishes nothing (--publish-to is not set)"),)
