"""Where a model and its publication lead: other servers, while calls run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from admin.acts import publications
from admin.models.discovery import Finding
from catalog.records import ModelRecord, PublicationRecord, Server, servers_of


def moved(model: ModelRecord, servers: Sequence[Server], finding: Finding | None, now_ms: int) -> ModelRecord:
    """Return a model that these serve. ``finding``: what the first said; ``None`` where it was not asked."""
    told = model if finding is None else publications.observed(model, finding, now_ms)
    return structs.replace(told, **_of(servers), updated_at_ms=now_ms)


def led(publication: PublicationRecord, servers: Sequence[Server], now_ms: int) -> PublicationRecord:
    """Return a publication that leads to these."""
    return structs.replace(publication, **_of(servers), updated_at_ms=now_ms)


def new_urls(record: ModelRecord, servers: Iterable[Server]) -> list[str]:
    """The URLs of these that a model does not have yet, in their order."""
    known = {one.url for one in servers_of(record)}
    return [one.url for one in servers if one.url not in known]


def told(record: ModelRecord) -> dict[str, str]:
    """A model's servers as the audit stream tells them."""
    several = " ".join(f"{one.url}*{one.weight}" for one in record.servers)
    return {"url": record.url, "servers": several}


def _of(servers: Sequence[Server]) -> dict[str, object]:
    """The fields of a record; of one server its weight says nothing."""
    return {"url": servers[0].url, "servers": tuple(servers) if len(servers) > 1 else ()}
