"""Service accounts as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from admin.acts.people.services import access_of
from admin.schemas.services import ServiceAccount
from admin.views.records import at, at_or_never
from catalog.keys.keytext import KeyText
from catalog.keys.servicetext import PREFIX
from catalog.records import UserRecord


def service_account(account: UserRecord, used_ms: Mapping[str, int], text: KeyText | None = None) -> ServiceAccount:
    """An account as it is shown; ``text``: its token, where it was just made."""
    access = access_of(account)
    last_ms = used_ms.get(account.id)
    if last_ms is not None and last_ms < account.created_at_ms:  # of one before that had the name
        last_ms = None
    return ServiceAccount(
        name=account.id,
        role=account.role,
        tenants=list(account.tenants),
        description=access.description,
        token=f"{PREFIX}{account.id}_…" if text is None else text.reveal(),
        disabled=account.disabled,
        expires_at=at_or_never(access.expires_at_ms),
        previous_valid_until=at_or_never(access.previous.valid_until_ms if access.previous else None),
        last_used_at=at_or_never(last_ms),
        created_at=at(account.created_at_ms),
        updated_at=at(account.updated_at_ms),
    )
