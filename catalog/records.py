"""The records of the catalog: tenants, models, publications, keys, users and the hosts' model tables.

Owns what each record holds and how it is written as JSON. Pure: knows no store and no clock. Records hold plain values
and one another but never themselves, so the garbage collector does not look at them (``gc=False``): a gate keeps
hundreds of thousands.
Times are milliseconds since the epoch by the store's clock (``_ms``); ``None`` in a limit means unlimited.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

MAX_LIMIT: Final = 10**9
"""Largest limit of any budget, in calls or tokens."""


class ModelType(enum.StrEnum):
    """How a model is spoken to."""

    TRADITIONAL = "traditional"
    OPENAI = "openai"


class Protocol(enum.StrEnum):
    """What the model's server was found to speak; it decides how paths are rewritten."""

    KSERVE_V1 = "kserve-v1"
    KSERVE_V2 = "kserve-v2"
    OPENAI = "openai"
    HTTP = "http"


class Source(enum.StrEnum):
    """Who says what a model is."""

    REGISTERED = "registered"  # somebody did, by the API; its server is asked whether it is ready
    KUBERNETES = "kubernetes"  # its InferenceService does, and whether it is ready


class Kind(enum.StrEnum):
    """The kinds of records; a record's reference is ``kind:id``."""

    TENANT = "tenant"
    MODEL = "model"
    PUBLICATION = "pub"
    KEY = "key"
    HOST = "host"
    USER = "user"


class Role(enum.StrEnum):
    """What a user may do with the tenants he is given."""

    ADMIN = "admin"  # everything: every tenant, users, hosts
    OPERATOR = "operator"  # publishes, mints, rotates and registers within his tenants
    VIEWER = "viewer"  # reads within his tenants


class Limits(msgspec.Struct, frozen=True, gc=False):
    """The budgets of one subject: most calls in any second, minute and hour, most tokens in any hour."""

    burst: int | None = None  # calls in any one second: 10
    per_minute: int | None = None  # calls in any one minute: 100
    per_hour: int | None = None  # calls in any one hour: 5_000
    tokens_per_hour: int | None = None  # tokens in any one hour: 100_000


UNLIMITED: Final = Limits()


class Reservation(enum.StrEnum):
    """How much of a publication's token budgets a call holds back while it runs."""

    STRICT = "strict"  # the most that it can cost: no budget is ever passed
    ADAPTIVE = "adaptive"  # what calls like it turned out to cost: more run at once, and a budget may be passed


class MissingUsage(enum.StrEnum):
    """What a whole answer costs that does not say its usage."""

    ESTIMATE = "estimate"  # from the bytes that went both ways
    RESERVATION = "reservation"  # all that was held back for it
    FREE = "free"  # nothing; a call that was cut off is never free


class TokenPolicy(msgspec.Struct, frozen=True, gc=False):
    """How the tokens of a publication's calls are held back and charged; openai publications only."""

    context_tokens: int = 8_192  # most tokens of a prompt and one completion together: no call costs more per choice
    reservation: Reservation = Reservation.STRICT
    missing_usage: MissingUsage = MissingUsage.ESTIMATE
    reservation_timeout_s: int = 600  # a call is cut off then, and what it held back is charged as presumed


DEFAULT_TOKENS: Final = TokenPolicy()


class TenantRecord(msgspec.Struct, frozen=True, gc=False):
    """Who owns models and keys. ``id`` is the tenant's name: ``tenant-a``."""

    id: str
    shard: int  # 0..4095, fixed at creation; the first three characters of its ids
    created_at_ms: int
    updated_at_ms: int
    version: int = 1  # counts the record's writes
    disabled: bool = False  # its keys are refused
    limits: Limits = UNLIMITED
    hosts: tuple[str, ...] = ()  # sorted; where its operators may publish, besides the default host
    upstream_allow: tuple[str, ...] = ()  # networks, addresses and hosts of servers that its operators may register


class ModelRecord(msgspec.Struct, frozen=True, gc=False):
    """A model server known by its URL. Its record id is ``tenant/name``."""

    uid: str
    tenant: str
    name: str
    url: str  # http://127.0.0.1:9001 , no path, no trailing slash; empty while KServe gives none
    type: ModelType
    protocol: Protocol
    ready: bool
    message: str  # why it is not ready; empty when it is
    checked_at_ms: int
    created_at_ms: int
    updated_at_ms: int
    publication: str | None = None  # uid while published; its compare-and-set makes publishing unique
    type_given: bool = False  # an operator said the type; asking the server does not change it
    version: int = 1
    source: Source = Source.REGISTERED
    namespace: str = ""  # of its InferenceService; empty where it has none

    @property
    def id(self) -> str:
        """``tenant-a/my-model``: unique among all models."""
        return f"{self.tenant}/{self.name}"


class PublicationRecord(msgspec.Struct, frozen=True, gc=False):
    """A model put before callers. ``uid`` is new at each publishing, so old keys do not come back to life."""

    uid: str  # shard (3 hex) + 16 base32 characters
    tenant: str
    model: str
    url: str  # the model server's URL when published
    type: ModelType
    protocol: Protocol
    host: str  # api.router.inference-in-a-box
    path: str  # /models/my-model
    limits: Limits
    require_api_key: bool
    allowed_tenants: tuple[str, ...]  # sorted, the owner always in it
    key_id: str  # the publication's own key
    created_at_ms: int
    updated_at_ms: int
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    anonymous_per_minute: int = 60  # calls without a key from one address in any minute, where none is required
    version: int = 1
    tokens: TokenPolicy = DEFAULT_TOKENS

    @property
    def id(self) -> str:
        """The record id: the uid."""
        return self.uid


class Credential(msgspec.Struct, frozen=True, gc=False):
    """One accepted text of a key, stored as a hash only."""

    hash: str  # base64url of HMAC-SHA256 folded over `peppers`, see catalog.keys.hashing
    peppers: tuple[int, ...]  # pepper versions in the order applied: (1,) or after wrapping (1, 2)
    valid_until_ms: int | None = None  # the end of a rotated text's grace; None: no end of its own
    mac_key: int = 0  # version of the MAC key that made the text's check; 0 where nobody wrote it down


class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """A caller's key. It belongs to a tenant and names the publications it may call."""

    id: str  # shard (3 hex) + 16 base32 characters
    tenant: str
    name: str
    publications: tuple[str, ...]  # uids
    current: Credential
    created_at_ms: int
    updated_at_ms: int
    previous: Credential | None = None  # one rotated text at most, while its grace lasts
    expires_at_ms: int | None = None
    disabled: bool = False
    limits: Limits = UNLIMITED
    recovery: str | None = None  # the text, encrypted, where key recovery is on
    version: int = 1


class HostRecord(msgspec.Struct, frozen=True, gc=False):
    """What is published under a host. Its record id is the host; its compare-and-set keeps paths unique."""

    id: str
    paths: Mapping[str, str]  # external path -> publication uid, every publication of the host
    models: Mapping[str, str]  # "tenant/name" -> publication uid; openai publications only
    version: int = 1
    created_at_ms: int = 0  # tells a table from the one before it of the same host


ALL_TENANTS: Final = "*"
"""In a user's ``tenants``: every tenant, those to come included."""


class UserRecord(msgspec.Struct, frozen=True, gc=False):
    """Who may log in to the admin API. ``id`` is the user's name."""

    id: str
    password_hash: str  # argon2id, as argon2-cffi writes it
    role: Role
    tenants: tuple[str, ...]  # names, or ALL_TENANTS alone
    created_at_ms: int
    updated_at_ms: int
    token_version: int = 1  # tokens of another version are refused: logout and password change count it up
    disabled: bool = False
    version: int = 1
    calls_from: int | None = None  # calls begun with tokens of this version on may be finished; None: token_version's

    def __repr__(self) -> str:
        """Leave the password's hash out."""
        return f"UserRecord(id={self.id!r}, role={self.role!r}, tenants={self.tenants!r}, version={self.version})"


Record = TenantRecord | ModelRecord | PublicationRecord | KeyRecord | HostRecord | UserRecord

KIND_OF: Final[Mapping[type[Record], Kind]] = {
    TenantRecord: Kind.TENANT,
    ModelRecord: Kind.MODEL,
    PublicationRecord: Kind.PUBLICATION,
    KeyRecord: Kind.KEY,
    HostRecord: Kind.HOST,
    UserRecord: Kind.USER,
}
_WRITER: Final = msgspec.json.Encoder()
_READERS: Final = {kind: msgspec.json.Decoder(cls) for cls, kind in KIND_OF.items()}


def ref(kind: Kind, record_id: str) -> str:
    """Name a record in the store and in the change feed: ``ref(Kind.KEY, "0a1x…")`` is ``key:0a1x…``."""
    return f"{kind.value}:{record_id}"


def encode(record: Record) -> bytes:
    """Write a record as JSON."""
    return _WRITER.encode(record)


def decode(kind: Kind, raw: bytes) -> Record:
    """Read a record of this kind from JSON; raises ``ValueError`` where it is corrupt.

    Fields that this release does not know are passed over; those that it knows must be of their very types.
    """
    try:
        return _READERS[kind].decode(raw)
    except RecursionError:
        raise ValueError("the record is nested as none of ours is") from None
