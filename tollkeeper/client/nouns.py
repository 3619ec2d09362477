"""The nouns of the command line: each verb's API call, the fields that options give, the columns of lists. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be done, and the call that does it."""

    method: str
    path: str  # {name}: the argument
    help: str
    fields: tuple[Field, ...] = ()
    argument: str = ""  # what the argument is called; "": the verb has none
    argument_field: str = ""  # of the body, where the argument is given there
    query: Mapping[str, str] = field(default_factory=dict)  # option: the query's parameter
    below: tuple[str, ...] = ()  # where in the body the fields stand: ("config",)
    constant: Mapping[str, object] = field(default_factory=dict)  # what the body always says
    asks: str = ""  # what is asked before: "Revoke key {name}?"
    shown_once: str = ""  # the field of the answer that has a whole key or token
    done: str = ""  # what is said where the answer has no body
    is_list: bool = False
    has_usage: bool = False  # a list that says usage where it is asked to
    is_usage: bool = False  # the answer is a series of usage
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Noun:
    """One kind of thing."""

    name: str
    help: str
    columns: tuple[Column, ...]
    verbs: Mapping[str, Verb]
    identity: str = ""  # the field that other verbs take as their argument


def _limits(*, of: str = "") -> tuple[Field, ...]:
    end = f" {of}".rstrip()
    rows = (
        ("--requests-per-minute", "requestsPerMinute", f"Most calls in any one minute{end}."),
        ("--requests-per-hour", "requestsPerHour", f"Most calls in any one hour{end}."),
        ("--tokens-per-hour", "tokensPerHour", f"Most tokens in any one hour{end}; of openai publications."),
        ("--burst-limit", "burstLimit", f"Most calls in any one second{end}."),
    )
    return tuple(Field(option, ("rateLimiting", name), Kind.LIMIT, text) for option, name, text in rows)


_TENANT_QUERY: Final = {"--tenant": "tenantId"}
_WINDOWS: Final = tuple(
    Column(f"rateLimiting.{name}", title)
    for name, title in (("burstLimit", "BURST"), ("requestsPerMinute", "PER MINUTE"), ("requestsPerHour", "PER HOUR"))
)
_TOKENS: Final = Column("rateLimiting.tokensPerHour", "TOKENS PER HOUR")

_TENANT_FIELDS: Final = (
    *_limits(of="of all the tenant's keys together"),
    Field(
        "--host", ("hosts",), Kind.WORDS, "Host that its operators may publish on; all of them, replaced as a whole."
    ),
    Field(
        "--upstream-allow",
        ("upstreamAllow",),
        Kind.WORDS,
        "Network or host of servers that its operators may register; all of them.",
    ),
    Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether its keys are refused."),
)

TENANTS: Final = Noun(
    "tenants",
    "Tenants: whose the models and keys are.",
    (
        Column("tenantId", "TENANT"),
        *_WINDOWS,
        _TOKENS,
        Column("disabled"),
        Column("cell"),
        Column("createdAt", "CREATED"),
    ),
    {
        "list": Verb("GET", "/api/tenants", "List tenants.", is_list=True),
        "show": Verb("GET", "/api/tenants/{name}", "Show a tenant.", argument="TENANT"),
        "create": Verb(
            "POST",
            "/api/tenants",
            "Make a tenant; it has no limit unless given.",
            (
                *_TENANT_FIELDS,
                Field("--cell-of", ("cellOf",), Kind.TEXT, "Tenant in whose cell its budgets are kept."),
                Field("--cell", ("cell",), Kind.NUMBER, "The cell itself, from 0."),
            ),
            argument="TENANT",
            argument_field="tenantId",
        ),
        "update": Verb(
            "PATCH",
            "/api/tenants/{name}",
            "Change a tenant; what is not given stays.",
            _TENANT_FIELDS,
            argument="TENANT",
        ),
        "delete": Verb(
            "DELETE",
            "/api/tenants/{name}",
            "Delete a tenant that has nothing left.",
            argument="TENANT",
            asks="Delete tenant {name}?",
            done="tenant {name} is deleted",
        ),
    },
    identity="tenantId",
)

_AUTH_FIELDS: Final = (
    Field(
        "--upstream-auth-header", ("upstreamAuth", "header"), Kind.TEXT, "Header that the server wants with each call."
    ),
    Field(
        "--upstream-auth-file",
        ("upstreamAuth", "value"),
        Kind.PASSWORD,
        "File whose first line is that header's value; - is standard input.",
    ),
    Field(
        "--upstream-auth-secret",
        ("upstreamAuth", "secret"),
        Kind.TEXT,
        "Secret beside the Gateway that holds it (Envoy Gateway).",
    ),
)

MODELS: Final = Noun(
    "models",
    "Models: servers that can be published.",
    (
        *(Column("name"), Column("tenantId", "TENANT"), Column("type"), Column("ready"), Column("published")),
        *(Column("url"), Column("modelId", "MODEL ID"), Column("message")),
    ),
    {
        "list": Verb("GET", "/api/models", "List models as they were found last.", query=_TENANT_QUERY, is_list=True),
        "show": Verb(
            "GET",
            "/api/models/{name}",
            "Ask the model's server, and show the model.",
            argument="NAME",
            query=_TENANT_QUERY,
        ),
        "create": Verb(
            "POST",
            "/api/models",
            "Register a model by the URL of its server; everything else is found out.",
            (
                Field("--url", ("url",), Kind.TEXT, "Origin of the server: http://127.0.0.1:11434.", required=True),
                Field("--name", ("name",), Kind.TEXT, "What the gateway calls it; at first made of its model id."),
                Field("--tenant", ("tenantId",), Kind.TEXT, "Whose it is; at first your only tenant, else `default`."),
                Field("--model-id", ("modelId",), Kind.TEXT, "What the server calls it: llama3.1:8b."),
                Field("--type", ("type",), Kind.TEXT, "openai or traditional; found out unless given."),
                Field("--protocol", ("protocol",), Kind.TEXT, "grpc, where its server is called by gRPC."),
                *_AUTH_FIELDS,
            ),
        ),
        "update": Verb(
            "PATCH",
            "/api/models/{name}",
            "Change a model's servers while calls run; keys and paths stay.",
            (
                Field("--url", ("url",), Kind.TEXT, "Its one server from now on."),
                Field(
                    "--server", ("servers",), Kind.SERVERS, "One of several servers and its weight, instead of --url."
                ),
                *_AUTH_FIELDS,
            ),
            argument="NAME",
            query=_TENANT_QUERY,
        ),
        "delete": Verb(
            "DELETE",
            "/api/models/{name}",
            "Forget a model that is not published.",
            argument="NAME",
            query=_TENANT_QUERY,
            asks="Forget model {name}?",
            done="model {name} is forgotten",
        ),
    },
    identity="name",
)

_PUBLICATION_FIELDS: Final = (
    Field("--host", ("publicHostname",), Kind.TEXT, "Host that callers use; at first the default host."),
    Field("--path", ("externalPath",), Kind.TEXT, "Path that callers use; at first /models/NAME."),
    Field("--type", ("modelType",), Kind.TEXT, "openai or traditional; found out unless given."),
    Field("--alias", ("aliases",), Kind.WORDS, "What callers may say for the model; all of them, replaced as a whole."),
    *_limits(of="of all keys together"),
    Field(
        "--allow-tenant",
        ("authentication", "allowedTenants"),
        Kind.WORDS,
        "Tenant whose keys may call, besides the owner's; all of them.",
    ),
    Field(
        "--require-key/--no-require-key",
        ("authentication", "requireApiKey"),
        Kind.SWITCH,
        "Whether calls without a key are refused.",
    ),
    Field(
        "--context-tokens",
        ("tokens", "contextTokens"),
        Kind.LIMIT,
        "Most tokens of a prompt and one completion; none: as the server says.",
    ),
    Field(
        "--default-completion-tokens",
        ("tokens", "defaultCompletionTokens"),
        Kind.NUMBER,
        "Held for a call that names no max_tokens.",
    ),
    Field("--reservation", ("tokens", "reservation"), Kind.TEXT, "strict or adaptive."),
    Field("--metadata", ("metadata",), Kind.PAIRS, "Note of your own; all of them, replaced as a whole."),
)

PUBLICATIONS: Final = Noun(
    "publications",
    "Published models: where they are called, and their limits.",
    (
        *(Column("modelName", "MODEL"), Column("tenantId", "TENANT"), Column("modelType", "TYPE"), Column("status")),
        *(*_WINDOWS, _TOKENS, Column("externalUrl", "URL"), Column("statusReason", "WHY NOT LIVE")),
    ),
    {
        "list": Verb(
            "GET", "/api/published-models", "List published models.", query=_TENANT_QUERY, is_list=True, has_usage=True
        ),
        "show": Verb(
            "GET",
            "/api/models/{name}/publish",
            "Show a published model, its status and usage.",
            argument="MODEL",
            query=_TENANT_QUERY,
        ),
        "create": Verb(
            "POST",
            "/api/models/{name}/publish",
            "Publish a model, and get its key.",
            _PUBLICATION_FIELDS,
            argument="MODEL",
            query=_TENANT_QUERY,
            below=("config",),
            shown_once="apiKey",
        ),
        "update": Verb(
            "PUT",
            "/api/models/{name}/publish",
            "Change a published model; what is not given stays.",
            _PUBLICATION_FIELDS,
            argument="MODEL",
            query=_TENANT_QUERY,
            below=("config",),
        ),
        "delete": Verb(
            "DELETE",
            "/api/models/{name}/publish",
            "Unpublish a model; its key dies with it.",
            argument="MODEL",
            query=_TENANT_QUERY,
            asks="Unpublish {name}? Its key dies, and every other key loses it.",
            done="{name} is unpublished",
        ),
        "rotate-key": Verb(
            "POST",
            "/api/models/{name}/publish/rotate-key",
            "Give the publication's key a new text; the old one dies now unless it gets a grace.",
            (Field("--grace-s", ("gracePeriodSeconds",), Kind.NUMBER, "Seconds that the old text stays accepted."),),
            argument="MODEL",
            query=_TENANT_QUERY,
            shown_once="apiKey",
        ),
        "usage": Verb(
            "GET",
            "/api/models/{name}/usage",
            "Show what a published model was used.",
            is_usage=True,
            argument="MODEL",
            query=_TENANT_QUERY,
        ),
    },
    identity="modelName",
)

_KEY_WORDS: Final = (
    Field(
        "--publication",
        ("publications",),
        Kind.WORDS,
        "Published model that it may call: NAME, or TENANT/NAME; all of them.",
    ),
    *_limits(of="of this key alone"),
    Field("--expires-at", ("expiresAt",), Kind.TIME, "When it ends, RFC 3339: 2027-01-31T00:00:00Z."),
    Field("--description", ("description",), Kind.TEXT, "What it is for."),
    Field("--owner", ("owner",), Kind.TEXT, "Who answers for it, in whatever words."),
    Field("--label", ("labels",), Kind.PAIRS, "By which lists are narrowed; all of them, replaced as a whole."),
)
_GRACE: Final = Field("--grace-s", ("gracePeriodSeconds",), Kind.NUMBER, "Seconds that the old text stays accepted.")

KEYS: Final = Noun(
    "keys",
    "Keys: make, find, rotate, disable, revoke.",
    (
        *(Column("id"), Column("name"), Column("tenantId", "TENANT"), Column("owner"), Column("apiKey", "KEY")),
        *(Column("publications"), *_WINDOWS, _TOKENS, Column("expiresAt", "EXPIRES"), Column("disabled")),
    ),
    {
        "list": Verb(
            "GET",
            "/api/keys",
            "List keys, those that publications were born with among them.",
            query={**_TENANT_QUERY, "--model": "model", "--name": "name", "--label-selector": "labelSelector"},
            is_list=True,
            has_usage=True,
        ),
        "show": Verb("GET", "/api/keys/{name}", "Show a key, what it may call and its usage.", argument="ID"),
        "create": Verb(
            "POST",
            "/api/keys",
            "Make a key; its text is shown once.",
            (
                Field("--name", ("name",), Kind.TEXT, "What people call it.", required=True),
                Field(
                    "--tenant",
                    ("tenantId",),
                    Kind.TEXT,
                    "Whose calls it makes; at first your only tenant, else `default`.",
                ),
                *_KEY_WORDS,
            ),
            shown_once="apiKey",
        ),
        "update": Verb(
            "PATCH",
            "/api/keys/{name}",
            "Change a key; what is not given stays.",
            (
                Field("--name", ("name",), Kind.TEXT, "What people call it."),
                *_KEY_WORDS,
                Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether it is refused."),
            ),
            argument="ID",
        ),
        "delete": Verb(
            "DELETE",
            "/api/keys/{name}",
            "Revoke a key for good.",
            argument="ID",
            asks="Revoke key {name} for good?",
            done="key {name} is revoked",
        ),
        "rotate": Verb(
            "POST",
            "/api/keys/{name}/rotate",
            "Give a key a new text; the old one dies now unless it gets a grace.",
            (_GRACE,),
            argument="ID",
            shown_once="apiKey",
        ),
        "disable": Verb(
            "PATCH",
            "/api/keys/{name}",
            "Refuse a key until it is enabled again.",
            argument="ID",
            constant={"disabled": True},
        ),
        "enable": Verb(
            "PATCH",
            "/api/keys/{name}",
            "Accept a key again that was disabled.",
            argument="ID",
            constant={"disabled": False},
        ),
        "usage": Verb(
            "GET",
            "/api/keys/{name}/usage",
            "Show what a key was used, also when it is no more.",
            is_usage=True,
            argument="ID",
        ),
        "deleted": Verb(
            "GET",
            "/api/deleted-keys",
            "List what stays of a tenant's deleted keys, the newest first.",
            query=_TENANT_QUERY,
            is_list=True,
            has_usage=True,
            columns=(
                *(Column("id"), Column("name"), Column("tenantId", "TENANT"), Column("owner"), Column("apiKey", "KEY")),
                *(Column("deletedAt", "DELETED"), Column("deletedBy", "BY")),
            ),
        ),
    },
    identity="id",
)

_ROLE: Final = "admin: everything; operator: writes within their tenants; viewer: reads there."
_SERVICE_FIELDS: Final = (
    Field("--tenant", ("tenants",), Kind.WORDS, "Tenant of its; * alone is every tenant."),
    Field("--expires-at", ("expiresAt",), Kind.TIME, "When it ends, RFC 3339: 2027-01-31T00:00:00Z."),
    Field("--description", ("description",), Kind.TEXT, "What it is for."),
    Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether its tokens are refused."),
)
USERS: Final = Noun(
    "users",
    "Users: who may log in.",
    (Column("name"), Column("role"), Column("tenants"), Column("disabled"), Column("createdAt", "CREATED")),
    {
        "list": Verb("GET", "/api/users", "List users.", is_list=True),
        "show": Verb("GET", "/api/users/{name}", "Show a user.", argument="NAME"),
        "create": Verb(
            "POST",
            "/api/users",
            "Make a user.",
            (
                Field("--role", ("role",), Kind.TEXT, _ROLE, required=True),
                Field("--tenant", ("tenants",), Kind.WORDS, "Tenant of theirs; * alone is every tenant."),
                Field(
                    "--password-file",
                    ("password",),
                    Kind.PASSWORD,
                    "File whose first line is their first password; - is standard input.",
                    required=True,
                ),
                Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether they cannot log in."),
            ),
            argument="NAME",
            argument_field="name",
        ),
        "update": Verb(
            "PATCH",
            "/api/users/{name}",
            "Change a user; what is not given stays.",
            (
                Field("--role", ("role",), Kind.TEXT, _ROLE),
                Field("--tenant", ("tenants",), Kind.WORDS, "Tenant of theirs; all of them, replaced as a whole."),
                Field(
                    "--password-file",
                    ("password",),
                    Kind.PASSWORD,
                    "File whose first line is a new password; every session of theirs ends.",
                ),
                Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether they cannot log in."),
            ),
            argument="NAME",
        ),
        "delete": Verb(
            "DELETE",
            "/api/users/{name}",
            "Delete a user; their sessions end.",
            argument="NAME",
            asks="Delete user {name}?",
            done="user {name} is deleted",
        ),
    },
    identity="name",
)

SERVICE_ACCOUNTS: Final = Noun(
    "service-accounts",
    "Service accounts: tokens for cron, builds and this command line.",
    (
        *(Column("name"), Column("role"), Column("tenants"), Column("description"), Column("disabled")),
        *(Column("expiresAt", "EXPIRES"), Column("lastUsedAt", "LAST USED"), Column("createdAt", "CREATED")),
    ),
    {
        "list": Verb("GET", "/api/service-accounts", "List service accounts.", is_list=True),
        "show": Verb("GET", "/api/service-accounts/{name}", "Show a service account.", argument="NAME"),
        "create": Verb(
            "POST",
            "/api/service-accounts",
            "Make a service account; its token is shown once.",
            (Field("--role", ("role",), Kind.TEXT, _ROLE, required=True), *_SERVICE_FIELDS),
            argument="NAME",
            argument_field="name",
            shown_once="token",
        ),
        "update": Verb(
            "PATCH",
            "/api/service-accounts/{name}",
            "Change a service account; what is not given stays.",
            (Field("--role", ("role",), Kind.TEXT, _ROLE), *_SERVICE_FIELDS),
            argument="NAME",
        ),
        "rotate": Verb(
            "POST",
            "/api/service-accounts/{name}/rotate",
            "Give it a new token; the old one dies now unless it gets a grace.",
            (_GRACE,),
            argument="NAME",
            shown_once="token",
        ),
        "delete": Verb(
            "DELETE",
            "/api/service-accounts/{name}",
            "Delete a service account; its tokens die.",
            argument="NAME",
            asks="Delete service account {name}?",
            done="service account {name} is deleted",
        ),
    },
    identity="name",
)

AUDIT: Final = Noun(
    "audit",
    "The audit stream: who did what.",
    (
        *(Column("time"), Column("actor"), Column("action"), Column("target"), Column("tenantId", "TENANT")),
        *(Column("detail"), Column("requestId", "REQUEST")),
    ),
    {
        "list": Verb(
            "GET",
            "/api/audit",
            "List what was done, the newest first.",
            query={**_TENANT_QUERY, "--actor": "actor", "--action": "action", "--since": "since", "--until": "until"},
            is_list=True,
        ),
    },
)

NOUNS: Final = (MODELS, PUBLICATIONS, KEYS, TENANTS, USERS, SERVICE_ACCOUNTS, AUDIT)
