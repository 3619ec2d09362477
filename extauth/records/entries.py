"""Records made ready for deciding: each with the budgets that are counted for it. Pure.

Entries are made once, when a record enters the cache. A gate keeps 200,000, so an entry is small, shares what it can
with others, and is nothing that the garbage collector looks at (``gc=False``: it holds plain values only). What is
counted for an entry is made when a call asks for it, and kept ready for those that were asked for lately.
"""

from __future__ import annotations

import functools
from typing import Final, TypeVar

import msgspec
from msgspec import structs

from catalog.records import (
    Credential,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelType,
    PublicationRecord,
    Record,
    Reservation,
    RouteRecord,
    ServerRecord,
    TenantRecord,
    TokenPolicy,
    ref,
)
from ratelimit.tokens.terms import MissingUsage, Policy
from ratelimit.windows.budgets import Budget, Subject, Window, plan_of
from ratelimit.windows.levels import Level, subject_name
from runtime.addresses import site_of

SETTLING_MS: Final = 2_000
"""The proxy cuts a call off when its reservation's time is over; so long it then has to tell the end of it."""
MAX_ADDRESSES: Final = 10_000
"""Sites of callers without a key kept ready, of all publications together, some 500 bytes each (names are bounded)."""
MAX_READY: Final = 20_000
"""Subjects of records kept ready, some 300 bytes each; those not used for the longest time are made again at need."""
MAX_SHARED: Final = 10_000
"""Values of each sort that are held once for all the records that have them."""
WINDOW_NAMES: Final = {
    Window.SECOND: "burst",
    Window.MINUTE: "minute",
    Window.HOUR: "hour",
    Window.TOKENS_HOUR: "tokens",
}


def subject_of(level: Level, record_id: str, limits: Limits) -> Subject:
    """Name what is counted and with which budgets: ``p:0a1…`` at most 10 a second, 100 a minute, 5,000 an hour."""
    budgets, plan = _budgets_of(limits)
    return Subject(subject_name(level, record_id), budgets, plan=plan)


@functools.lru_cache(maxsize=MAX_SHARED)
def _budgets_of(limits: Limits) -> tuple[tuple[Budget, ...], bytes]:
    """Return the budgets that the limits come to, and how the script reads them; records of equal limits share both."""
    given = (
        (Window.SECOND, limits.burst),
        (Window.MINUTE, limits.per_minute),
        (Window.HOUR, limits.per_hour),
        (Window.TOKENS_HOUR, limits.tokens_per_hour),
    )
    budgets = tuple(Budget(window, limit) for window, limit in given if limit is not None)
    return budgets, plan_of(budgets)


_LEAST_BYTES: Final = 1.0
"""Of a token, whoever wrote the record: estimates divide by it."""


@functools.lru_cache(maxsize=MAX_SHARED)
def policy_of(tokens: TokenPolicy) -> Policy:
    """How a publication's record wants its calls' tokens held back, in the ledger's words."""
    of_streams = tokens.stream_bytes_per_token
    return Policy(
        context_tokens=tokens.context_tokens,
        adaptive=tokens.reservation is Reservation.ADAPTIVE,
        missing_usage=MissingUsage(tokens.missing_usage.value),
        timeout_ms=tokens.reservation_timeout_s * 1000 + SETTLING_MS,
        default_completion_tokens=tokens.default_completion_tokens,
        clamp_usage=tokens.clamp_usage,
        media_tokens=tokens.media_part_tokens,
        bytes_per_token=max(_LEAST_BYTES, tokens.bytes_per_token),
        stream_bytes_per_token=None if of_streams is None else max(_LEAST_BYTES, of_streams),
    )


def limits_held(record: PublicationRecord) -> Limits:
    """The limits that its calls are held to: only openai's tell their tokens."""
    return record.limits if record.type is ModelType.OPENAI else structs.replace(record.limits, tokens_per_hour=None)


class _Counted(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A record that is counted, with the budgets that its limits come to."""

    ref: str
    budgets: tuple[Budget, ...]
    plan: bytes  # the same as the script reads them

    @property
    def id(self) -> str:
        """The record's id."""
        return self.ref.partition(":")[2]

    @property
    def subject(self) -> Subject:
        """What is counted for it; the same object for as long as it is in use."""
        return _ready_subject(self)


class KeyEntry(_Counted, frozen=True, eq=False, gc=False):
    """What decides on a key, and nothing else of its record: there are more of these than of anything."""

    tenant: str
    publications_text: str  # a tuple of each key's own would be walked until the collector has seen it once
    current: Credential
    previous: Credential | None
    expires_at_ms: int | None
    disabled: bool

    @property
    def publications(self) -> tuple[str, ...]:
        """The uids of the publications that the key may call."""
        return tuple(self.publications_text.split())


class TenantEntry(_Counted, frozen=True, eq=False, gc=False):
    """A tenant, ready."""

    record: TenantRecord


class PublicationEntry(_Counted, frozen=True, eq=False, gc=False):
    """A publication, ready."""

    record: PublicationRecord
    policy: Policy  # how the tokens of its calls are held back
    owner_ref: str  # names the record of the tenant whose it is

    @property
    def refs(self) -> tuple[str, str]:
        """The records that say whether it serves anybody: its own and its owner's."""
        return self.ref, self.owner_ref

    def address_subject(self, address: str) -> Subject:
        """Name what is counted of callers without a key from one site: ``a:<uid>:192.0.2.1``."""
        return _address_subject(self.record.uid, _site_of(address), self.record.anonymous_per_minute)


class HostEntry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A host, with its table of models where it has one, ready."""

    record: HostRecord
    ref: str


class RouteEntry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a model's name leads to on a host without a table, ready."""

    ref: str
    publication: str  # uid


class ServerEntry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Who may reach a model server, ready: it may have thousands of publications."""

    record: ServerRecord
    ref: str
    sole_tenant: str

    def is_alone(self, publication: PublicationRecord) -> bool:
        """As the record says, without looking through it."""
        return self.record.is_alone(publication, self.sole_tenant)


Entry = KeyEntry | TenantEntry | PublicationEntry | HostEntry | ServerEntry | RouteEntry


def entry_of(record: Record) -> Entry | None:
    """Make a record ready; ``None`` for kinds that no decision reads.

    Raises ``ValueError`` for a limit out of range.
    """
    match record:
        case KeyRecord():
            return _key_entry(record)
        case TenantRecord():
            return TenantEntry(ref(Kind.TENANT, record.id), *_budgets_of(record.limits), record)
        case PublicationRecord():
            return _publication_entry(record)
        case HostRecord() | RouteRecord() | ServerRecord():
            return _uncounted(record)
        case _:
            return None


def _uncounted(record: HostRecord | RouteRecord | ServerRecord) -> Entry:
    match record:
        case HostRecord():
            return HostEntry(record, ref(Kind.HOST, record.id))
        case RouteRecord():
            return RouteEntry(ref(Kind.ROUTE, record.id), record.publication)
        case ServerRecord():
            return ServerEntry(record, ref(Kind.SERVER, record.id), record.sole_tenant)


def _key_entry(record: KeyRecord) -> KeyEntry:
    """Keep what decides; keys of one tenant and of the same publications share the names of them."""
    return KeyEntry(
        ref(Kind.KEY, record.id),
        *_budgets_of(record.limits),
        _shared(record.tenant),
        _shared(" ".join(record.publications)),
        _slim(record.current),
        _slim(record.previous) if record.previous else None,
        record.expires_at_ms,
        record.disabled,
    )


def _publication_entry(record: PublicationRecord) -> PublicationEntry:
    held = structs.replace(record, allowed_tenants=_shared(record.allowed_tenants))
    budgets, plan = _budgets_of(limits_held(record))
    own, owner = ref(Kind.PUBLICATION, record.uid), _shared(ref(Kind.TENANT, record.tenant))
    return PublicationEntry(own, budgets, plan, held, policy_of(record.tokens), owner)


def _slim(credential: Credential) -> Credential:
    return structs.replace(credential, peppers=_shared(credential.peppers))


_T = TypeVar("_T", str, tuple[str, ...], tuple[int, ...])


@functools.lru_cache(maxsize=MAX_SHARED)
def _shared(value: _T) -> _T:
    """Return the equal value that came first, so that many records hold one."""
    return value


@functools.lru_cache(maxsize=MAX_READY)
def _ready_subject(entry: _Counted) -> Subject:
    kind, _, record_id = entry.ref.partition(":")
    return Subject(subject_name(_LEVEL_OF_KIND[kind], record_id), entry.budgets, plan=entry.plan)


_LEVEL_OF_KIND: Final = {"key": Level.KEY, "tenant": Level.TENANT, "pub": Level.PUBLICATION}


@functools.lru_cache(maxsize=MAX_ADDRESSES)
def _address_subject(uid: str, site: str, per_minute: int) -> Subject:
    return subject_of(Level.ADDRESS, f"{uid}:{site}", Limits(per_minute=per_minute))


_site_of = functools.lru_cache(maxsize=MAX_ADDRESSES)(site_of)
