"""What the API takes and gives about users. Passwords go in and never come out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr

from admin.schemas.fields import MAX_SECRET_TEXT, Input, NewPassword, NewUserName, Output, UserTenants
from admin.schemas.schemas import Damaged
from catalog.records import Role


class UserInput(Input):
    """Body that makes a user."""

    name: NewUserName
    """What he logs in with; it cannot be changed."""
    password: NewPassword
    """His first password. It cannot be read."""
    role: Role
    """admin: everything; operator: writes within his tenants; viewer: reads within his tenants."""
    tenants: UserTenants = ()
    """Names, or * alone for every tenant. An admin has every tenant; any other user needs one at least."""
    disabled: bool = False
    """He cannot log in."""


class UserChange(Input):
    """Body that changes a user. What is absent is kept."""

    password: NewPassword = SecretStr("")
    """A new password: every token of his dies."""
    role: Role = Role.VIEWER
    """It binds his next request."""
    tenants: UserTenants = ()
    """It binds his next request; needed with a role that is not admin, where he was one."""
    disabled: bool = False
    """He cannot log in; every token of his dies."""


class PasswordInput(Input):
    """Body that changes one's own password."""

    current_password: Annotated[SecretStr, Field(min_length=1, max_length=MAX_SECRET_TEXT)]
    new_password: NewPassword


class UserAccount(Output):
    """A user."""

    name: str
    role: Role
    tenants: list[str]
    """Names; * is every tenant."""
    disabled: bool
    service: bool
    """Whether it is a service account, which has a token of its own and does not log in."""
    created_at: datetime
    updated_at: datetime


class UserAccounts(Output):
    """A page of users."""

    items: list[UserAccount]
    damaged: list[Damaged]
    """Those of the page that cannot be read."""
    next: str | None
    """Give it as cursor to get the next page; null: this is the last."""
