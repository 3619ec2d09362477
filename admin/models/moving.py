"""Changing where a model leads: its servers are asked first, then model and publication change in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import differences, moving, publications, rules
from admin.acts.differences import CHANGED
from admin.acts.hosts import Site
from admin.acts.tenants import NOT_ALLOWED
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.models import credentials
from admin.models.addresses import is_listed, parse_target
from admin.models.discovery import Finding, as_known, of_several, unlike, unlocked
from admin.models.probing import Auth
from admin.models.servers import standings_of
from admin.models.sites import free_site
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

EITHER: Final = Fault("servers", Rule.FORMAT, "give url or servers, not both")
_FOLLOWED: Final = "is what its InferenceService says"
_DROPPED: Final = "; a new server gets upstreamAuth only where it is sent again"
_NEW_VALUE: Final = {"upstreamAuth.value": CHANGED}


async def change_servers(call: ApiCall, body: ModelChange) -> ModelRecord:
    """Read, ask, decide and commit once; returns the model as it is stored then."""
    store = call.services.store
    old = await lookups.model(store, call.caller, call.path["m"], call.query.get("tenantId"))
    call.require_match(old)
    wanted = _wanted(body, old)
    called = _called(body, old)
    if wanted == servers_of(old) and called == old and not _changes_auth(body, old):
        return old
    owner = await _owner_who_may(call, body, old, wanted)
    published = await _publication(call, old)
    target, auth = _with_auth(call, body, called, wanted)
    asked = _new_to(body, old, target)
    findings = await _findings(call, target, auth, published) if asked or _is_relieved(old, target) else {}
    if published is not None:
        hint = _DROPPED if _drops(body, old, target) else ""
        held = {url: findings[url] for url in asked}
        _require_ready(held if called != old else _held(held, old), published, hint=hint)
    now_ms = await store.now_ms()
    new = moving.moved(target, as_known(of_several(findings), target) if findings else None, now_ms)
    changes: list[Change] = [Put(new, old.version), Check.of(owner)]
    if published is not None:
        changes += await _led(call, published, new, now_ms)
    detail = differences.between(moving.told(old), moving.told(new)) | (_NEW_VALUE if body.upstream_auth else {})
    await call.services.committer.commit(changes, call.audit("model.change", new.id, new.tenant, detail))
    return structs.replace(new, version=old.version + 1)


async def ask_servers(call: ApiCall, model: ModelRecord, wanted: ModelType | None) -> Mapping[str, Finding]:
    """Ask each of a model's servers, at once; by URL. A type given now goes before one given at registering."""
    return await _ask(call, model, wanted, credentials.auth_of(model, call.services.secrets.current()))


async def _ask(call: ApiCall, model: ModelRecord, wanted: ModelType | None, auth: Auth | None) -> Mapping[str, Finding]:
    said = wanted or (model.type if model.type_given else None)
    asked = [one.url for one in servers_of(model)]
    prober = call.services.prober
    ask = prober.ask_grpc if model.protocol is Protocol.GRPC else prober.ask
    findings = await asyncio.gather(*(ask(url, model.served_as, said, auth) for url in asked))
    if model.upstream_auth and model.upstream_auth.secret:
        findings = [unlocked(finding, said) for finding in findings]
    return dict(zip(asked, findings, strict=True))


def _called(body: ModelChange, old: ModelRecord) -> ModelRecord:
    """The model as its servers call it from now on; raises ``Problem`` where that is not this call's to say."""
    called = moving.called(old, body.model_id) if "model_id" in body.model_fields_set else old
    if called != old and old.source is Source.KUBERNETES:
        raise invalid(Code.INVALID_REQUEST, [Fault("modelId", Rule.FIXED, _FOLLOWED)])
    return called


def _changes_auth(body: ModelChange, old: ModelRecord) -> bool:
    """Whether the body says something new of what servers want; a value that is sent is taken for a new one."""
    return "upstream_auth" in body.model_fields_set and (body.upstream_auth, old.upstream_auth) != (None, None)


def _with_auth(
    call: ApiCall, body: ModelChange, old: ModelRecord, wanted: Sequence[Server]
) -> tuple[ModelRecord, Auth | None]:
    """The model of these servers, with what they get from now on, sealed and as it is sent."""
    target, secrets = moving.served_by(old, wanted), call.services.secrets.current()
    if body.upstream_auth is not None:
        credential: credentials.Credential | None = credentials.given(call, body.upstream_auth, target)
    elif "upstream_auth" in body.model_fields_set:
        credential = None
    else:
        credential = credentials.kept(old, target, secrets)
    if credential is None:
        return target, None
    return structs.replace(target, upstream_auth=credential.record), credential.auth


def _wanted(body: ModelChange, old: ModelRecord) -> tuple[Server, ...]:
    """The servers that are wanted; raises ``Problem`` where they are not this call's to say."""
    given = body.model_fields_set & {"url", "servers"}
    if len(given) > 1:
        raise invalid(Code.INVALID_REQUEST, [EITHER])
    if given and old.source is Source.KUBERNETES:
        raise invalid(Code.INVALID_REQUEST, [Fault(next(iter(given)), Rule.FIXED, _FOLLOWED)])
    if "url" in given:
        return (Server(body.url),)
    if "servers" not in given:
        return servers_of(old)
    return moving.wanted(body.servers)


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


def _new_to(body: ModelChange, old: ModelRecord, target: ModelRecord) -> list[str]:
    """The servers that are new, or get something else from now on."""
    if body.upstream_auth is not None or _drops(body, old, target) or target.model_id != old.model_id:
        return [one.url for one in servers_of(target)]
    return moving.new_urls(old, servers_of(target))


def _is_relieved(old: ModelRecord, target: ModelRecord) -> bool:
    """Whether a model that is not ready loses a server: that one may be why."""
    return not old.ready and bool(moving.new_urls(target, servers_of(old)))


def _held(findings: Mapping[str, Finding], old: ModelRecord) -> Mapping[str, Finding]:
    """Those that must be ready: servers that are new, and of those that stay the ones that refuse what they get now."""
    new = set(moving.new_urls(old, map(Server, findings)))
    return {url: finding for url, finding in findings.items() if url in new or finding.is_locked}


def _drops(body: ModelChange, old: ModelRecord, target: ModelRecord) -> bool:
    """Whether servers lose what they got although nobody said so."""
    is_said = "upstream_auth" in body.model_fields_set
    return not is_said and old.upstream_auth is not None and target.upstream_auth is None


async def _findings(
    call: ApiCall, target: ModelRecord, auth: Auth | None, published: PublicationRecord | None
) -> Mapping[str, Finding]:
    is_plain = published is not None and published.protocol is Protocol.HTTP
    return await _ask(call, target, ModelType.TRADITIONAL if is_plain else _known_type(target, published), auth)


def _require_ready(findings: Mapping[str, Finding], published: PublicationRecord, *, hint: str) -> None:
    """Raise ``Problem`` where callers would meet a server that cannot take their calls."""
    for url, finding in findings.items():
        if fault := unlike(finding, published.type, published.protocol):
            raise Problem(Code.MODEL_NOT_READY, f"Model is not ready: {url}: {fault}{hint}; nothing was changed")


def _known_type(target: ModelRecord, published: PublicationRecord | None) -> ModelType | None:
    """The type by which a server is taken for ready that tells nothing without a key which only the gateway has."""
    has_secret = target.upstream_auth is not None and bool(target.upstream_auth.secret)
    return published.type if published is not None and has_secret else None


async def _led(call: ApiCall, old: PublicationRecord, model: ModelRecord, now_ms: int) -> list[Change]:
    """The changes of a publication whose model has other servers now."""
    new = moving.led(old, model, now_ms)
    if model.context_tokens is not None and model.context_tokens != old.server_context_tokens:
        new = publications.following_context(new, model.context_tokens, now_ms)
    store, sites = call.services.store, dict[str, Site]()
    if new.names != old.names:
        if faults := [*rules.name_faults(new, rewrites=call.services.publisher.rewrites)]:
            raise invalid(Code.INVALID_REQUEST, faults)
        sites[new.host] = await free_site(store, call.caller, new, old)
    return publications.update(old, new, sites, await standings_of(store, old, new))
