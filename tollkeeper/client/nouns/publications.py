"""Publications as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import GRACE, TENANT_QUERY, TOKENS, WINDOWS, limits
from tollkeeper.client.nouns.verbs import Noun, Verb

_PUBLICATION_FIELDS: Final = (
    Field("--host", ("publicHostname",), Kind.TEXT, "Host that callers use; at first the default host."),
    Field(
        "--path",
        ("externalPath",),
        Kind.TEXT,
        "Path that callers use; at first /models/NAME, of an openai model /v1/models/NAME.",
    ),
    Field("--type", ("modelType",), Kind.TEXT, "openai or traditional; found out unless given."),
    Field("--alias", ("aliases",), Kind.WORDS, "What callers may say for the model; all of them, replaced as a whole."),
    *limits(of="of all keys together"),
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
        *(*WINDOWS, TOKENS, Column("externalUrl", "URL"), Column("statusReason", "WHY NOT LIVE")),
    ),
    {
        "list": Verb(
            "GET", "/api/published-models", "List published models.", query=TENANT_QUERY, is_list=True, has_usage=True
        ),
        "show": Verb(
            "GET",
            "/api/models/{name}/publish",
            "Show a published model, its status and usage.",
            argument="MODEL",
            query=TENANT_QUERY,
        ),
        "create": Verb(
            "POST",
            "/api/models/{name}/publish",
            "Publish a model, and get its key.",
            _PUBLICATION_FIELDS,
            argument="MODEL",
            query=TENANT_QUERY,
            below=("config",),
            shown_once="apiKey",
            may_wait=True,
        ),
        "update": Verb(
            "PUT",
            "/api/models/{name}/publish",
            "Change a published model; what is not given stays.",
            _PUBLICATION_FIELDS,
            argument="MODEL",
            query=TENANT_QUERY,
            below=("config",),
            may_wait=True,
        ),
        "delete": Verb(
            "DELETE",
            "/api/models/{name}/publish",
            "Unpublish a model; its key dies with it.",
            argument="MODEL",
            query=TENANT_QUERY,
            asks="Unpublish {name}? Its key dies, and every other key loses it.",
            done="{name} is unpublished",
        ),
        "rotate-key": Verb(
            "POST",
            "/api/models/{name}/publish/rotate-key",
            "Give the publication's key a new text; the old one dies now unless it gets a grace.",
            (GRACE,),
            argument="MODEL",
            query=TENANT_QUERY,
            shown_once="apiKey",
        ),
        "usage": Verb(
            "GET",
            "/api/models/{name}/usage",
            "Show what a published model was used.",
            is_usage=True,
            argument="MODEL",
            query=TENANT_QUERY,
        ),
    },
    identity="modelName",
)
