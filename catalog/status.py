"""Where a publication stands on its way into the proxy. Shared by the publisher, who knows, and the API, who shows."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """Stages of a publication."""

    PENDING = "pending"
    LIVE = "live"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """A publication's stage and, where it is not live, why."""

    state: State
    reason: str = ""
