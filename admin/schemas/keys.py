"""What the calls about keys take and give; as ``admin.schemas.schemas``, which has everything else."""

from __future__ import annotations

import enum
from datetime import datetime

from pydantic import Field

from admin.schemas.fields import (
    Description,
    Input,
    KeyName,
    Labels,
    Output,
    OwnerText,
    PublicationNames,
    TenantName,
    Time,
)
from admin.schemas.schemas import Damaged, RateLimiting, RateLimitingInput, SecretText, UsageAnswer, WarningAnswer


class KeyTextState(enum.StrEnum):
    """What a text is to the key that it was made for."""

    CURRENT = "current"
    PREVIOUS = "previous"  # its grace lasts
    FORMER = "former"  # it was replaced, and opens nothing
    MASKED = "masked"  # the beginning of a text, which others of its tenant may share


class KeyInput(Input):
    """Body that makes a key."""

    tenant_id: TenantName = ""
    """Whose calls it makes; left out: the only tenant of who asks, of several the one named default."""
    name: KeyName
    publications: PublicationNames
    """Published models it may call: a name of the key's own tenant's, or TENANT/NAME of one that allows the tenant."""
    rate_limiting: RateLimitingInput = RateLimitingInput()
    """Budgets of this key alone, besides its tenant's and the publication's; unlimited unless given."""
    expires_at: Time | None = None
    """When it stops being accepted; null: never."""
    description: Description = ""
    """What it is for."""
    owner: OwnerText = ""
    """Who answers for it, in whatever words."""
    labels: Labels = Field(default_factory=dict)
    """By which a list can be narrowed (labelSelector); keys and values by Kubernetes' rules."""


class KeyChange(Input):
    """Body that changes a key: what is absent is kept."""

    name: KeyName = ""
    publications: PublicationNames = ()
    """All the published models it may call from now on."""
    rate_limiting: RateLimitingInput = RateLimitingInput()
    expires_at: Time | None = None
    """When it stops being accepted; null: never."""
    disabled: bool = False
    """It is refused until this is false again."""
    description: Description = ""
    """What it is for."""
    owner: OwnerText = ""
    """Who answers for it, in whatever words."""
    labels: Labels = Field(default_factory=dict)
    """Replaced as a whole."""


class FindInput(Input):
    """Body that asks whose a key is."""

    api_key: SecretText
    """A whole text, or its beginning as it is shown masked: tk_0a1q7x…"""


class Key(Output):
    """A key and what it may do."""

    id: str
    tenant_id: str
    name: str
    description: str
    """What it is for; empty where nobody said."""
    owner: str
    """Who answers for it; empty where nobody said."""
    labels: dict[str, str]
    api_key: str
    """Whole when it was just made; masked afterwards, but in a GET of this one where key recovery is on, which the
    audit stream then says."""
    publications: list[str]
    """Published models it may call now: NAME of its own tenant's, TENANT/NAME of others'."""
    publication_key: bool
    """Whether it was born with a publication, and dies with it."""
    rate_limiting: RateLimiting
    expires_at: datetime | None
    disabled: bool
    previous_valid_until: datetime | None
    """When the grace of the text before ends; null: there is none in grace."""
    usage: UsageAnswer | None
    """Null in a list unless ?usage=true asks for it, and where the counters cannot be read."""
    created_at: datetime
    updated_at: datetime
    warnings: list[WarningAnswer] = Field(default_factory=list)
    """What the call that is answered was allowed and will hardly mean; empty in answers that only show."""


class DeletedKey(Output):
    """What stays of a key that was deleted, for 13 months, as its usage does."""

    id: str
    tenant_id: str
    name: str
    description: str
    owner: str
    labels: dict[str, str]
    api_key: str
    """Masked."""
    created_at: datetime
    deleted_at: datetime
    deleted_by: str
    """The user's name."""
    usage: UsageAnswer | None
    """Null in a list unless ?usage=true asks for it, and where the counters cannot be read."""


class DeletedKeys(Output):
    """A page of deleted keys, the newest first."""

    items: list[DeletedKey]
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""


class FoundKey(Output):
    """A key that was asked for by its text."""

    key: Key | None
    """Null where it was deleted."""
    deleted: DeletedKey | None
    """Null where it was not."""
    text: KeyTextState
    """Of the text that was given: current, previous (in its grace), former (replaced since), or masked."""


class FoundKeys(Output):
    """The keys that a text may be of, among those of the caller's tenants: one, or a few of a masked text."""

    items: list[FoundKey]
    damaged: list[Damaged]
    """Those that begin so and cannot be read; told to admins, who may delete them."""


class Keys(Output):
    """A page of keys."""

    items: list[Key]
    damaged: list[Damaged]
    """Those of the page that cannot be read; told to admins."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""
