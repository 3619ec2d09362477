"""Tenants as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import TOKENS, WINDOWS, limits
from tollkeeper.client.nouns.verbs import Noun, Verb

_TENANT_FIELDS: Final = (
    *limits(of="of all the tenant's keys together"),
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
        *WINDOWS,
        TOKENS,
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
