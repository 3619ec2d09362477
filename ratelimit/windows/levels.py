"""Whose budget is whose: the levels of subjects, and the names that say them. Pure."""

from __future__ import annotations

import enum
from typing import Final

from ratelimit.windows.budgets import BudgetState


class Level(enum.StrEnum):
    """Whose budget a call is held to."""

    KEY = "key"
    TENANT = "tenant"
    PUBLICATION = "publication"
    ADDRESS = "address"  # of a caller without a key
    MODEL_LIST = "model-list"  # questions about models, of a key or an address
    ERRORS = "errors"  # a key's calls that are refused for their own faults


_PREFIX: Final = {
    Level.KEY: "k:",
    Level.TENANT: "t:",
    Level.PUBLICATION: "p:",
    Level.ADDRESS: "a:",
    Level.MODEL_LIST: "m:",
    Level.ERRORS: "e:",
}
LEVEL_OF_PREFIX: Final = {prefix: level for level, prefix in _PREFIX.items()}


def subject_name(level: Level, record_id: str) -> str:
    """Name what is counted of a record: ``p:0a1…``."""
    return _PREFIX[level] + record_id


def level_of(state: BudgetState) -> Level:
    """Whose budget a state describes."""
    return LEVEL_OF_PREFIX[state.subject.name[:2]]
