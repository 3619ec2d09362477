"""What several nouns have: the tenant that is meant, limits as options and as columns, a grace. Pure."""

from __future__ import annotations

from typing import Final

from tollkeeper.client.columns import Column
from tollkeeper.client.fields import Field, Kind


def limits(*, of: str) -> tuple[Field, ...]:
    """Make the options of the four limits; ``of``: whose calls they bound."""
    rows = (
        ("--requests-per-minute", "requestsPerMinute", f"Most calls in any one minute {of}."),
        ("--requests-per-hour", "requestsPerHour", f"Most calls in any one hour {of}."),
        ("--tokens-per-hour", "tokensPerHour", f"Most tokens in any one hour {of}; of openai publications."),
        ("--burst-limit", "burstLimit", f"Most calls in any one second {of}."),
    )
    return tuple(Field(option, ("rateLimiting", name), Kind.LIMIT, text) for option, name, text in rows)


TENANT_QUERY: Final = {"--tenant": "tenantId"}
WINDOWS: Final = tuple(
    Column(f"rateLimiting.{name}", title)
    for name, title in (("burstLimit", "BURST"), ("requestsPerMinute", "PER MINUTE"), ("requestsPerHour", "PER HOUR"))
)
TOKENS: Final = Column("rateLimiting.tokensPerHour", "TOKENS PER HOUR")
GRACE: Final = Field("--grace-s", ("gracePeriodSeconds",), Kind.NUMBER, "Seconds that the old text stays accepted.")
ROLE: Final = "admin: everything; operator: writes within their tenants; viewer: reads there."
