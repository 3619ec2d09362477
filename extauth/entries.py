"""Records made ready for deciding: each with the subject that is counted for it. Pure.

Entries are made once, when a record enters the cache, so that the hot path builds nothing that outlives a call.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from catalog.records import (
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelType,
    PublicationRecord,
    Record,
    Reservation,
    TenantRecord,
    TokenPolicy,
    ref,
)
from ratelimit.budgets import Budget, Subject, Window
from ratelimit.levels import Level, subject_name
from ratelimit.tokens import MissingUsage, Policy
from runtime.addresses import site_of

SETTLING_MS: Final = 2_000
"""The proxy cuts a call off when its reservation's time is over; so long it then has to tell the end of it."""
MAX_ADDRESSES: Final = 10_000
"""Subjects of addresses kept ready for one publication; beyond it they are made anew."""
WINDOW_NAMES: Final = {
    Window.SECOND: "burst",
    Window.MINUTE: "minute",
    Window.HOUR: "hour",
    Window.TOKENS_HOUR: "tokens",
}


def subject_of(level: Level, record_id: str, limits: Limits) -> Subject:
    """Name what is counted and with which budgets: ``p:0a1…`` at most 10 a second, 100 a minute, 5,000 an hour."""
    given = (
        (Window.SECOND, limits.burst),
        (Window.MINUTE, limits.per_minute),
        (Window.HOUR, limits.per_hour),
        (Window.TOKENS_HOUR, limits.tokens_per_hour),
    )
    budgets = tuple(Budget(window, limit) for window, limit in given if limit is not None)
    return Subject(subject_name(level, record_id), budgets)


def policy_of(tokens: TokenPolicy) -> Policy:
    """How a publication's record wants its calls' tokens held back, in the ledger's words."""
    return Policy(
        context_tokens=tokens.context_tokens,
        adaptive=tokens.reservation is Reservation.ADAPTIVE,
        missing_usage=MissingUsage(tokens.missing_usage.value),
        timeout_ms=tokens.reservation_timeout_s * 1000 + SETTLING_MS,
    )


def limits_held(record: PublicationRecord) -> Limits:
    """The limits that its calls are held to: only openai's tell their tokens."""
    return record.limits if record.type is ModelType.OPENAI else replace(record.limits, tokens_per_hour=None)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class KeyEntry:
    """A key, ready."""

    record: KeyRecord
    subject: Subject
    ref: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TenantEntry:
    """A caller's tenant, ready."""

    record: TenantRecord
    subject: Subject
    ref: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PublicationEntry:
    """A publication, ready."""

    record: PublicationRecord
    subject: Subject
    ref: str
    policy: Policy  # how the tokens of its calls are held back
    _addresses: dict[str, Subject] = field(default_factory=dict, repr=False)

    def address_subject(self, address: str) -> Subject:
        """Name what is counted of callers without a key from one site: ``a:<uid>:192.0.2.1``."""
        subject = self._addresses.get(address)
        if subject is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                self._addresses.clear()
            limits = Limits(per_minute=self.record.anonymous_per_minute)
            name = f"{self.record.uid}:{site_of(address)}"
            subject = self._addresses[address] = subject_of(Level.ADDRESS, name, limits)
        return subject


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class HostEntry:
    """A host's table of models, ready."""

    record: HostRecord
    ref: str


Entry = KeyEntry | TenantEntry | PublicationEntry | HostEntry


def entry_of(record: Record) -> Entry | None:
    """Make a record ready; ``None`` for kinds that no decision reads."""
    match record:
        case KeyRecord():
            return KeyEntry(record, subject_of(Level.KEY, record.id, record.limits), ref(Kind.KEY, record.id))
        case TenantRecord():
            subject = subject_of(Level.TENANT, record.id, record.limits)
            return TenantEntry(record, subject, ref(Kind.TENANT, record.id))
        case PublicationRecord():
            subject = subject_of(Level.PUBLICATION, record.uid, limits_held(record))
            return PublicationEntry(record, subject, ref(Kind.PUBLICATION, record.uid), policy_of(record.tokens))
        case HostRecord():
            return HostEntry(record, ref(Kind.HOST, record.id))
        case _:
            return None
