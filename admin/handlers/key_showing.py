"""A key with what is known of it now: what it may call, its usage, and its text as far as it may be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from admin import lookups, naming
from admin.acts import limits
from admin.acts.keys import Mint, NewText
from admin.handlers.views import at, at_or_never, usage
from admin.key_schemas import Key
from admin.services import Services
from catalog.keytext import KeyText, mask
from catalog.records import KeyRecord, PublicationRecord
from catalog.recovery import RecoveryError, decrypt
from ratelimit.usage import Usage

_AT_ONCE: Final = 20
_UNUSED: Final = Usage()
_log: Final = logging.getLogger(__name__)


async def show(
    services: Services,
    key: KeyRecord,
    known: Mapping[str, PublicationRecord] | None = None,
    text: KeyText | None = None,
) -> Key:
    """Show a key as it is now. ``known``: its publications where they are at hand; ``text``: one just made."""
    if known is None:
        known = await lookups.publications(services.store, key.publications)
    counted = await services.usage(f"k:{key.id}", await services.store.now_ms())
    return _shown(key, known.values(), counted, text.reveal() if text else visible_text(key, services.mint))


def shown_new(new: NewText, named: Iterable[PublicationRecord]) -> Key:
    """Show a key just made. Asks nobody, so that after the commit nothing stands between it and its answer."""
    return _shown(new.record, named, _UNUSED, new.text.reveal())


async def show_all(services: Services, keys: Sequence[KeyRecord]) -> list[Key]:
    """Show keys in their order, a bounded number of questions to the store at once."""
    known = await lookups.publications(services.store, {uid for key in keys for uid in key.publications})
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(key: KeyRecord) -> Key:
        async with slots:
            return await show(services, key, {uid: known[uid] for uid in key.publications if uid in known})

    return list(await asyncio.gather(*map(one, keys)))


def visible_text(key: KeyRecord, mint: Mint) -> str:
    """The key's text where key recovery is on and has it, else its masked form."""
    masked = mask(key.id)
    if not mint.recovery or key.recovery is None:
        return masked
    try:
        return decrypt(key.recovery, key.id, mint.secrets).reveal()
    except RecoveryError as error:
        _log.warning("the text of key %s cannot be recovered: %s", masked, error)
        return masked


def _shown(key: KeyRecord, known: Iterable[PublicationRecord], counted: Usage, api_key: str) -> Key:
    mine = list(known)
    return Key(
        id=key.id,
        tenant_id=key.tenant,
        name=key.name,
        api_key=api_key,
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
