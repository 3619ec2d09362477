"""A key with what is known of it now: what it may call, its usage, and its text as far as it may be seen."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from admin import lookups
from admin.acts import limits
from admin.acts.keys import NewText
from admin.http.calls import ApiCall
from admin.http.paging import Page
from admin.models import naming
from admin.schemas.keys import DeletedKey, Key
from admin.schemas.schemas import Damaged
from admin.services import Services
from admin.views.listing import listed
from admin.views.records import at, at_or_never, usage
from catalog.keys.keytext import KeyText, mask
from catalog.keys.recovery import RecoveryError, decrypt
from catalog.records import KeyRecord, PublicationRecord
from catalog.tombstones import Tombstone
from ratelimit.usage.facts import Usage

_UNUSED: Final = Usage()
_log: Final = logging.getLogger(__name__)


async def show(
    services: Services,
    key: KeyRecord,
    known: Mapping[str, PublicationRecord] | None = None,
    text: KeyText | None = None,
) -> Key:
    """Show a key as it is now. ``known``: its publications where they are at hand; ``text``: the one it may be shown.

    Without a text the masked form of one stands for it.
    """
    if known is None:
        known = await lookups.publications(services.store, key.publications)
    subject = f"k:{key.id}"
    counted = (await services.usages([subject], await services.store.now_ms()))[subject]
    return _shown(key, known.values(), counted, text)


def shown_new(new: NewText, named: Iterable[PublicationRecord]) -> Key:
    """Show a key just made. Asks nobody, so that after the commit nothing stands between it and its answer."""
    return _shown(new.record, named, _UNUSED, new.text)


async def show_page(services: Services, page: Page[KeyRecord], *, with_usage: bool) -> tuple[list[Key], list[Damaged]]:
    """Show the keys of a page and what is damaged among them, texts masked; usage in one round trip, or none."""
    known = await lookups.publications(services.store, {uid for key in page.records for uid in key.publications})
    counted: Mapping[str, Usage | None] = {}
    if with_usage and page.records:
        counted = await services.usages([f"k:{key.id}" for key in page.records], await services.store.now_ms())

    def one(key: KeyRecord) -> Key:
        mine = (known[uid] for uid in key.publications if uid in known)
        return _shown(key, mine, counted.get(f"k:{key.id}"), None)

    return listed(services.metrics, page, one)


async def show_deleted(services: Services, stones: Sequence[Tombstone], *, with_usage: bool) -> list[DeletedKey]:
    """Show what stays of keys; usage in one round trip, or none."""
    counted: Mapping[str, Usage | None] = {}
    if with_usage and stones:
        counted = await services.usages([f"k:{one.id}" for one in stones], await services.store.now_ms())
    return [
        DeletedKey(
            id=one.id,
            tenant_id=one.tenant,
            name=one.name,
            description=one.description or "",
            owner=one.owner or "",
            labels=dict(one.labels or {}),
            api_key=mask(one.id),
            created_at=at(one.created_at_ms),
            deleted_at=at(one.deleted_at_ms),
            deleted_by=one.deleted_by,
            usage=usage(counted.get(f"k:{one.id}")),
        )
        for one in stones
    ]


async def reveal(call: ApiCall, key: KeyRecord) -> KeyText | None:
    """Return the key's text where key recovery is on and has it, once the audit stream says who was shown it.

    Raises ``StoreUnavailable`` where that could not be written down: then nobody is shown anything.
    """
    mint = call.services.mint
    if not mint.recovery or key.recovery is None:
        return None
    try:
        text = decrypt(key.recovery, key.id, mint.secrets)
    except RecoveryError as error:
        _log.warning("the text of key %s cannot be recovered: %s", mask(key.id), error)
        return None
    await call.services.store.note(call.audit("key.reveal", key.id, key.tenant, {"apiKey": mask(key.id)}).note)
    return text


def _shown(key: KeyRecord, known: Iterable[PublicationRecord], counted: Usage | None, text: KeyText | None) -> Key:
    mine = list(known)
    return Key(
        id=key.id,
        tenant_id=key.tenant,
        name=key.name,
        description=key.description or "",
        owner=key.owner or "",
        labels=dict(key.labels or {}),
        api_key=text.reveal() if text else mask(key.id),
        publications=sorted(naming.name_for(key.tenant, one) for one in naming.callable_by(key.tenant, mine)),
        publication_key=any(one.key_id == key.id for one in mine),
        rate_limiting=limits.shown(key.limits),
        expires_at=at_or_never(key.expires_at_ms),
        disabled=key.disabled,
        previous_valid_until=at_or_never(key.previous.valid_until_ms if key.previous else None),
        usage=usage(counted),
        created_at=at(key.created_at_ms),
        updated_at=at(key.updated_at_ms),
    )
