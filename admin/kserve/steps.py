"""What is changed so that the catalog has a model as its InferenceService tells of it. Pure.

A model that somebody registered is nobody else's to change. A model that callers can reach is never taken away from
them here: without its InferenceService it is not ready, and the operator unpublishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from admin.acts import moving, publications
from admin.acts.differences import between
from admin.acts.hosts import Site
from admin.acts.servers import Standing
from admin.kserve.facts import Facts
from admin.quotas import DEFAULT_QUOTAS, Quotas
from catalog.changes import Change, Check, Delete, Put
from catalog.records import Kind, ModelRecord, PublicationRecord, Server, Source, TenantRecord


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that go together, and what the audit stream says of them."""

    action: str
    changes: tuple[Change, ...]
    detail: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model: what there should be, and what there is."""

    owner: TenantRecord | None
    facts: Facts | None  # as its InferenceService tells of it; None: it is gone, or the tenant's no more
    model: ModelRecord | None
    publication: PublicationRecord | None
    servers: tuple[Standing, ...] = ()  # those that the publication leads to, before and after
    site: Site | None = None  # the publication's host, where callers are to say another name for it

    @property
    def is_anothers(self) -> bool:
        """Whether somebody registered it by hand."""
        return self.model is not None and self.model.source is not Source.KUBERNETES

    @property
    def is_stranded(self) -> bool:
        """Whether it is published and its InferenceService is not there."""
        return self.facts is None and self.model is not None and self.model.publication is not None


def step_of(case: Case, *, uid: str, now_ms: int, quotas: Quotas = DEFAULT_QUOTAS) -> Step | None:
    """What is to be changed; ``None`` where the catalog is as it should be. ``uid`` is for a model that is new."""
    if case.is_anothers:
        return None
    if case.model is None:
        return _appeared(case.owner, case.facts, uid, now_ms, quotas) if case.owner and case.facts else None
    if case.facts is None:
        return _gone(case.model, now_ms)
    return _followed(case.model, case.facts, case, now_ms)


def _appeared(tenant: TenantRecord, facts: Facts, uid: str, now_ms: int, quotas: Quotas) -> Step:
    """A model that was not there."""
    made = ModelRecord(
        uid=uid,
        tenant=tenant.id,
        name=facts.name,
        url=facts.url,
        type=facts.type,
        protocol=facts.protocol,
        ready=facts.ready,
        message=facts.message,
        checked_at_ms=now_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        source=Source.KUBERNETES,
        namespace=facts.namespace,
        model_id=facts.model_id or "",
    )
    still_there = Check.of(tenant)
    return Step("model.appear", (Put(made, 0), still_there, quotas.room(Kind.MODEL, tenant.id)), _told(made))


def moves(publication: PublicationRecord, facts: Facts) -> bool:
    """Whether a publication is to lead elsewhere from now on."""
    return facts.url not in {"", publication.url}


def renamed(publication: PublicationRecord, facts: Facts) -> PublicationRecord:
    """Return a publication whose server calls the model as its InferenceService says."""
    return structs.replace(publication, model_id=_called(facts, publication))


def _called(facts: Facts, before: ModelRecord | PublicationRecord) -> str:
    return before.model_id if facts.model_id is None else facts.model_id


def _followed(model: ModelRecord, facts: Facts, case: Case, now_ms: int) -> Step | None:
    """A model whose InferenceService may have changed; ``None`` where nothing did.

    The publication follows the URL, because who publishes an InferenceService means the service, wherever it runs. Its
    type and protocol stay as they were published: paths and limits hang on them.
    """
    url = facts.url or model.url  # one that KServe tells no more is the best that is known
    told = structs.replace(
        model if url == model.url else moving.served_by(model, (Server(url),)),
        type=facts.type,
        protocol=facts.protocol,
        ready=facts.ready,
        message=facts.message,
        namespace=facts.namespace,
        model_id=_called(facts, model),
    )
    changes = _moved(case, told, now_ms)
    if told == model and not changes:
        return None
    return _changed("model.follow", model, told, changes, now_ms)


def _gone(model: ModelRecord, now_ms: int) -> Step | None:
    """A model whose InferenceService is no more, or is the tenant's no more; ``None`` where that is known."""
    if model.publication is None:
        return Step("model.vanish", (Delete(Kind.MODEL, model.id, model.version),), {"url": model.url})
    message = f"its InferenceService {model.namespace}/{model.name} is gone, or the namespace is the tenant's no more"
    told = structs.replace(model, ready=False, message=message)
    return None if told == model else _changed("model.follow", model, told, [], now_ms)


def _changed(action: str, old: ModelRecord, told: ModelRecord, more: list[Change], now_ms: int) -> Step:
    new = structs.replace(told, checked_at_ms=now_ms, updated_at_ms=now_ms)
    return Step(action, (Put(new, old.version), *more), between(_told(old), _told(new)))


def _moved(case: Case, model: ModelRecord, now_ms: int) -> list[Change]:
    publication = case.publication
    if publication is None or (model.url in {"", publication.url} and model.model_id == publication.model_id):
        return []
    led = model if model.url else structs.replace(model, url=publication.url)
    sites = {publication.host: case.site} if case.site is not None else {}
    return publications.update(publication, moving.led(publication, led, now_ms), sites, case.servers)


def _told(model: ModelRecord) -> dict[str, str]:
    """A model as the audit stream tells it."""
    return {
        "namespace": model.namespace,
        "url": model.url,
        "type": model.type.value,
        "protocol": model.protocol.value,
        "ready": str(model.ready).lower(),
        "message": model.message,
        "modelId": model.served_as,
        "upstreamAuth": moving.told_auth(model.upstream_auth),
    }
