"""The records of the catalog: tenants, models, publications, keys, users, hosts, routes, places and servers' callers.

Owns what each record holds and how it is written as JSON. Pure: knows no store and no clock. Records hold plain values
and one another but never themselves, so the garbage collector does not look at them (``gc=False``): a gate keeps
hundreds of thousands.
Times are milliseconds since the epoch by the store's clock (``_ms``); ``None`` in a limit means unlimited.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

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
    GRPC = "grpc"  # the Open Inference Protocol by gRPC; an operator said so, no server is asked by HTTP


KSERVE: Final = frozenset({Protocol.KSERVE_V1, Protocol.KSERVE_V2})
"""Protocols whose paths name the model."""


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
    SERVER = "server"
    ROUTE = "route"
    PLACE = "place"


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

    STRICT = "strict"  # the most that it asks for
    ADAPTIVE = "adaptive"  # what calls like it turned out to cost: more run at once, and a budget is passed more often


class MissingUsage(enum.StrEnum):
    """What a whole answer costs that does not say its usage."""

    ESTIMATE = "estimate"  # from the bytes that went both ways
    RESERVATION = "reservation"  # all that was held back for it
    FREE = "free"  # nothing; a call that was cut off is never free


class ContextFrom(enum.StrEnum):
    """Where a publication's context comes from."""

    SETTING = "setting"  # an operator gave it: it stays
    SERVER = "server"  # the model's server told it: it follows what that tells
    DEFAULT = "default"  # nobody said


USUAL_CONTEXT_TOKENS: Final = 8_192
"""The context of a model of which nobody said it."""
USUAL_BYTES_PER_TOKEN: Final = 2.5
"""Of text, rather too few: what JSON takes."""


class TokenPolicy(msgspec.Struct, frozen=True, gc=False):
    """How the tokens of a publication's calls are held back and charged; openai publications only."""

    context_tokens: int = USUAL_CONTEXT_TOKENS  # most tokens of a prompt and one completion: held for an answer at most
    reservation: Reservation = Reservation.STRICT
    missing_usage: MissingUsage = MissingUsage.ESTIMATE
    reservation_timeout_s: int = 600  # a call is cut off then, and what it held back is charged as presumed
    context_tokens_from: ContextFrom | None = None  # None: of a release that did not note it
    default_completion_tokens: int = 4_096  # held for each answer to a call that names no most
    clamp_usage: bool = False  # what the server tells above the hold is not believed, hence not charged
    media_part_tokens: int = 2_048  # held for each image or sound that stands in a body
    bytes_per_token: float = USUAL_BYTES_PER_TOKEN  # of text: estimates go by it until something was learnt
    stream_bytes_per_token: float | None = None  # of streams, events and all, likewise; None: what is usual

    @property
    def context_from(self) -> ContextFrom:
        """Where the context comes from; of a release that did not note it, what is not the default was given."""
        guessed = ContextFrom.DEFAULT if self.context_tokens == USUAL_CONTEXT_TOKENS else ContextFrom.SETTING
        return self.context_tokens_from or guessed


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


class Server(msgspec.Struct, frozen=True, gc=False):
    """One of the several servers of a model."""

    url: str  # as a model's
    weight: int = 1  # its share of the calls: weight / the sum of all the servers' weights


class UpstreamAuth(msgspec.Struct, frozen=True, gc=False):
    """What a model's servers want with each call, besides what callers send. Either ``sealed`` or ``secret`` is set."""

    header: str  # in lower case: authorization
    sealed: str = ""  # its value, encrypted (catalog.keys.upstream)
    secret: str = ""  # the Secret that an Envoy Gateway has the value from


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
    context_tokens: int | None = None  # as its server told last; None: it never did
    servers: tuple[Server, ...] = ()  # where there are several: the first has ``url``; () where that is the only one
    upstream_auth: UpstreamAuth | None = None
    model_id: str = ""  # what its server calls it: "llama3.1:8b"; empty: its name

    @property
    def id(self) -> str:
        """``tenant-a/my-model``: unique among all models."""
        return f"{self.tenant}/{self.name}"

    @property
    def served_as(self) -> str:
        """What its server calls it."""
        return self.model_id or self.name


class PublicationRecord(msgspec.Struct, frozen=True, gc=False):
    """A model put before callers. ``uid`` is new at each publishing, so old keys do not come back to life."""

    uid: str  # shard (3 hex) + 16 base32 characters
    tenant: str
    model: str
    url: str  # the model server's URL, the first of several
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
    server_context_tokens: int | None = None  # as its model's server told last; None: it never did
    allowed_endpoints: tuple[str, ...] = ()  # sorted; of its server, open besides the usual: ("files", "batches")
    allow_background: bool = False  # callers may leave work behind whose answer is fetched later
    servers: tuple[Server, ...] = ()  # as its model's
    upstream_auth: UpstreamAuth | None = None  # as its model's
    host_unnamed: bool = False  # nobody named a host: it is the default one, shown by an address that callers reach
    model_id: str = ""  # what the server calls the model: "llama3.1:8b"; empty: its name
    aliases: tuple[str, ...] = ()  # what callers may say for it besides: ("gpt-4o",), where they say any name

    @property
    def id(self) -> str:
        """The record id: the uid."""
        return self.uid

    @property
    def served_as(self) -> str:
        """What the server calls the model."""
        return self.model_id or self.model

    @property
    def is_said_by_path(self) -> bool:
        """Whether callers say its names in paths, in KServe's words."""
        return self.type is not ModelType.OPENAI and self.protocol in KSERVE

    @property
    def is_said(self) -> bool:
        """Whether callers say its names on its host: in bodies, or in paths."""
        return self.type is ModelType.OPENAI or self.is_said_by_path

    @property
    def names(self) -> tuple[str, ...]:
        """What callers of its own tenant may say for the model, each once, its name first."""
        return tuple(dict.fromkeys((self.model, self.served_as, *self.aliases)))


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
    description: str | None = None  # what it is for
    owner: str | None = None  # who answers for it, in whatever words
    labels: Mapping[str, str] | None = None  # by Kubernetes' rules; None: none


class HostRecord(msgspec.Struct, frozen=True, gc=False):
    """What is published under a host. Its record id is the host.

    Either the record holds the host's table, as it alone did in releases before: then that is what counts, and its
    compare-and-set keeps paths unique. Or it is closed (``None`` in both, which those releases cannot read): then
    the host's routes and places are records of their own, and a publishing changes none but its own.
    """

    id: str
    paths: Mapping[str, str] | None  # external path -> publication uid, every publication of the host
    models: Mapping[str, str] | None  # "tenant/name" -> publication uid, of those whose names callers say
    version: int = 1
    created_at_ms: int = 0  # tells a table from the one before it of the same host

    @property
    def is_closed(self) -> bool:
        """Whether routes and places are records of their own."""
        return self.paths is None or self.models is None

    @property
    def is_opening(self) -> bool:
        """Whether its table is being made again: routes and places count still, and may not be changed."""
        return self.paths is not None and self.models is None


class RouteRecord(msgspec.Struct, frozen=True, gc=False):
    """What a model's name leads to on a host whose table is closed. Its record id is ``host/tenant/model``."""

    id: str
    publication: str  # uid
    version: int = 1
    created_at_ms: int = 0


class PlaceRecord(msgspec.Struct, frozen=True, gc=False):
    """Whose a path is on a host whose table is closed. Its record id is host and path: ``api.example.com/models/m``."""

    id: str
    tenant: str
    publication: str  # uid
    version: int = 1
    created_at_ms: int = 0


class ServerRecord(msgspec.Struct, frozen=True, gc=False):
    """Whose publications lead to a model server. Its record id is the server: ``10.0.0.5:8000``.

    A server of no record, and a publication that does not stand in its server's, may be anybody's.
    """

    id: str
    callers: Mapping[
        str, str
    ]  # publication uid -> the one tenant whose keys may call it, "" where it is not one's alone
    version: int = 1
    created_at_ms: int = 0

    @property
    def sole_tenant(self) -> str:
        """The one tenant whose callers alone reach the server, by any publication that stands here; "" where not."""
        tenants = set(self.callers.values())
        return next(iter(tenants)) if len(tenants) == 1 else ""

    def is_alone(self, publication: PublicationRecord, sole_tenant: str | None = None) -> bool:
        """Whether no caller of another tenant reaches the server, by this publication or any other.

        ``sole_tenant``: where it is known; the record may hold thousands.
        """
        tenant = sole_caller(publication)
        alone = self.sole_tenant if sole_tenant is None else sole_tenant
        return bool(tenant) and alone == tenant and publication.uid in self.callers


def sole_caller(publication: PublicationRecord) -> str:
    """The one tenant whose keys may call a publication; "" where several tenants' may, or anybody.

    Also where it has several servers: what a call leaves at one of them is looked for at another by the next.
    """
    is_owners = publication.require_api_key and publication.allowed_tenants == (publication.tenant,)
    return publication.tenant if is_owners and not publication.servers else ""


def servers_of(record: ModelRecord | PublicationRecord) -> tuple[Server, ...]:
    """All servers of a model or of its publication, one at least; its ``url`` may be empty."""
    return record.servers or (Server(record.url),)


def server_of(url: str) -> str:
    """The server at a model's URL: ``http://LLM:8000`` is ``llm:8000``; "" where the URL names none.

    Which names and addresses lead to the same server nobody knows but who runs it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host and port else ""


_PORTS: Final = {"http": 80, "https": 443}

ALL_TENANTS: Final = "*"
"""In a user's ``tenants``: every tenant, those to come included."""


class ServiceAccess(msgspec.Struct, frozen=True, gc=False):
    """What makes a user a service account: it proves itself by a token, and has no password."""

    current: Credential
    previous: Credential | None = None  # one rotated token at most, while its grace lasts
    expires_at_ms: int | None = None  # None: it has no end
    description: str = ""


class UserRecord(msgspec.Struct, frozen=True, gc=False):
    """Who may use the admin API: a person who logs in, or a service account. ``id`` is the name."""

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
    service: ServiceAccess | None = None  # None: a person

    def __repr__(self) -> str:
        """Leave the password's hash out."""
        return f"UserRecord(id={self.id!r}, role={self.role!r}, tenants={self.tenants!r}, version={self.version})"


Record = (
    TenantRecord
    | ModelRecord
    | PublicationRecord
    | KeyRecord
    | HostRecord
    | UserRecord
    | ServerRecord
    | RouteRecord
    | PlaceRecord
)

KIND_OF: Final[Mapping[type[Record], Kind]] = {
    TenantRecord: Kind.TENANT,
    ModelRecord: Kind.MODEL,
    PublicationRecord: Kind.PUBLICATION,
    KeyRecord: Kind.KEY,
    HostRecord: Kind.HOST,
    UserRecord: Kind.USER,
    ServerRecord: Kind.SERVER,
    RouteRecord: Kind.ROUTE,
    PlaceRecord: Kind.PLACE,
}
_WRITER: Final = msgspec.json.Encoder()
_READERS: Final = {kind: msgspec.json.Decoder(cls) for cls, kind in KIND_OF.items()}


def ref(kind: Kind, record_id: str) -> str:
    """Name a record in the store and in the change feed: ``ref(Kind.KEY, "0a1x…")`` is ``key:0a1x…``."""
    return kind + ":" + record_id  # a kind is a text: said so often that a format would be noticed


def encode(record: Record) -> bytes:
    """Write a record as JSON; of a key, of which there may be a million, without what is as nobody said otherwise.

    Of models, publications and users without those fields of ``LATER`` that nobody set: they are what they were.
    """
    match record:
        case KeyRecord():
            return _WRITER.encode(_said(msgspec.to_builtins(record)))
        case ModelRecord() | PublicationRecord() | UserRecord():
            document = msgspec.to_builtins(record)
            return _WRITER.encode({name: value for name, value in document.items() if value or name not in LATER})
        case _:
            return _WRITER.encode(record)


LATER: Final = frozenset({"servers", "upstream_auth", "host_unnamed", "model_id", "aliases", "service"})
"""Fields of models, publications and users that the first release had not: written only where they are set."""


def _said(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what every reader, of the release before too, takes for granted: null, false and empty objects."""
    said = {name: _said(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    return {name: value for name, value in said.items() if not (value is None or value is False or value == {})}


def decode(kind: Kind, raw: bytes) -> Record:
    """Read a record of this kind from JSON; raises ``ValueError`` where it is corrupt.

    Fields that this release does not know are passed over; those that it knows must be of their very types.
    """
    try:
        return _READERS[kind].decode(raw)
    except RecursionError:
        raise ValueError("the record is nested as none of ours is") from None
