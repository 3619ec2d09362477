"""Keys as a noun; `keys find` is a command of its own. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import GRACE, TENANT_QUERY, TOKENS, WINDOWS, limits
from tollkeeper.client.nouns.verbs import Noun, Verb

_KEY_WORDS: Final = (
    Field(
        "--publication",
        ("publications",),
        Kind.WORDS,
        "Published model that it may call: NAME, or TENANT/NAME; all of them.",
    ),
    *limits(of="of this key alone"),
    Field("--expires-at", ("expiresAt",), Kind.TIME, "When it ends, RFC 3339: 2027-01-31T00:00:00Z."),
    Field("--description", ("description",), Kind.TEXT, "What it is for."),
    Field("--owner", ("owner",), Kind.TEXT, "Who answers for it, in whatever words."),
    Field("--label", ("labels",), Kind.PAIRS, "By which lists are narrowed; all of them, replaced as a whole."),
)

KEYS: Final = Noun(
    "keys",
    "Keys: make, find, rotate, disable, revoke.",
    (
        *(Column("id"), Column("name"), Column("tenantId", "TENANT"), Column("owner"), Column("apiKey", "KEY")),
        *(Column("publications"), *WINDOWS, TOKENS, Column("expiresAt", "EXPIRES"), Column("disabled")),
    ),
    {
        "list": Verb(
            "GET",
            "/api/keys",
            "List keys, those that publications were born with among them.",
            query={**TENANT_QUERY, "--model": "model", "--name": "name", "--label-selector": "labelSelector"},
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
            (GRACE,),
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
            query=TENANT_QUERY,
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
