"""Publishing a model, and changing how it is published."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from admin import lookups
from admin.acts import differences, publications, rules, warnings
from admin.acts.hosts import Site
from admin.acts.keys import NewText, publication_key
from admin.committing import until_settled
from admin.handlers.models import ask, ask_context
from admin.http.bodies import Body
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.models import cells, granting, servers
from admin.models.credentials import auth_of
from admin.models.discovery import UNRECOGNISED, Finding
from admin.models.sites import free_site, site_of
from admin.schemas.schemas import ConfigInput, PublishInput, WarningAnswer
from admin.views.publications import facts_of, facts_of_new, shown
from catalog.ids import shard_of
from catalog.keys.keytext import mask
from catalog.records import Kind, ModelRecord, ModelType, PublicationRecord, servers_of
from catalog.store.store import NoRoom

_TENANT_FIELD: Final = "config.tenantId"
_PUBLISHED_SO: Final = "update it with PUT, or DELETE it first; a lost key is replaced by rotate-key"
_SAY_TYPE: Final = Fault("config.modelType", Rule.REQUIRED, "must be given, for a server of neither protocol")


@dataclass(frozen=True, slots=True)
class _Wish:
    """A config as far as it is good, and its faults so far."""

    config: ConfigInput
    faults: tuple[Fault, ...]

    def require_good(self, *more: Fault) -> None:
        """Raise ``Problem`` naming every fault there is."""
        if faults := [*self.faults, *more]:
            raise invalid(Code.INVALID_CONFIG, faults)

    def plus(self, faults: Sequence[Fault]) -> _Wish:
        """The same with more faults."""
        return _Wish(self.config, (*self.faults, *faults))

    @property
    def wanted(self) -> ModelType | None:
        """The type that was given."""
        return self.config.model_type if "model_type" in self.config.model_fields_set else None


async def _read_wish(call: ApiCall) -> _Wish:
    """Read the body and check what needs no model."""
    body: Body[PublishInput] = call.partial_body(PublishInput)
    if body.model is None:
        raise invalid(Code.INVALID_CONFIG, body.faults)
    config = body.model.config
    faults = rules.faults_of(config, allow_anonymous=call.services.allow_anonymous)
    return _Wish(config, (*body.faults, *faults))


async def _tenant_faults(call: ApiCall, config: ConfigInput, kept: Collection[str] = ()) -> list[Fault]:
    """Say which allowed tenants are none for the caller; those that are allowed already (``kept``) may stay."""
    known = await lookups.known_tenants(call.services.store, call.caller, config.authentication.allowed_tenants)
    return list(rules.tenant_faults(config, {*known, *kept}))


async def publish(call: ApiCall) -> Reply:
    """Put a model before callers."""
    wish = await _read_wish(call) if call.raw_body else _Wish(ConfigInput(), ())
    wish = wish.plus(await _tenant_faults(call, wish.config))
    config, default_host = wish.config, call.services.gateway.default_host
    model = await _model_to_publish(call, wish)
    host = config.public_hostname or default_host
    faults = await granting.host_faults(call, model.tenant, host)
    if config.external_path:
        faults += rules.place_faults(config, host, config.external_path, default_host)
    wish.require_good(*faults, *await _cell_faults(call, config, model.tenant))
    _require_unpublished(model)
    await _require_room(call)
    finding = await _require_ready(call, model, wish.wanted)
    warned = await _host_warnings(call, host)
    made, key = await until_settled(lambda: _publish(call, wish, model, finding))
    warned += warnings.of_publication(config, made)
    answer = shown(call.services, made, facts_of_new(key)).model_copy(update={"warnings": warned})
    return Reply(201, answer, {"Cache-Control": "no-store", **tagged(made)})


async def _host_warnings(call: ApiCall, host: str) -> list[WarningAnswer]:
    """Say where a host has no address; asked before the commit, so that nothing stands between that and its answer."""
    gateway = call.services.gateway
    is_reached = host == gateway.default_host and bool(gateway.default_urls)
    if is_reached or not await call.services.host_names.is_nowhere(host):
        return []
    return [warnings.host_unresolved()]


async def _model_to_publish(call: ApiCall, wish: _Wish) -> ModelRecord:
    """Find the model in the tenant that was named, else among all the caller's."""
    owner = wish.config.tenant_id
    if _is_faulty(wish, _TENANT_FIELD):
        wish.require_good()
    if owner and not await _is_tenant(call, owner):
        wish.require_good(Fault(_TENANT_FIELD, Rule.EXISTS, "there is no such tenant"))
    asked = call.query.get("tenantId")
    if owner and asked not in {None, owner}:
        wish.require_good(Fault(_TENANT_FIELD, Rule.FIXED, "is another than ?tenantId"))
    return await lookups.model(call.services.store, call.caller, call.path["m"], owner or asked)


def _is_faulty(wish: _Wish, field: str) -> bool:
    return any(fault.field == field for fault in wish.faults)


async def _is_tenant(call: ApiCall, name: str) -> bool:
    return bool(await lookups.known_tenants(call.services.store, call.caller, [name]))


def _require_unpublished(model: ModelRecord) -> None:
    if model.publication:
        raise Problem(Code.ALREADY_PUBLISHED, f"{model.id} is published: {_PUBLISHED_SO}")


async def _require_room(call: ApiCall) -> None:
    """Refuse what would make every change of the gateway too slow; of several at once a few may pass."""
    most = call.services.publisher.most
    if most is not None and await call.services.store.count_all(Kind.PUBLICATION) >= most:
        raise Problem(Code.QUOTA_REACHED, f"the gateway takes {most:,} publications, and has as many")


async def _require_ready(call: ApiCall, model: ModelRecord, wanted: ModelType | None) -> Finding:
    finding = await ask(call, model, wanted)
    if not finding.ready:
        faults = [_SAY_TYPE] if finding == UNRECOGNISED else []
        raise Problem(Code.MODEL_NOT_READY, f"Model is not ready: {finding.message}", faults)
    return await ask_context(call, model, finding)


async def _publish(
    call: ApiCall, wish: _Wish, asked: ModelRecord, finding: Finding
) -> tuple[PublicationRecord, NewText]:
    """Read, decide and commit once. ``finding``: what the servers of ``asked`` said; others are asked themselves."""
    services, config = call.services, wish.config
    model = await lookups.record(services.store, Kind.MODEL, asked.id, ModelRecord)
    if model is None or model.uid != asked.uid:
        raise Problem(Code.MODEL_NOT_FOUND, f"{asked.id} was deleted meanwhile")
    _require_unpublished(model)
    if _leads_elsewhere(model, asked):
        finding = await _require_ready(call, model, wish.wanted)
    now_ms, shard = await services.store.now_ms(), shard_of(model.tenant)
    model = publications.observed(model, finding, now_ms)
    made = publications.created(
        model,
        config,
        uid=services.mint.new_id(shard),
        key_id=services.mint.new_id(shard),
        default_host=services.gateway.default_host,
        now_ms=now_ms,
    )
    _require_good_names(call, made)
    site = await _free_site_for_new(call, made)
    key = publication_key(made, services.mint)
    rooms = [services.quotas.room(kind, made.tenant) for kind in (Kind.PUBLICATION, Kind.KEY)]
    held = [*await granting.hold(call, made), *rooms]
    standings = await servers.standings_of(services.store, made)
    changes = [*publications.publish(model, made, key.record, site, standings), *held]
    detail = {**differences.of_publication(made), "apiKey": mask(made.key_id)}
    audit = call.audit("publication.create", model.id, model.tenant, detail)
    try:
        await services.committer.commit(changes, audit)
    except NoRoom as full:
        raise services.quotas.reached(full) from None
    return made, key


def _leads_elsewhere(now: ModelRecord | PublicationRecord, asked: ModelRecord | PublicationRecord) -> bool:
    """Whether somebody gave it other servers meanwhile, or has them get something else: nobody asked those."""
    return (servers_of(now), now.upstream_auth) != (servers_of(asked), asked.upstream_auth)


def _require_good_names(call: ApiCall, publication: PublicationRecord) -> None:
    proxy = call.services.publisher
    faults = [*rules.grpc_faults(publication, speaks_grpc=proxy.speaks_grpc)]
    if faults := [*faults, *rules.name_faults(publication, rewrites=proxy.rewrites)]:
        raise invalid(Code.INVALID_CONFIG, faults)


async def _free_site_for_new(call: ApiCall, made: PublicationRecord) -> Site:
    """Return the publication's host where its path is free; where the model was published meanwhile, that is said."""
    try:
        return await free_site(call.services.store, call.caller, made)
    except Problem:
        model = await lookups.record(call.services.store, Kind.MODEL, f"{made.tenant}/{made.model}", ModelRecord)
        if model is not None:
            _require_unpublished(model)
        raise


async def update(call: ApiCall) -> Reply:
    """Change how a model is published, while traffic flows."""
    wish = await _read_wish(call)
    found = await _publication_to_change(call, wish)
    old = found.publication
    faults = [*_new_place_faults(call, wish.config, old), *await _cell_faults(call, wish.config, old.tenant)]
    faults += await _tenant_faults(call, wish.config, old.allowed_tenants)
    if wish.config.public_hostname not in {"", old.host}:
        faults += await granting.host_faults(call, old.tenant, wish.config.public_hostname)
    wish.require_good(*faults)
    said = await _said(call, wish, found)
    known = await facts_of(call.services, old)
    host = wish.config.public_hostname
    warned = await _host_warnings(call, host) if host else []
    changed = await until_settled(lambda: _update(call, wish, old, said))
    warned += warnings.of_publication(wish.config, changed)
    answer = shown(call.services, changed, known).model_copy(update={"warnings": warned})
    return Reply(200, answer, tagged(changed))


@dataclass(frozen=True, slots=True)
class _Said:
    """What servers said that a config makes it necessary to ask."""

    finding: Finding | None  # None: of the type that is published already
    context_tokens: int | None


async def _said(call: ApiCall, wish: _Wish, found: lookups.Published) -> _Said:
    """Ask a model's servers as far as the config needs it; raises ``Problem`` where they are not ready for its type."""
    if wish.wanted in {None, found.publication.type}:
        return _Said(None, await _context_wanted(call, wish.config, found))
    finding = await _require_ready(call, found.model, wish.wanted)
    return _Said(finding, finding.context_tokens)


async def _context_wanted(call: ApiCall, config: ConfigInput, found: lookups.Published) -> int | None:
    """Ask for the servers' context where the config gives the setting up; ``None``: it does not, or none is told."""
    gives_up = "context_tokens" in config.tokens.model_fields_set and config.tokens.context_tokens is None
    if not gives_up or found.publication.type is not ModelType.OPENAI:
        return None
    model, prober = found.model, call.services.prober
    auth = auth_of(model, call.services.secrets.current())
    asked = (prober.ask_context(one.url, model.served_as, auth) for one in servers_of(model))
    return min((told for told in await asyncio.gather(*asked) if told is not None), default=None)


async def _publication_to_change(call: ApiCall, wish: _Wish) -> lookups.Published:
    """Find the publication; a named tenant picks among several models and cannot be changed."""
    if _is_faulty(wish, _TENANT_FIELD):
        wish.require_good()
    owner, asked = wish.config.tenant_id, call.query.get("tenantId")
    named = await lookups.models_named(call.services.store, call.caller, call.path["m"])
    if owner and asked is None and any(one.tenant == owner for one in named):
        asked = owner
    model = await lookups.model(call.services.store, call.caller, call.path["m"], asked)
    found = await lookups.publication_of(call.services.store, model)
    if owner not in {"", model.tenant}:
        wish.require_good(Fault(_TENANT_FIELD, Rule.FIXED, "cannot be changed"))
    return found


def _new_place_faults(call: ApiCall, config: ConfigInput, old: PublicationRecord) -> list[Fault]:
    host, path = config.public_hostname or old.host, config.external_path or old.path
    return list(rules.place_faults(config, host, path, call.services.gateway.default_host))


async def _cell_faults(call: ApiCall, config: ConfigInput, owner: str) -> list[Fault]:
    return await cells.allowed_faults(call, owner, config.authentication.allowed_tenants)


async def _update(call: ApiCall, wish: _Wish, asked: PublicationRecord, said: _Said) -> PublicationRecord:
    """Merge into the publication as it is at the write, once. ``said``: by the servers of ``asked``."""
    store, config = call.services.store, wish.config
    old = await lookups.record(store, Kind.PUBLICATION, asked.uid, PublicationRecord)
    if old is None:
        raise lookups.not_published(f"{asked.tenant}/{asked.model}")
    call.require_match(old)
    if faults := _new_place_faults(call, config, old):
        raise invalid(Code.INVALID_CONFIG, faults)
    if _leads_elsewhere(old, asked):
        said = await _said(call, wish, await _as_it_leads(call, old))
    new = publications.updated(old, config, said.finding, await store.now_ms(), server_tokens=said.context_tokens)
    _require_good_names(call, new)
    sites = await _sites(call, old, new)
    standings = await servers.standings_of(store, new)
    changes = publications.update(old, new, sites, standings)
    if differences.is_none(old, new) and len(changes) == 1:  # the record alone: it stands in its servers' as it is
        return old
    changes += await granting.hold(call, new, old)
    detail = differences.between(differences.of_publication(old), differences.of_publication(new))
    audit = call.audit("publication.update", f"{new.tenant}/{new.model}", new.tenant, detail)
    committed = await call.services.committer.commit(changes, audit)
    return next(one for one in committed.records.values() if isinstance(one, PublicationRecord))


async def _as_it_leads(call: ApiCall, publication: PublicationRecord) -> lookups.Published:
    """A publication with its model."""
    name = f"{publication.tenant}/{publication.model}"
    model = await lookups.record(call.services.store, Kind.MODEL, name, ModelRecord)
    if model is None:
        raise lookups.not_published(name)
    return lookups.Published(model, publication)


async def _sites(call: ApiCall, old: PublicationRecord, new: PublicationRecord) -> dict[str, Site]:
    """Return the hosts of both; raises ``Problem`` PATH_TAKEN where the new place is not free."""
    store = call.services.store
    sites = {new.host: await free_site(store, call.caller, new, old)}
    if old.host != new.host:
        sites[old.host] = await site_of(store, old)
    return sites
