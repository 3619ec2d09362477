"""Models: registered by the URL of their server; readiness and type are found out by asking it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from msgspec import structs

from admin import lookups
from admin.acts import moving, publications
from admin.acts.tenants import NOT_ALLOWED
from admin.committing import until_settled
from admin.handlers.discarding import discard_model, require_admin
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.models import credentials
from admin.models.addresses import is_listed, parse_target
from admin.models.credentials import auth_of
from admin.models.discovery import NOT_OPENAI_BY_GRPC, Finding, as_known, as_wanted, of_several, told_models
from admin.models.moving import EITHER, ask_servers, change_servers
from admin.models.naming import names_for
from admin.models.probing import Auth
from admin.schemas.schemas import ModelInput, Models
from admin.schemas.servers import ModelChange
from admin.views import records as views
from admin.views.listing import listed
from catalog.changes import Change, Check, Delete, Put
from catalog.damage import CorruptRecord
from catalog.keys.keytext import KeyText
from catalog.records import (
    Kind,
    ModelRecord,
    ModelType,
    Protocol,
    PublicationRecord,
    Role,
    Source,
    TenantRecord,
)
from catalog.store.store import Conflict, NoRoom

_UID_BYTES: Final = 10
_REPLACE: Final = "PATCH changes its servers; to register it anew, with another type, DELETE it first"


async def list_models(call: ApiCall) -> Reply:
    """List the caller's models as they were found last."""
    owner = call.query.get("tenantId")
    page = await paging.page(
        call.services.store,
        Kind.MODEL,
        ModelRecord,
        call.query,
        lambda one: call.caller.sees(one.tenant) and owner in {None, one.tenant},
        caller=call.caller,
        beneath=paging.models_beneath(call.caller, owner),
    )
    items, damaged = listed(call.services.metrics, page, views.model)
    return Reply(200, Models(items=items, damaged=damaged, next=page.next))


async def register_model(call: ApiCall) -> Reply:
    """Register a model and ask its servers about it. One that is not ready is registered too."""
    body = await _completed(call, _of_servers(call.body(ModelInput)))
    await _owner_who_may(call, body)
    _require_traditional(body)
    given = body.type if "type" in body.model_fields_set else None
    made = await _asked(call, body, given)
    if served := await _only_other_name(call, body, made):
        made = await _asked(call, body.model_copy(update={"model_id": served}), given)
    await until_settled(lambda: _register(call, body, made))
    return Reply(201, views.model(made), tagged(made))


def _of_servers(body: ModelInput) -> ModelInput:
    """Add the URL of the first server; raises ``Problem`` where none is named, or by both ways."""
    given = body.model_fields_set & {"url", "servers"}
    if len(given) > 1:
        raise invalid(Code.INVALID_REQUEST, [EITHER])
    if not given:
        raise invalid(Code.INVALID_REQUEST, [Fault("url", Rule.REQUIRED, "is required")])
    return body.model_copy(update={"url": body.servers[0].url}) if body.servers else body


async def _completed(call: ApiCall, body: ModelInput) -> ModelInput:
    """Add the tenant, the modelId and the name where they are left out."""
    tenant = body.tenant_id or await lookups.usual_tenant(call.services.store, call.caller)
    if tenant is None:
        raise invalid(Code.INVALID_REQUEST, [Fault("tenantId", Rule.REQUIRED, "is required: there are several")])
    body = body.model_copy(update={"tenant_id": tenant})
    if body.name:
        return body
    if body.protocol:
        raise invalid(Code.INVALID_REQUEST, [Fault("name", Rule.REQUIRED, "is required: by gRPC no models are listed")])
    await _owner_who_may(call, body)
    body = body.model_copy(update={"model_id": body.model_id or await _only_model(call, body)})
    return body.model_copy(update={"name": await _free_name(call, body)})


def _require_traditional(body: ModelInput) -> None:
    """Raise ``Problem`` of an openai model of gRPC."""
    if body.protocol and body.type is ModelType.OPENAI:
        raise invalid(Code.INVALID_REQUEST, [Fault("protocol", Rule.FORMAT, NOT_OPENAI_BY_GRPC)])


async def _only_model(call: ApiCall, body: ModelInput) -> str:
    """What the server calls the one model that it lists; raises ``Problem`` which tells what there is."""
    found = await _listed_by(call, body)
    if isinstance(found, Finding):
        raise invalid(
            Code.INVALID_REQUEST,
            [Fault("name", Rule.REQUIRED, f"is required where the server tells no models: {found.message}")],
        )
    if len(found) != 1:
        raise invalid(Code.INVALID_REQUEST, [_to_choose(found)])
    return found[0]


async def _only_other_name(call: ApiCall, body: ModelInput, made: ModelRecord) -> str:
    """What a server of OpenAI's API calls its one model that a name of ours is meant for; "" where the name is its own.

    Raises ``Problem`` which tells what there is where a server has several, none of that name.
    """
    if body.model_id or made.ready or made.protocol is not Protocol.OPENAI:
        return ""
    found = await _listed_by(call, body)
    if isinstance(found, Finding) or not found or body.name in found:
        return ""
    if len(found) > 1:
        raise invalid(Code.INVALID_REQUEST, [_to_choose(found)])
    return found[0]


async def _listed_by(call: ApiCall, body: ModelInput) -> tuple[str, ...] | Finding:
    """The models that the first server lists, or why it tells none."""
    auth = body.upstream_auth
    value = auth.value.get_secret_value() if auth is not None else ""
    said = Auth(auth.header, KeyText(value)) if auth is not None and value else None
    return await call.services.prober.ask_list(body.url, said)


def _to_choose(listed: Sequence[str]) -> Fault:
    what = f"modelId is to be one of {told_models(listed)}" if listed else "the server lists no model"
    return Fault("modelId", Rule.REQUIRED, f"is required: {what}")


async def _free_name(call: ApiCall, body: ModelInput) -> str:
    """The first name for its modelId that none of the tenant has; raises ``Problem`` where this very model is there."""
    for name in names_for(body.model_id):
        found = await lookups.record(call.services.store, Kind.MODEL, f"{body.tenant_id}/{name}", ModelRecord)
        if found is None:
            return name
        if (found.url, found.served_as) == (body.url, body.model_id):
            raise Problem(Code.MODEL_EXISTS, f"{found.id} is this model of this server: {_REPLACE}")
    raise invalid(Code.INVALID_REQUEST, [Fault("name", Rule.REQUIRED, "is required: too many are called so")])


async def _asked(call: ApiCall, body: ModelInput, given: ModelType | None) -> ModelRecord:
    """Ask the server of a model about it, by what it wants with each call."""
    made = _new_model(body, given, await call.services.store.now_ms())
    if body.upstream_auth is not None:
        made = structs.replace(made, upstream_auth=credentials.given(call, body.upstream_auth, made).record)
    return publications.observed(made, of_several(await ask_servers(call, made, None)), made.created_at_ms)


async def _owner_who_may(call: ApiCall, body: ModelInput) -> TenantRecord:
    """Return the model's tenant; raises ``Problem`` where it is none, or the caller may not register this server."""
    owner = await lookups.require_tenant(call.services.store, call.caller, body.tenant_id, "tenantId")
    urls = {f"servers[{number}].url": one.url for number, one in enumerate(body.servers)} or {"url": body.url}
    if call.caller.role is not Role.ADMIN:
        refused = [field for field, url in urls.items() if not is_listed(parse_target(url), owner.upstream_allow)]
        if refused:
            raise invalid(Code.INVALID_REQUEST, [Fault(field, Rule.RESERVED, NOT_ALLOWED) for field in refused])
    return owner


async def _register(call: ApiCall, body: ModelInput, made: ModelRecord) -> None:
    owner = await _owner_who_may(call, body)
    if await call.services.store.get(Kind.MODEL, made.id) is not None:
        raise Problem(Code.MODEL_EXISTS, f"there is a model {made.id}: {_REPLACE}")
    detail = {**moving.told(made), "modelId": made.served_as, "type": made.type.value, "ready": str(made.ready).lower()}
    audit = call.audit("model.register", made.id, made.tenant, detail)
    still_there = Check.of(owner)
    try:
        room = call.services.quotas.room(Kind.MODEL, owner.id)
        await call.services.committer.commit([Put(made, 0), still_there, room], audit)
    except NoRoom as full:
        raise call.services.quotas.reached(full) from None


def _new_model(body: ModelInput, given: ModelType | None, now_ms: int) -> ModelRecord:
    """The model before its servers were asked."""
    servers = moving.wanted(body.servers) if body.servers else ()
    return ModelRecord(
        uid=os.urandom(_UID_BYTES).hex(),
        tenant=body.tenant_id,
        name=body.name,
        url=body.url,
        servers=servers if len(servers) > 1 else (),
        type=given or ModelType.TRADITIONAL,
        protocol=Protocol.GRPC if body.protocol else Protocol.HTTP,
        ready=False,
        message="",
        checked_at_ms=now_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        type_given=given is not None,
        model_id="" if body.model_id == body.name else body.model_id,
    )


async def show_model(call: ApiCall) -> Reply:
    """Ask the model's server now and show the model; what changed is kept for the list."""
    found = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    finding = as_known(await ask(call, found, None), found)
    now = publications.observed(found, finding, await call.services.store.now_ms())
    if finding != _last_finding(found):
        now = await _kept(call, found, now)
    return Reply(200, views.model(now), tagged(now))


async def _kept(call: ApiCall, found: ModelRecord, now: ModelRecord) -> ModelRecord:
    """Keep what was found for the list; returns the model as it is stored then.

    Not where others have changed the model meanwhile, who know more, nor where the tenant has had its writes of this
    minute: who only looks is refused nothing for that.
    """
    followed = await _followed(call, found, now)
    context = {"contextTokens": str(now.context_tokens)} if now.context_tokens != found.context_tokens else {}
    detail = {"type": now.type.value, "ready": str(now.ready).lower(), "message": now.message, **context}
    audit = call.audit("model.observe", now.id, now.tenant, detail)
    try:
        await call.services.committer.commit([Put(now, found.version), *followed], audit)
    except Conflict:
        return now
    except Problem as refused:
        if refused.code is not Code.TOO_MANY_REQUESTS:
            raise
        return now
    return structs.replace(now, version=found.version + 1)


async def _followed(call: ApiCall, found: ModelRecord, now: ModelRecord) -> list[Change]:
    """The change of a model's publication where its server tells another context than it did."""
    if found.publication is None or now.context_tokens is None or now.context_tokens == found.context_tokens:
        return []
    try:
        published = await lookups.record(call.services.store, Kind.PUBLICATION, found.publication, PublicationRecord)
    except CorruptRecord:
        return []
    if published is None or published.server_context_tokens == now.context_tokens:
        return []
    changed = publications.following_context(published, now.context_tokens, now.checked_at_ms)
    return [Put(changed, published.version)]


async def change_model(call: ApiCall) -> Reply:
    """Change a model's servers, published or not, while calls run."""
    body = call.body(ModelChange)
    changed = await until_settled(lambda: change_servers(call, body))
    return Reply(200, views.model(changed), tagged(changed))


async def ask(call: ApiCall, model: ModelRecord, wanted: ModelType | None) -> Finding:
    """Ask a model's server about it; a type given now goes before one given when it was registered.

    What KServe says of a model that follows an InferenceService is known; its server is not asked.
    """
    if model.source is Source.KUBERNETES:
        finding = _last_finding(model)
        return as_wanted(finding, wanted) if finding.ready else finding
    finding = of_several(await ask_servers(call, model, wanted))
    return replace(finding, context_tokens=finding.context_tokens or model.context_tokens)


async def ask_context(call: ApiCall, model: ModelRecord, finding: Finding) -> Finding:
    """Add the context that the server of a model tells that follows an InferenceService; ``ask`` asks all others."""
    if model.source is not Source.KUBERNETES or finding.type is not ModelType.OPENAI:
        return finding
    auth = auth_of(model, call.services.secrets.current())
    context = await call.services.prober.ask_context(model.url, model.served_as, auth)
    return replace(finding, context_tokens=context or finding.context_tokens)


def _last_finding(model: ModelRecord) -> Finding:
    return Finding(model.type, model.protocol, model.ready, model.message, model.context_tokens)


async def delete_model(call: ApiCall) -> Reply:
    """Forget a model that is not published."""
    await until_settled(lambda: _delete(call))
    return Reply(204)


async def _delete(call: ApiCall) -> None:
    try:
        found = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    except CorruptRecord as damaged:
        await discard_model(call, require_admin(call, damaged, Kind.MODEL))
        return
    call.require_match(found)
    if found.publication:
        raise Problem(Code.MODEL_PUBLISHED, f"{found.id} is published: DELETE /api/models/{found.name}/publish first")
    audit = call.audit("model.delete", found.id, found.tenant, {"url": found.url})
    await call.services.committer.commit([Delete(Kind.MODEL, found.id, found.version)], audit)
