"""The state of a batch while it is worked on: what is asked for whom, and what was said so far. Pure values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import structs

from catalog.keys.secrets import Secrets
from extauth.decide import Refusal
from extauth.lanes.lane import Lane
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.records.gathering import Question
from extauth.request.call import Asking
from extauth.stores import Stores
from extauth.verdict import Verdict
from ratelimit.windows.budgets import Draw


class Asked(NamedTuple):
    """What the limiter is asked for one call."""

    at: int  # index of the call in its batch
    of: Lane | Telling | Refusal  # a refusal that is to be counted
    draw: Draw


class Batch:
    """One batch."""

    __slots__ = (
        "asks_lists",
        "behind",
        "calls",
        "deadline_ms",
        "era",
        "names",
        "question",
        "secrets",
        "stores",
        "verdicts",
    )

    def __init__(self, calls: Sequence[Asking], stores: Stores, deadline_ms: float, secrets: Secrets, era: int) -> None:
        self.calls = list(calls)  # one that was read takes the place of the one before
        self.names: list[bytes] = [b""] * len(calls)  # of their lanes
        self.question = Question()  # of those that have none
        self.stores = stores
        self.deadline_ms = deadline_ms
        self.secrets = secrets
        self.era = era  # of the lanes, when the secrets were read
        self.verdicts: list[Verdict | None] = [None] * len(calls)
        self.behind: set[int] = set()  # cells far ahead of what was decided on

        self.asks_lists = False  # of a host's models, of which nothing is read before they are admitted

    def open_calls(self) -> list[int]:
        """Indexes of the calls that have no verdict yet."""
        return [index for index, verdict in enumerate(self.verdicts) if verdict is None]

    def told(self) -> list[tuple[int, Telling]]:
        """The questions about models that were admitted."""
        verdicts = [(index, verdict) for index, verdict in enumerate(self.verdicts) if verdict]
        return [
            (index, one.asked)
            for index, one in verdicts
            if one.reason is Reason.MODELS_TOLD and isinstance(one.asked, Telling)
        ]

    def lists(self) -> list[int]:
        """Indexes of those that wait for a host's models."""
        return [index for index, told in self.told() if told.host]

    def answer_list(self, index: int, told: Telling) -> None:
        """Give an admitted question the models that it asked for."""
        verdict = self.verdicts[index]
        if verdict is not None:
            self.verdicts[index] = structs.replace(verdict, asked=told)

    def close(self, indexes: Iterable[int], reason: Reason) -> None:
        """Give the same verdict to several calls."""
        for index in indexes:
            self.verdicts[index] = Verdict(reason)


@dataclass(slots=True)
class Decided:
    """What the open calls come to on records of one epoch; nothing of it stands before that epoch is proved."""

    epoch: str
    by_cell: dict[int, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    refusals: dict[int, Verdict] = field(default_factory=dict)
    denied: int = 0  # so many of the refusals are the deny cache's
