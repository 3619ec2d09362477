"""How models are told to a caller: the bodies of OpenAI's ``GET /v1/models`` and ``GET /v1/models/NAME``. Pure."""

from __future__ import annotations

import json
from typing import Final

from catalog.records import ModelType
from extauth.answers.answers import Denial, limit_headers
from extauth.listing import Telling
from extauth.records.entries import PublicationEntry
from ratelimit.windows.budgets import Grant

_OK: Final = 200
_HEADERS: Final = [("content-type", "application/json"), ("cache-control", "no-store")]
"""What a key may call is another key's no business, and may change at any moment."""


def told(telling: Telling, grant: Grant | None, now_ms: int) -> Denial:
    """Answer a question that fits its budgets. ``now_ms`` is the store's clock at the decision."""
    cards = [_card(one, telling) for one in sorted(telling.models, key=lambda one: _order(one, telling))]
    body = {"object": "list", "data": cards} if telling.is_list else cards[0]
    states = grant.states if grant else ()
    headers = _HEADERS + limit_headers(states, now_ms, ModelType.OPENAI)
    return Denial(_OK, headers, json.dumps(body, separators=(",", ":")))


def _card(publication: PublicationEntry, telling: Telling) -> dict[str, object]:
    """Describe a model under the name by which this caller calls it; ``created`` is its publishing, in seconds."""
    record = publication.record
    return {
        "id": _name(publication, telling),
        "object": "model",
        "created": record.created_at_ms // 1000,
        "owned_by": record.tenant,
    }


def _name(publication: PublicationEntry, telling: Telling) -> str:
    """Its own tenant's by name, another's as ``tenant/name``; on a publication's own path its name alone."""
    record = publication.record
    is_own = telling.publication is not None or (telling.key and telling.key.tenant == record.tenant)
    return record.model if is_own else f"{record.tenant}/{record.model}"


def _order(publication: PublicationEntry, telling: Telling) -> tuple[bool, str]:
    """The caller's own first."""
    name = _name(publication, telling)
    return "/" in name, name
