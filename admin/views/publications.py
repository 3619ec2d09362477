"""A publication with what is known of it now: status, usage and its key as far as it may be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from admin import lookups
from admin.acts.keys import NewText
from admin.http.calls import ApiCall
from admin.http.paging import Page
from admin.schemas.schemas import Damaged, Publication
from admin.services import Services
from admin.views import records as views
from admin.views.keys import reveal
from admin.views.listing import listed
from catalog.keys.keytext import KeyText, mask
from catalog.records import PublicationRecord
from ratelimit.usage.facts import Usage


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a publication beside its record."""

    counted: Usage | None  # None: nobody asked, or it cannot be read
    text: KeyText | None = None  # of its key, where it may be seen


async def facts_of(services: Services, publication: PublicationRecord) -> Facts:
    """Read what is known; the key is masked. Raises ``StoreUnavailable``."""
    subject = f"p:{publication.uid}"
    return Facts((await services.usages([subject], await services.store.now_ms()))[subject])


def facts_of_new(key: NewText) -> Facts:
    """What is known of a publication just made: the whole text of its key, and that nobody called."""
    return Facts(Usage(), key.text)


def shown(services: Services, publication: PublicationRecord, known: Facts) -> Publication:
    """Show a publication. Asks nobody, so that after a commit nothing stands between it and its answer."""
    return views.publication(
        publication,
        gateway=services.gateway,
        api_key=known.text.reveal() if known.text else mask(publication.key_id),
        status=services.publisher.status(publication.uid, publication.version),
        counted=known.counted,
    )


async def show(call: ApiCall, publication: PublicationRecord) -> Publication:
    """Show a publication as it is now, with its key where key recovery is on, which the audit stream then says."""
    services = call.services
    counted = (await facts_of(services, publication)).counted
    key = await lookups.key_of(services.store, publication) if services.mint.recovery else None
    return shown(services, publication, Facts(counted, await reveal(call, key) if key else None))


async def show_page(
    services: Services, page: Page[PublicationRecord], *, with_usage: bool
) -> tuple[list[Publication], list[Damaged]]:
    """Show the publications of a page and what is damaged among them; usage in one round trip, or none."""
    counted: Mapping[str, Usage | None] = {}
    if with_usage and page.records:
        counted = await services.usages([f"p:{one.uid}" for one in page.records], await services.store.now_ms())
    return listed(services.metrics, page, lambda one: shown(services, one, Facts(counted.get(f"p:{one.uid}"))))
