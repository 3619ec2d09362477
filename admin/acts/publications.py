"""Publishing, changing and unpublishing: what a publication is made of and which records change with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import structs

from admin.acts import hosts, limits, servers, tokens
from admin.acts.hosts import Site
from admin.acts.servers import Standing
from admin.models.discovery import Finding
from admin.models.places import default_path
from admin.schemas.schemas import AuthenticationInput, ConfigInput
from catalog.changes import Bury, Change, Delete, Put
from catalog.records import (
    DEFAULT_TOKENS,
    KeyRecord,
    Kind,
    ModelRecord,
    PublicationRecord,
)
from catalog.tombstones import tombstone


def observed(model: ModelRecord, finding: Finding, now_ms: int) -> ModelRecord:
    """Return a model with what its server said."""
    return structs.replace(
        model,
        type=finding.type,
        protocol=finding.protocol,
        ready=finding.ready,
        message=finding.message,
        checked_at_ms=now_ms,
        context_tokens=finding.context_tokens or model.context_tokens,
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
        servers=model.servers,
        upstream_auth=model.upstream_auth,
        type=model.type,
        protocol=model.protocol,
        host=config.public_hostname or default_host,
        host_unnamed=not config.public_hostname,
        path=config.external_path or default_path(model.name, model.type),
        limits=limits.merged(limits.defaults(model.type), config.rate_limiting),
        require_api_key=config.authentication.require_api_key,
        anonymous_per_minute=config.authentication.anonymous_requests_per_minute,
        allowed_tenants=_with_owner(model.tenant, config.authentication.allowed_tenants),
        key_id=key_id,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        metadata=config.metadata,
        tokens=tokens.merged(DEFAULT_TOKENS, config.tokens, model.context_tokens),
        server_context_tokens=model.context_tokens,
        allowed_endpoints=config.allowed_endpoints,
        allow_background=config.allow_background,
        model_id=model.model_id,
        aliases=config.aliases,
    )


def updated(
    publication: PublicationRecord,
    config: ConfigInput,
    finding: Finding | None,
    now_ms: int,
    *,
    server_tokens: int | None = None,
) -> PublicationRecord:
    """Return a publication with what the config says; everything else is kept.

    ``finding``: what asking the server anew found, where the config changes the model's type. ``server_tokens``: the
    context that it told just now.
    """
    server_tokens = server_tokens or publication.server_context_tokens
    named = config.model_fields_set
    return structs.replace(
        _with_callers(publication, config.authentication),
        host=config.public_hostname or publication.host,
        host_unnamed=publication.host_unnamed and not config.public_hostname,
        path=config.external_path or publication.path,
        type=finding.type if finding else publication.type,
        protocol=finding.protocol if finding else publication.protocol,
        limits=limits.merged(publication.limits, config.rate_limiting),
        tokens=tokens.merged(publication.tokens, config.tokens, server_tokens),
        server_context_tokens=server_tokens,
        allowed_endpoints=config.allowed_endpoints if "allowed_endpoints" in named else publication.allowed_endpoints,
        allow_background=config.allow_background if "allow_background" in named else publication.allow_background,
        metadata=config.metadata if "metadata" in named else publication.metadata,
        aliases=config.aliases if "aliases" in named else publication.aliases,
        updated_at_ms=now_ms,
    )


def following_context(publication: PublicationRecord, server_tokens: int, now_ms: int) -> PublicationRecord:
    """Return a publication whose model's server tells this context."""
    return structs.replace(
        publication,
        tokens=tokens.following(publication.tokens, server_tokens),
        server_context_tokens=server_tokens,
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
    model: ModelRecord, publication: PublicationRecord, key: KeyRecord, site: Site, standings: Iterable[Standing]
) -> list[Change]:
    """The changes that put a model before callers. The model's compare-and-set makes publishing unique."""
    claimed = structs.replace(model, publication=publication.uid, updated_at_ms=publication.created_at_ms)
    return [
        Put(claimed, model.version),
        Put(publication, 0),
        Put(key, 0),
        *hosts.claim(site, publication),
        *(servers.claim(standing, publication) for standing in standings),
    ]


def update(
    old: PublicationRecord, new: PublicationRecord, sites: Mapping[str, Site], standings: Iterable[Standing]
) -> list[Change]:
    """The changes of an update. ``sites``: the hosts of both."""
    changes: list[Change] = [Put(new, old.version), *servers.moved(old, new, standings)]
    if _claim(old) != _claim(new):
        changes += hosts.claim(sites[new.host], new)
    if old.host != new.host:
        changes += hosts.release(sites[old.host], old.uid)
    return changes


def _claim(publication: PublicationRecord) -> tuple[object, ...]:
    """What a publication claims of its host."""
    return publication.host, publication.path, publication.is_said, publication.names


def without_publication(model: ModelRecord, now_ms: int) -> ModelRecord:
    """Return a model as it is when it is not published."""
    return structs.replace(model, publication=None, updated_at_ms=now_ms)


def retract(
    publication: PublicationRecord,
    key: KeyRecord | None,
    site: Site,
    standings: Iterable[Standing],
    *,
    by: str,
    now_ms: int,
) -> list[Change]:
    """The changes that remove a publication, its own key and its place, whatever becomes of the model.

    ``by``: who does it, as the key's tombstone says.
    """
    changes: list[Change] = [Delete(Kind.PUBLICATION, publication.uid, publication.version)]
    if key is not None:
        changes += [Delete(Kind.KEY, key.id, key.version), Bury(tombstone(key, by, now_ms))]
    changes += hosts.release(site, publication.uid)
    released = (servers.release(standing, publication.uid) for standing in standings)
    return [*changes, *(change for change in released if change is not None)]
