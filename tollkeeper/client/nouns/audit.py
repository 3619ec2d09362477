"""The audit stream as a noun. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.nouns.shared import TENANT_QUERY
from tollkeeper.client.nouns.verbs import Noun, Verb

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
            query={**TENANT_QUERY, "--actor": "actor", "--action": "action", "--since": "since", "--until": "until"},
            is_list=True,
        ),
    },
)
