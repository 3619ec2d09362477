"""Publishing, changing and unpublishing: what a publication is made of and which records change with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import structs

from admin.acts import hosts, limits, tokens
from admin.models.discovery import Finding
from admin.models.places import default_path
from admin.schemas.schemas import AuthenticationInput, ConfigInput
from catalog.changes import Change, Delete, Put
from catalog.records import (
    DEFAULT_TOKENS,
    HostRecord,
    KeyRecord,
    Kind,
    ModelRecord,
    PublicationRecord,
)


def observed(model: ModelRecord, finding: Finding, now_ms: int) -> ModelRecord:
    """Return a model with what its server said."""
    return structs.replace(
        model,
        type=finding.type,
        protocol=finding.protocol,
        ready=finding.ready,
        message=finding.message,
        checked_at_ms=now_ms,
    )


def created(
    model: ModelRecord, config: ConfigInput, *, uid: str, key_id: str, default_host: str, now_ms: int
) -> PublicationRecord:
    """Make the publication of a model: what the config does not say is the default."""
    return PublicationRecord(
        uid=uid,
        tenant=model.tenant,
        model=model.name,
        url=model.url,
        type=model.type,
        protocol=model.protocol,
        host=config.public_hostname or default_host,
        path=config.external_path or default_path(model.name, model.type),
        limits=limits.merged(limits.defaults(model.type), config.rate_limiting),
        require_api_key=config.authentication.require_api_key,
        anonymous_per_minute=config.authentication.anonymous_requests_per_minute,
        allowed_tenants=_with_owner(model.tenant, config.authentication.allowed_tenants),
        key_id=key_id,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        metadata=config.metadata,
        tokens=tokens.merged(DEFAULT_TOKENS, config.tokens),
    )


def updated(
    publication: PublicationRecord, config: ConfigInput, finding: Finding | None, now_ms: int
) -> PublicationRecord:
    """Return a publication with what the config says; everything else is kept.

    ``finding``: what asking the server anew found, where the config changes the model's type.
    """
    return structs.replace(
        _with_callers(publication, config.authentication),
        host=config.public_hostname or publication.host,
        path=config.external_path or publication.path,
        type=finding.type if finding else publication.type,
        protocol=finding.protocol if finding else publication.protocol,
        limits=limits.merged(publication.limits, config.rate_limiting),
        tokens=tokens.merged(publication.tokens, config.tokens),
        metadata=config.metadata if "metadata" in config.model_fields_set else publication.metadata,
        updated_at_ms=now_ms,
    )


def _with_callers(publication: PublicationRecord, given: AuthenticationInput) -> PublicationRecord:
    """Return a publication with what was said of who may call."""
    named, per_minute = given.model_fields_set, given.anonymous_requests_per_minute
    return structs.replace(
        publication,
        require_api_key=given.require_api_key if "require_api_key" in named else publication.require_api_key,
        allowed_tenants=(
            _with_owner(publication.tenant, given.allowed_tenants)
            if "allowed_tenants" in named
            else publication.allowed_tenants
        ),
        anonymous_per_minute=(
            per_minute if "anonymous_requests_per_minute" in named else publication.anonymous_per_minute
        ),
    )


def _with_owner(owner: str, allowed: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({owner, *allowed}))


def publish(
    model: ModelRecord, publication: PublicationRecord, key: KeyRecord, host: HostRecord | None
) -> list[Change]:
    """The changes that put a model before callers. The model's compare-and-set makes publishing unique."""
    claimed = structs.replace(model, publication=publication.uid, updated_at_ms=publication.created_at_ms)
    return [
        Put(claimed, model.version),
        Put(publication, 0),
        Put(key, 0),
        hosts.claim(host, publication),
    ]


def update(old: PublicationRecord, new: PublicationRecord, tables: Mapping[str, HostRecord]) -> list[Change]:
    """The changes of an update. ``tables``: the hosts of both, where they exist."""
    changes: list[Change] = [Put(new, old.version)]
    if (old.host, old.path, old.type) != (new.host, new.path, new.type):
        changes.append(hosts.claim(tables.get(new.host), new))
    if old.host != new.host and old.host in tables:
        changes.append(hosts.release(tables[old.host], old.uid))
    return changes


def without_publication(model: ModelRecord, now_ms: int) -> ModelRecord:
    """Return a model as it is when it is not published."""
    return structs.replace(model, publication=None, updated_at_ms=now_ms)


def retract(publication: PublicationRecord, key: KeyRecord | None, host: HostRecord | None) -> list[Change]:
    """The changes that remove a publication, its own key and its place, whatever becomes of the model."""
    changes: list[Change] = [Delete(Kind.PUBLICATION, publication.uid, publication.version)]
    if key is not None:
        changes.append(Delete(Kind.KEY, key.id, key.version))
    if host is not None:
        changes.append(hosts.release(host, publication.uid))
    return changes
