"""What the API takes and gives about service accounts. Tokens come out once and never go in."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from admin.schemas.fields import Description, Input, NewUserName, Output, Time, UserTenants
from admin.schemas.schemas import Damaged
from catalog.records import Role


class ServiceAccountInput(Input):
    """Body that makes a service account."""

    name: NewUserName
    """What the audit stream calls it; it stands in its tokens, and cannot be changed."""
    role: Role
    """admin: everything; operator: writes within its tenants; viewer: reads within its tenants."""
    tenants: UserTenants = ()
    """Names, or * alone for every tenant. An admin has every tenant; any other account needs one at least."""
    expires_at: Time | None = None
    """When it ends, whatever token it has; null: never."""
    description: Description = ""
    """What it is for."""
    disabled: bool = False
    """Its tokens are refused."""


class ServiceAccountChange(Input):
    """Body that changes a service account. What is absent is kept."""

    role: Role = Role.VIEWER
    """It binds its next request."""
    tenants: UserTenants = ()
    """It binds its next request; needed with a role that is not admin, where it was one."""
    expires_at: Time | None = None
    """When it ends, whatever token it has; null: never."""
    description: Description = ""
    """What it is for."""
    disabled: bool = False
    """Its tokens are refused until this is false again."""


class ServiceAccount(Output):
    """Who calls the API without logging in: the command line, cron, a build."""

    name: str
    role: Role
    tenants: list[str]
    """Names; * is every tenant."""
    description: str
    token: str
    """Whole when it was just made, else masked: tka_NAME_…"""
    disabled: bool
    expires_at: datetime | None
    previous_valid_until: datetime | None
    """When the grace of the token before ends; null: there is none in grace."""
    last_used_at: datetime | None
    """A minute late at most; null: not in the last 13 months."""
    created_at: datetime
    updated_at: datetime


class ServiceAccounts(Output):
    """A page of service accounts."""

    items: list[ServiceAccount]
    damaged: list[Damaged] = Field(default_factory=list)
    """Those of the page that cannot be read: users and service accounts, which cannot be told apart then."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""
