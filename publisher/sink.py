"""What brings a plan into force: the protocol of every sink, and the two ways in which one can fail.

Knows no gateway. A sink does its own I/O and has one owner, the publisher, which never calls it twice at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from publisher.plan import Plan


class Refused(Exception):  # noqa: N818  an outcome, not a fault
    """The gateway did not accept a plan; what it accepted last is in force."""


class NotServed(Exception):  # noqa: N818
    """The gateway cannot be reached, has not answered in time, or what it reads cannot be written: try again."""


class Sink(Protocol):
    """Brings plans into force."""

    most: int
    """How many publications its gateway takes: beyond it a change takes too long, and no more are published."""

    rewrites: bool
    """Whether its gateway writes the name that a server knows into bodies that say another."""

    speaks_grpc: bool
    """Whether its gateway serves models by gRPC."""

    injects_values: bool
    """Whether its gateway gives servers a header whose value was sent to the API."""

    injects_secrets: bool
    """Whether its gateway gives servers a header whose value a Secret has."""

    @property
    def waiting(self) -> str:
        """What ``apply`` waits for at this moment, for those who ask meanwhile; "" where there is nothing to tell."""
        ...

    async def served(self) -> frozenset[str]:
        """The uids of the publications that are in force, whoever brought them there; raises ``NotServed``."""
        ...

    async def apply(self, wanted: Plan) -> Mapping[str, str]:
        """Bring a plan into force; tells by uid why one is not live although it is in force, to be tried again.

        Raises ``Refused`` (the plan before stays) or ``NotServed`` (try again). A plan that is in force is cheap.
        """
        ...

    async def follow(self, moved: Callable[[], None]) -> None:
        """Call ``moved`` when what is in force is not what was applied any more; runs until it is cancelled."""
        ...
