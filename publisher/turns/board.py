"""What the publishing process says of every publication, so that every process can tell where each one stands.

Pure: JSON in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter

from catalog.status import State, Status


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version of a publication is not served."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Board:
    """Where publications stand, by uid."""

    live: Mapping[str, int] = field(default_factory=dict)  # the version that is served
    failed: Mapping[str, Failure] = field(default_factory=dict)
    trouble: str = ""  # why nothing can be brought into force at the moment
    waiting: str = ""  # what the publisher waits for at the moment

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands."""
        if self.live.get(uid, 0) >= version:
            return Status(State.LIVE)
        failure = self.failed.get(uid)
        if failure and failure.version >= version:
            return Status(State.FAILED, failure.reason)
        return Status(State.PENDING, self.trouble or self.waiting)

    def written(self) -> bytes:
        """The board as JSON."""
        return _CODEC.dump_json(self)


_CODEC: Final = TypeAdapter(Board)


def read_board(raw: bytes) -> Board:
    """Read a board; one that is not there or cannot be read tells nothing."""
    try:
        return _CODEC.validate_json(raw)
    except ValueError:
        return Board()
