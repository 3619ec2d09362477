"""How models are told to a caller: the bodies of OpenAI's ``GET /v1/models`` and ``GET /v1/models/NAME``. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from catalog.records import ModelType
from extauth.answers.answers import Denial, limit_headers
from extauth.answers.tags import entity_tag, matches
from extauth.listing import Telling
from extauth.records.entries import PublicationEntry
from ratelimit.windows.budgets import Grant

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_CACHE: Final = ("cache-control", "private, no-cache")
"""What a key may call is another key's no business, and changes at any moment: its caller keeps it, and asks again."""
_VARY: Final = ("vary", "anthropic-version")
"""Who sends this header wants another shape of the same."""
_TYPE: Final = ("content-type", "application/json")


def told(telling: Telling, grant: Grant | None, now_ms: int, if_none_match: str = "") -> Denial:
    """Answer a question that fits its budget. ``now_ms`` is the store's clock at the decision.

    ``if_none_match``: the answers that the caller has, by their tags; where this is one of them it is 304.
    """
    told = {"object": "list", "data": _cards(telling)} if telling.is_list else _card_of_one(telling)
    body = json.dumps(told, separators=(",", ":"))
    tag = entity_tag(body)
    states = grant.states if grant else ()
    headers = [_CACHE, _VARY, ("etag", tag), *limit_headers(states, now_ms, ModelType.OPENAI)]
    if matches(if_none_match, tag):
        return Denial(_NOT_MODIFIED, headers, "")
    return Denial(_OK, [_TYPE, *headers], body)


def _cards(telling: Telling) -> list[dict[str, object]]:
    """A card for each name that this caller may say; one that its own models have means these, so they come first."""
    cards: dict[str, dict[str, object]] = {}
    for one in sorted(telling.models, key=lambda one: _order(one, telling)):
        for name in _names(one, telling):
            cards.setdefault(name, _card(one, name))
    return [*cards.values()]


def _card_of_one(telling: Telling) -> dict[str, object]:
    (one,) = telling.models
    names = _names(one, telling)
    return _card(one, next((name for name in names if name == telling.name), names[0]))


def _card(publication: PublicationEntry, name: str) -> dict[str, object]:
    """Describe a model under a name; ``created`` is its publishing, in seconds."""
    record = publication.record
    return {"id": name, "object": "model", "created": record.created_at_ms // 1000, "owned_by": record.tenant}


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
