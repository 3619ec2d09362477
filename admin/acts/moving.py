"""Where a model and its publication lead: other servers, while calls run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from admin.acts import publications
from admin.models.discovery import Finding
from admin.schemas.servers import ServerInput
from catalog.records import ModelRecord, PublicationRecord, Server, UpstreamAuth, servers_of


def served_by(model: ModelRecord, servers: Sequence[Server]) -> ModelRecord:
    """Return a model that these serve, without anything that they want; of one server its weight says nothing."""
    several = tuple(servers) if len(servers) > 1 else ()
    return structs.replace(model, url=servers[0].url, servers=several, upstream_auth=None)


def wanted(servers: Sequence[ServerInput]) -> tuple[Server, ...]:
    """The servers that a body names; of one its weight says nothing."""
    named = tuple(Server(one.url, one.weight) for one in servers)
    return named if len(named) > 1 else (Server(named[0].url),)


def moved(model: ModelRecord, finding: Finding | None, now_ms: int) -> ModelRecord:
    """Return a model of other servers as they are. ``finding``: what they said; ``None`` where they were not asked."""
    told = model if finding is None else publications.observed(model, finding, now_ms)
    return structs.replace(told, updated_at_ms=now_ms)


def led(publication: PublicationRecord, model: ModelRecord, now_ms: int) -> PublicationRecord:
    """Return a publication that leads to its model's servers, with what they want and how they call the model."""
    return structs.replace(
        publication,
        url=model.url,
        servers=model.servers,
        upstream_auth=model.upstream_auth,
        model_id=model.model_id,
        updated_at_ms=now_ms,
    )


def called(model: ModelRecord, model_id: str) -> ModelRecord:
    """Return a model that its servers call so."""
    return structs.replace(model, model_id="" if model_id == model.name else model_id)


def new_urls(record: ModelRecord, servers: Iterable[Server]) -> list[str]:
    """The URLs of these that a model does not have yet, in their order."""
    known = {one.url for one in servers_of(record)}
    return [one.url for one in servers if one.url not in known]


def told(record: ModelRecord) -> dict[str, str]:
    """A model's servers as the audit stream tells them."""
    several = " ".join(f"{one.url}*{one.weight}" for one in record.servers)
    auth = told_auth(record.upstream_auth)
    return {"url": record.url, "servers": several, "upstreamAuth": auth, "modelId": record.served_as}


def told_auth(auth: UpstreamAuth | None) -> str:
    """Which header it is and where it is from; never its value, not even sealed."""
    return f"{auth.header} of secret {auth.secret}" if auth and auth.secret else auth.header if auth else ""
