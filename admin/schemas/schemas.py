"""What the API takes and gives. The same models check bodies and make the API's document; nothing else describes them.

Every field of a change is optional: an absent one keeps what is, ``null`` means no limit where a limit stands.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from admin.schemas.fields import (
    MAX_SECRET_TEXT,
    Aliases,
    AnonymousLimit,
    BytesPerToken,
    CompletionTokens,
    ContextTokens,
    Endpoints,
    ExternalPath,
    Hostname,
    Hostnames,
    Input,
    Limit,
    MediaTokens,
    Metadata,
    ModelName,
    ModelText,
    Output,
    ReservationSeconds,
    ServerUrl,
    TenantName,
    TenantNames,
    Upstreams,
    UserName,
)
from admin.schemas.servers import ModelServer, Servers, UpstreamAuth, UpstreamAuthInput
from catalog.records import DEFAULT_TOKENS, ContextFrom, MissingUsage, ModelType, Protocol, Reservation, Source
from catalog.status import State
from ratelimit.usage.facts import Metering

MAX_GRACE_S = 7 * 24 * 3600
SecretText = Annotated[SecretStr, Field(min_length=1, max_length=MAX_SECRET_TEXT)]


class WarningCode(enum.StrEnum):
    """Why a call was warned of. Clients may rely on these names."""

    TOKENS_BELOW_HOLD = "TOKENS_BELOW_HOLD"
    LIMIT_UNREACHABLE = "LIMIT_UNREACHABLE"
    NAME_TWICE = "NAME_TWICE"
    HOST_UNRESOLVED = "HOST_UNRESOLVED"


class RateLimitingInput(Input):
    """Budgets. Absent keeps what is (at first: the default), null means unlimited."""

    requests_per_minute: Limit | None = None
    """Most calls in any one minute."""
    requests_per_hour: Limit | None = None
    """Most calls in any one hour."""
    tokens_per_hour: Limit | None = None
    """Most tokens, of prompts and answers together, in any one hour; of openai publications only."""
    burst_limit: Limit | None = None
    """Most calls in any one second."""


class TokensInput(Input):
    """How the tokens of each call are held back and charged. Of openai publications only; others keep it unused."""

    context_tokens: ContextTokens | None = None
    """Most tokens of a prompt and one completion together, as the model has it: no call holds back more per answer.
    Null, as if it had never been given: what the model's server tells, else 8192."""
    default_completion_tokens: CompletionTokens = DEFAULT_TOKENS.default_completion_tokens
    """Held for each answer to a call that names no most (max_tokens); if the answer is longer, all of it is charged."""
    media_part_tokens: MediaTokens = DEFAULT_TOKENS.media_part_tokens
    """Held for each image or sound that stands in a body, whatever its bytes."""
    reservation: Reservation = DEFAULT_TOKENS.reservation
    """strict: a call holds back the most that it asks for; adaptive: what calls like it turned out to cost, so that
    more run at once and a budget is passed more often."""
    missing_usage: MissingUsage = DEFAULT_TOKENS.missing_usage
    """What a whole answer costs that does not tell its usage: an estimate from its size, all that was held back for
    it (reservation), or nothing (free)."""
    bytes_per_token: BytesPerToken = DEFAULT_TOKENS.bytes_per_token
    """Of text: what is estimated goes by it until 200 calls have told their usage."""
    stream_bytes_per_token: BytesPerToken | None = None
    """Of streams, their events included, where only their bytes are known; likewise. Null: what is usual of them."""
    clamp_usage: bool = DEFAULT_TOKENS.clamp_usage
    """The server is not believed: no call is charged more than it held, or than the size of its answer shows."""
    reservation_timeout_seconds: ReservationSeconds = DEFAULT_TOKENS.reservation_timeout_s
    """A call is cut off after this long, and charged by estimate if nobody told how it ended."""


class AuthenticationInput(Input):
    """Who may call."""

    require_api_key: bool = True
    """Calls without a key are refused; false only where the operator allows it (--allow-anonymous)."""
    allowed_tenants: TenantNames = ()
    """Tenants whose keys may call, besides the owner's, which always may."""
    anonymous_requests_per_minute: AnonymousLimit = 60
    """Most calls without a key in any one minute from one address; of IPv6 addresses, from one /64."""


class ConfigInput(Input):
    """How a model is published. All fields are optional."""

    tenant_id: TenantName = ""
    """The model's tenant. It cannot be changed."""
    public_hostname: Hostname = ""
    """The host callers use; at first the gateway's default host."""
    external_path: ExternalPath = ""
    """The path callers use; at first /models/NAME, or /v1/models/NAME for openai."""
    model_type: ModelType = ModelType.TRADITIONAL
    """How the model is spoken to; found out by asking its server unless given."""
    aliases: Aliases = ()
    """What callers may say for the model besides its name and its modelId; replaced as a whole. Each means one model of
    the tenant on the host. Of openai publications only."""
    rate_limiting: RateLimitingInput = RateLimitingInput()
    authentication: AuthenticationInput = AuthenticationInput()
    tokens: TokensInput = TokensInput()
    allowed_endpoints: Endpoints = ()
    """Endpoints of the model's server, as below its /v1, that callers may reach with all that lies below them, besides
    the usual ones; replaced as a whole. Of openai publications only, as the next."""
    allow_background: bool = False
    """Callers may send `background: true`: it stays held until its result, fetched later, tells usage."""
    metadata: Metadata = Field(default_factory=dict)
    """Notes of the operator's own; replaced as a whole."""


class PublishInput(Input):
    """Body of publish, which may be left out, and of update."""

    config: ConfigInput = ConfigInput()


class RotateInput(Input):
    """Body of rotate-key; it may be left out."""

    grace_period_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0
    """How long the old text stays accepted; 0: it dies now."""


class LoginInput(Input):
    """Body of login."""

    username: UserName
    password: SecretText


class ValidateInput(Input):
    """Body of validate-api-key."""

    api_key: SecretText


class TenantInput(Input):
    """Body that makes a tenant."""

    tenant_id: TenantName
    rate_limiting: RateLimitingInput = RateLimitingInput()
    disabled: bool = False
    """Its keys are refused."""
    cell_of: TenantName | None = None
    """A tenant in whose cell its budgets are to be kept: the two may call one another's models."""
    cell: int | None = Field(default=None, ge=0)
    """The cell itself, from 0; one of the two at most, and without both its name says."""
    hosts: Hostnames = ()
    """Hosts that its operators may publish on, besides the default host; replaced as a whole."""
    upstream_allow: Upstreams = ()
    """Networks, addresses and host names of servers that its operators may register; replaced as a whole."""


class TenantChange(Input):
    """Body that changes a tenant."""

    rate_limiting: RateLimitingInput = RateLimitingInput()
    disabled: bool = False
    """Its keys are refused."""
    hosts: Hostnames = ()
    """Hosts that its operators may publish on, besides the default host; replaced as a whole."""
    upstream_allow: Upstreams = ()
    """Networks, addresses and host names of servers that its operators may register; replaced as a whole."""


class ModelInput(Input):
    """Body that registers a model."""

    name: ModelName = ""
    """What the gateway calls it; at first made of its modelId, which is then the one model that the server lists."""
    tenant_id: TenantName = ""
    """Whose it is; at first the caller's only tenant, else `default`."""
    url: ServerUrl = ""
    """Origin of its one server: scheme, host and port; a path /v1 is taken off. Needed unless there are servers."""
    servers: Servers = ()
    """Its servers, where they are several, the first of which is asked about the model; instead of url."""
    model_id: ModelText = ""
    """What the server calls the model; at first its name."""
    type: ModelType = ModelType.TRADITIONAL
    """How the model is spoken to; found out by asking its server unless given."""
    protocol: Literal["grpc"] | None = None
    """`grpc`: its server is asked by gRPC (`inference.GRPCInferenceService`); found out unless given."""
    upstream_auth: UpstreamAuthInput | None = None
    """What the server wants with each call."""


class User(Output):
    """Who is logged in."""

    name: str
    role: str
    tenants: list[str]
    """Names; * is every tenant."""


class Session(Output):
    """Answer of login."""

    token: str
    """Send it as Authorization: Bearer."""
    expires_at: datetime
    user: User


class RateLimiting(Output):
    """Budgets in force; null is unlimited."""

    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_hour: int | None
    burst_limit: int | None


class Tokens(Output):
    """How the tokens of each call are held back and charged; of openai publications only."""

    context_tokens: int
    context_tokens_from: ContextFrom
    """Who said so: an operator (setting), the model's server, or nobody (default)."""
    server_context_tokens: int | None
    """What the model's server told when it was asked last; null: it never told one."""
    context_tokens_hint: str
    """What is amiss where the setting is another than what the server tells; empty where nothing is."""
    default_completion_tokens: int
    media_part_tokens: int
    reservation: Reservation
    missing_usage: MissingUsage
    bytes_per_token: float
    stream_bytes_per_token: float | None
    clamp_usage: bool
    reservation_timeout_seconds: int


class WarningAnswer(Output):
    """Something that was done and will hardly be meant."""

    code: WarningCode
    """Stable name of what it is."""
    field: str
    message: str


class Tenant(Output):
    """A tenant."""

    tenant_id: str
    cell: int
    """Of the budgets' store: where its budgets are kept. Tenants who share a model are in one."""
    rate_limiting: RateLimiting
    disabled: bool
    hosts: list[str]
    """Hosts that its operators may publish on, besides the default host."""
    upstream_allow: list[str]
    """Networks, addresses and host names of servers that its operators may register."""
    created_at: datetime
    updated_at: datetime
    warnings: list[WarningAnswer] = Field(default_factory=list)
    """What the call that is answered was allowed and will hardly mean; empty in answers that only show."""


class Model(Output):
    """A registered model."""

    uid: str
    """Of this life of the name: a model registered anew has another."""
    name: str
    tenant_id: str
    model_id: str
    """What its server calls it."""
    url: str
    """The first server's; empty while its InferenceService gives none."""
    servers: list[ModelServer]
    """All of them, with their shares of the calls."""
    upstream_auth: UpstreamAuth | None
    """What they get with each call; null: nothing."""
    type: ModelType
    protocol: Protocol
    ready: bool
    message: str
    """Why it is not ready; empty when it is."""
    published: bool
    source: Source
    """Who says so: whoever registered it and its server, or its InferenceService in Kubernetes."""
    context_tokens: int | None
    """Most tokens of a prompt and its answer together, as its server told last; null: it never did."""
    namespace: str
    """Of its InferenceService; empty where it has none."""
    checked_at: datetime
    """When its server was last asked, or its InferenceService last said something else."""
    created_at: datetime
    updated_at: datetime


class Authentication(Output):
    """Who may call."""

    require_api_key: bool
    allowed_tenants: list[str]
    anonymous_requests_per_minute: int
    """Of each address, where no key is required."""


class UsageAnswer(Output):
    """Calls admitted, and tokens charged, since publishing or since the key was made."""

    total_requests: int
    requests_today: int
    """Since midnight UTC."""
    tokens_used: int
    """Of calls that have ended; what running calls hold back is not in it."""
    last_access_time: datetime | None


class Bucket(Output):
    """Calls admitted, and tokens charged to calls that ended, in one clock minute, hour or day."""

    start: datetime
    requests: int
    tokens: int


class LiveBudget(Output):
    """A budget as it stands now."""

    budget: str
    """Its name in rateLimiting."""
    limit: int
    remaining: int
    """What the next call may still cost; tokens that running calls hold back are not in it."""
    resets_at: datetime | None
    """When it is whole again if nobody calls; null: it is."""


class LearnedCosts(Output):
    """What 95 of 100 calls stayed within; null before 200 calls have told."""

    calls: int
    """How many calls it rests on; old ones fade."""
    prompt_tokens_per_byte: float | None
    """Of the call's body."""
    completion_share: float | None
    """Completion tokens for each that was asked for."""
    completion_tokens_per_byte: float | None
    """Of a JSON answer."""
    unbounded_completion_tokens: float | None
    """Of an answer to a call that names no most."""
    tokens_per_event: float | None
    """Of a stream."""
    tokens_per_stream_byte: float | None
    """Of a stream as sent."""
    tokens_per_second: float | None
    """From a call's first byte to its answer's last."""


class UsageSeries(UsageAnswer):
    """Calls and tokens, in all and over time; the last bucket of each series is still running."""

    last_day: list[Bucket]
    """The last 24 clock hours, UTC, the oldest first."""
    last_hour: list[Bucket]
    """The last 60 clock minutes, UTC, the oldest first."""
    hours: list[Bucket]
    """Clock hours, UTC, of the last eight days in which it was used, the oldest first."""
    days: list[Bucket]
    """Days, UTC, of the last 13 months in which it was used, the oldest first."""
    budgets: list[LiveBudget]
    """Those that have a limit; none where their state cannot be read."""
    learned: LearnedCosts | None = None
    """Of a model: what its calls turned out to cost, by which `adaptive` reserves. Null for keys."""


class AboveHold(Output):
    """Calls that cost more than they held, and by how many tokens, of this clock hour and the one before."""

    calls: int
    tokens: int


class Examples(Output):
    """Calls to copy; put the key in the variable API_KEY first."""

    curl: str
    python: str


class Publication(Output):
    """A published model."""

    uid: str
    """Of this publishing: a model published anew has another."""
    model_name: str
    tenant_id: str
    public_hostname: str
    external_path: str
    external_url: str
    model_type: ModelType
    model_id: str
    """What the model's server calls it; written into the bodies of calls that say something else."""
    aliases: list[str]
    """What callers may say for it besides its name and modelId."""
    rate_limiting: RateLimiting
    authentication: Authentication
    tokens: Tokens
    allowed_endpoints: list[str]
    allow_background: bool
    metadata: dict[str, str]
    api_key: str
    """Whole when it was just made; masked afterwards, but in a GET of this one where key recovery is on, which the
    audit stream then says."""
    key_id: str
    status: State
    status_reason: str
    """Why it is not live; empty when it is."""
    metering: Metering | None
    """Of an openai model: whether the proxy tells how its calls end (`seen`), has not yet (`unproved`), or has not for
    20 calls in a row (`missing`), each then charged what it was presumed to cost; `estimated`: it does, and the last 20
    whole answers told no usage. Null for others, of which nothing is told, and in a list without ?usage=true."""
    above_hold: AboveHold | None
    """Of an openai model: calls of this clock hour and the one before that cost more tokens than they held. All of it
    was charged, up to 10^9 tokens a call; many are a warning in /readyz. Null for others, and in a list without
    ?usage=true."""
    usage: UsageAnswer | None
    """Null in a list unless ?usage=true asks for it, and where the counters cannot be read."""
    examples: Examples
    created_at: datetime
    updated_at: datetime
    warnings: list[WarningAnswer] = Field(default_factory=list)
    """What the call that is answered was allowed and will hardly mean; empty in answers that only show."""


class RotatedKey(Output):
    """Answer of rotate-key."""

    api_key: str
    """The new text, shown this once."""
    key_id: str
    model_name: str
    tenant_id: str
    previous_valid_until: datetime | None
    """When the old text's grace ends; null: it is dead."""
    updated_at: datetime


class Validation(Output):
    """Answer of validate-api-key. Of a key that is not valid nothing is told."""

    valid: bool
    tenant_id: str | None = None
    model_name: str | None = None
    external_url: str | None = None
    expires_at: datetime | None = None
    """When this text stops being accepted; null: it has no end of its own."""


class Damaged(Output):
    """A record of a list that cannot be read or shown. An admin may remove it."""

    id: str
    """Under which it is stored: a name, TENANT/NAME of a model, the uid of a publication, the id of a key."""
    tenant_id: str | None
    """Whose it is; null where that is lost."""
    damaged: Literal[True] = True
    remove: str
    """The call that removes it: DELETE /api/keys/ID."""


class Host(Output):
    """A host that models are published on."""

    name: str
    publications: int
    """Published models that stand there."""


class Hosts(Output):
    """A page of hosts."""

    items: list[Host]
    damaged: list[Damaged]
    """Those of the page whose table cannot be read; told to admins."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class Tenants(Output):
    """A page of tenants."""

    items: list[Tenant]
    damaged: list[Damaged]
    """Those of the page that cannot be read; told to admins."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class Models(Output):
    """A page of models."""

    items: list[Model]
    damaged: list[Damaged]
    """Those of the page that cannot be read; told to admins."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class Publications(Output):
    """A page of published models."""

    items: list[Publication]
    damaged: list[Damaged]
    """Those of the page that cannot be read; told to admins."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class Act(Output):
    """Something that was done."""

    id: str
    time: datetime
    """By the store's clock."""
    actor: str
    """The user's name; start: the process itself, when it began."""
    action: str
    """What was done: publication.update, key.rotate, …"""
    target: str
    """What it was done to."""
    tenant_id: str
    """Whose it is; empty where it is no tenant's."""
    request_id: str
    detail: dict[str, str]
    """What changed, as OLD -> NEW, or what was made."""


class Acts(Output):
    """A page of acts, the newest first."""

    items: list[Act]
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class Alive(Output):
    """The process runs."""

    status: str


class Ready(Output):
    """Whether the process can do its job. Why not is told at --http-listen alone."""

    ready: bool


class FaultAnswer(Output):
    """One broken rule."""

    field: str
    rule: str
    message: str


class ProblemAnswer(Output):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable name of what went wrong."""
    errors: list[FaultAnswer] = Field(default_factory=list)
    request_id: str
