"""Changing where a model leads: its servers are asked first, then model and publication change in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import differences, moving, publications, servers
from admin.acts.tenants import NOT_ALLOWED
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.models.addresses import is_listed, parse_target
from admin.models.discovery import Finding, of_several, unlike
from admin.models.servers import standings_of
from admin.schemas.servers import ModelChange
from catalog.changes import Change, Check, Put
from catalog.records import (
    Kind,
    ModelRecord,
    ModelType,
    Protocol,
    PublicationRecord,
    Role,
    Server,
    Source,
    TenantRecord,
    servers_of,
)

_EITHER: Final = Fault("servers", Rule.FORMAT, "give url or servers, not both")
_FOLLOWED: Final = "is what its InferenceService says"


async def change_servers(call: ApiCall, body: ModelChange) -> ModelRecord:
    """Read, ask, decide and commit once; returns the model as it is stored then."""
    store = call.services.store
    old = await lookups.model(store, call.caller, call.path["m"], call.query.get("tenantId"))
    call.require_match(old)
    wanted = _wanted(body, old)
    if wanted == servers_of(old):
        return old
    owner = await _owner_who_may(call, body, old, wanted)
    published = await _publication(call, old)
    finding = await _finding(call, old, wanted, published)
    now_ms = await store.now_ms()
    new = moving.moved(old, wanted, finding, now_ms)
    changes: list[Change] = [Put(new, old.version), Check.of(owner)]
    if published is not None:
        changes += await _led(call, published, new, now_ms)
    detail = differences.between(moving.told(old), moving.told(new))
    await call.services.committer.commit(changes, call.audit("model.change", new.id, new.tenant, detail))
    return structs.replace(new, version=old.version + 1)


async def ask_servers(
    call: ApiCall, model: ModelRecord, asked: Sequence[Server], wanted: ModelType | None
) -> Mapping[str, Finding]:
    """Ask each of a model's servers, at once; by URL. A type given now goes before one given at registering."""
    said = wanted or (model.type if model.type_given else None)
    findings = await asyncio.gather(*(call.services.prober.ask(one.url, model.name, said) for one in asked))
    return {one.url: finding for one, finding in zip(asked, findings, strict=True)}


def _wanted(body: ModelChange, old: ModelRecord) -> tuple[Server, ...]:
    """The servers that are wanted; raises ``Problem`` where they are not this call's to say."""
    given = body.model_fields_set & {"url", "servers"}
    if len(given) > 1:
        raise invalid(Code.INVALID_REQUEST, [_EITHER])
    if given and old.source is Source.KUBERNETES:
        raise invalid(Code.INVALID_REQUEST, [Fault(next(iter(given)), Rule.FIXED, _FOLLOWED)])
    if "url" in given:
        return (Server(body.url),)
    if "servers" not in given:
        return servers_of(old)
    named = tuple(Server(one.url, one.weight) for one in body.servers)
    return named if len(named) > 1 else (Server(named[0].url),)


async def _owner_who_may(call: ApiCall, body: ModelChange, old: ModelRecord, wanted: Iterable[Server]) -> TenantRecord:
    """Return the model's tenant; raises ``Problem`` where the caller may not have it lead to one of these servers."""
    owner = await lookups.require_tenant(call.services.store, call.caller, old.tenant, "tenantId")
    new = moving.new_urls(old, wanted)
    if call.caller.role is not Role.ADMIN:
        refused = [url for url in new if not is_listed(parse_target(url), owner.upstream_allow)]
        fields = ["url"] if "url" in body.model_fields_set else [_field(body, url) for url in refused]
        if refused:
            raise invalid(Code.INVALID_REQUEST, [Fault(field, Rule.RESERVED, NOT_ALLOWED) for field in fields])
    return owner


def _field(body: ModelChange, url: str) -> str:
    return f"servers[{next(index for index, one in enumerate(body.servers) if one.url == url)}].url"


async def _publication(call: ApiCall, model: ModelRecord) -> PublicationRecord | None:
    if model.publication is None:
        return None
    return await lookups.record(call.services.store, Kind.PUBLICATION, model.publication, PublicationRecord)


async def _finding(
    call: ApiCall, old: ModelRecord, wanted: Sequence[Server], published: PublicationRecord | None
) -> Finding | None:
    """What the servers are together; ``None`` where none of them is new. A new one that callers meet must be ready."""
    new = moving.new_urls(old, wanted)
    if not new:
        return None
    is_plain = published is not None and published.protocol is Protocol.HTTP
    findings = await ask_servers(call, old, wanted, ModelType.TRADITIONAL if is_plain else None)
    if published is not None:
        for url in new:
            if fault := unlike(findings[url], published.type, published.protocol):
                raise Problem(Code.MODEL_NOT_READY, f"Model is not ready: {url}: {fault}; nothing was changed")
    return of_several(findings)


async def _led(call: ApiCall, old: PublicationRecord, model: ModelRecord, now_ms: int) -> list[Change]:
    """The changes of a publication whose model has other servers now."""
    new = moving.led(old, servers_of(model), now_ms)
    if model.context_tokens is not None and model.context_tokens != old.server_context_tokens:
        new = publications.following_context(new, model.context_tokens, now_ms)
    return [Put(new, old.version), *servers.moved(old, new, await standings_of(call.services.store, old, new))]
