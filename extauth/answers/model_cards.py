"""How models are told to a caller: the bodies of ``GET /v1/models`` and ``GET /v1/models/NAME``. Pure.

In OpenAI's words, or in those of Anthropic's API to who speaks that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from catalog.records import ModelType
from extauth.answers.answers import Denial, limit_headers
from extauth.answers.tags import entity_tag, matches
from extauth.dialects.anthropic import REQUEST_ID, moment
from extauth.dialects.pages import Page, paged
from extauth.listing import Telling
from extauth.records.entries import PublicationEntry
from extauth.request.body import BodyFault
from ratelimit.windows.budgets import Grant

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_CACHE: Final = ("cache-control", "private, no-cache")
"""What a key may call is another key's no business, and changes at any moment: its caller keeps it, and asks again."""
_VARY: Final = ("vary", "anthropic-version")
"""Who sends this header wants another shape of the same."""
_TYPE: Final = ("content-type", "application/json")


class PageError(Exception):
    """The page that was asked for is none of the list."""

    def __init__(self, fault: BodyFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def told(
    telling: Telling, grant: Grant | None, now_ms: int, *, if_none_match: str = "", request_id: str = ""
) -> Denial:
    """Answer a question that fits its budget. ``now_ms`` is the store's clock at the decision.

    ``if_none_match``: the answers that the caller has, by their tags; where this is one of them it is 304.
    ``request_id``: the call's, which Anthropic's API says. Raises ``PageError``.
    """
    page, states = telling.page, grant.states if grant else ()
    if telling.said:
        return Denial(_OK, [_TYPE, _CACHE, *limit_headers(states, now_ms, ModelType.TRADITIONAL)], telling.said)
    body = msgspec.json.encode(_said(telling, page)).decode()
    tag = entity_tag(body)
    limits = limit_headers(states, now_ms, ModelType.OPENAI, is_anthropic=page is not None)
    headers = [_CACHE, _VARY, ("etag", tag), *limits]
    if page is not None and request_id:
        headers.append((REQUEST_ID, request_id))
    if matches(if_none_match, tag):
        return Denial(_NOT_MODIFIED, headers, "")
    return Denial(_OK, [_TYPE, *headers], body)


def _said(telling: Telling, page: Page | None) -> dict[str, object]:
    if page is None:
        return _list(telling) if telling.is_list else _card(*_one(telling))
    return _page(telling, page) if telling.is_list else _anthropic_card(*_one(telling))


def _list(telling: Telling) -> dict[str, object]:
    return {"object": "list", "data": [_card(one, name) for name, one in _sayable(telling).items()]}


def _page(telling: Telling, page: Page) -> dict[str, object]:
    models = _sayable(telling)
    cut = paged(page, [*models])
    if isinstance(cut, BodyFault):
        raise PageError(cut)
    names, has_more = cut
    cards = [_anthropic_card(models[name], name) for name in names]
    first, last = (names[0], names[-1]) if names else (None, None)
    return {"data": cards, "has_more": has_more, "first_id": first, "last_id": last}


def _sayable(telling: Telling) -> Mapping[str, PublicationEntry]:
    """Each name that this caller may say; one that its own models have means these, so they come first."""
    models: dict[str, PublicationEntry] = {}
    for one in sorted(telling.models, key=lambda one: _order(one, telling)):
        for name in _names(one, telling):
            models.setdefault(name, one)
    return models


def _one(telling: Telling) -> tuple[PublicationEntry, str]:
    (one,) = telling.models
    names = _names(one, telling)
    return one, next((name for name in names if name == telling.name), names[0])


def _card(publication: PublicationEntry, name: str) -> dict[str, object]:
    """Describe a model under a name; ``created`` is its publishing, in seconds."""
    record = publication.record
    return {"id": name, "object": "model", "created": record.created_at_ms // 1000, "owned_by": record.tenant}


def _anthropic_card(publication: PublicationEntry, name: str) -> dict[str, object]:
    """The same in Anthropic's words. A model that is here may be called, so it is active."""
    created_at = moment(publication.record.created_at_ms // 1000)
    return {"type": "model", "id": name, "display_name": name, "created_at": created_at, "lifecycle": "active"}


def _names(publication: PublicationEntry, telling: Telling) -> Sequence[str]:
    """What this caller may say: of its own tenant's each name, of another's as ``tenant/name``.

    On a publication's own path all are its own.
    """
    record = publication.record
    if telling.publication is not None or _is_own(publication, telling):
        return record.names
    return [f"{record.tenant}/{name}" for name in record.names]


def _is_own(publication: PublicationEntry, telling: Telling) -> bool:
    return telling.key is not None and telling.key.tenant == publication.record.tenant


def _order(publication: PublicationEntry, telling: Telling) -> tuple[bool, str, str]:
    record = publication.record
    return not _is_own(publication, telling), record.tenant, record.model
