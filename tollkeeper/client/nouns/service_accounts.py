"""Service accounts as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import GRACE, ROLE
from tollkeeper.client.nouns.verbs import Noun, Verb

_SERVICE_FIELDS: Final = (
    Field("--tenant", ("tenants",), Kind.WORDS, "Tenant of its; * alone is every tenant."),
    Field("--expires-at", ("expiresAt",), Kind.TIME, "When it ends, RFC 3339: 2027-01-31T00:00:00Z."),
    Field("--description", ("description",), Kind.TEXT, "What it is for."),
    Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "Whether its tokens are refused."),
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
            (Field("--role", ("role",), Kind.TEXT, ROLE, required=True), *_SERVICE_FIELDS),
            argument="NAME",
            argument_field="name",
            shown_once="token",
        ),
        "update": Verb(
            "PATCH",
            "/api/service-accounts/{name}",
            "Change a service account; what is not given stays.",
            (Field("--role", ("role",), Kind.TEXT, ROLE), *_SERVICE_FIELDS),
            argument="NAME",
        ),
        "rotate": Verb(
            "POST",
            "/api/service-accounts/{name}/rotate",
            "Give it a new token; the old one dies now unless it gets a grace.",
            (GRACE,),
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
