"""Users as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind
from tollkeeper.client.nouns.shared import ROLE
from tollkeeper.client.nouns.verbs import Noun, Verb

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
                Field("--role", ("role",), Kind.TEXT, ROLE, required=True),
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
                Field("--role", ("role",), Kind.TEXT, ROLE),
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
