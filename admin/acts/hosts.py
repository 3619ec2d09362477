"""The tables of hosts: what a publication claims and gives back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import structs

from admin.http.problems import Code, Fault, Problem, Rule
from admin.models.places import obstacle, without
from catalog.changes import Change, Delete, Put
from catalog.records import HostRecord, Kind, ModelType, PublicationRecord


def claim(host: HostRecord | None, publication: PublicationRecord) -> Change:
    """Enter a publication into its host's table in place of whatever entries it had."""
    table = host or HostRecord(publication.host, {}, {}, version=0, created_at_ms=publication.updated_at_ms)
    return Put(entered(table, publication), table.version)


def entered(table: HostRecord, publication: PublicationRecord) -> HostRecord:
    """Return a table with the publication in it, in place of whatever entries it had."""
    models = without(table.models, publication.uid)
    if publication.type is ModelType.OPENAI:
        models[f"{publication.tenant}/{publication.model}"] = publication.uid
    paths = without(table.paths, publication.uid) | {publication.path: publication.uid}
    return structs.replace(table, paths=paths, models=models)


def release(host: HostRecord, uid: str) -> Change:
    """Take a publication out of a host's table; a table without entries goes."""
    paths = without(host.paths, uid)
    if not paths:
        return Delete(Kind.HOST, host.id, host.version)
    return Put(structs.replace(host, paths=paths, models=without(host.models, uid)), host.version)


def require_free(
    host: HostRecord | None,
    publication: PublicationRecord,
    foreign: Iterable[str],
    seen: Mapping[str, PublicationRecord],
) -> None:
    """Raise ``Problem`` PATH_TAKEN when the publication's path is not its to claim.

    ``foreign`` are the uids of other tenants' publications. What stands in the way is told where it is among
    ``seen``, the publications (by uid) that the caller may see; of any other the three reasons are one.
    """
    paths = without(host.paths, publication.uid) if host else {}
    if taken := obstacle(publication.path, paths, foreign):
        message = _reason(publication.path, taken, seen.get(paths[taken]))
        raise Problem(Code.PATH_TAKEN, f"the path {message}", [Fault("config.externalPath", Rule.RESERVED, message)])


def _reason(path: str, taken: str, owner: PublicationRecord | None) -> str:
    if owner is None:
        return "is taken on this host, or stands above or below another tenant's path"
    whose = f"{owner.tenant}/{owner.model}"
    if path == taken:
        return f"is taken on this host by {whose}"
    return f"stands {'above' if len(path) < len(taken) else 'below'} {taken}, the path of another tenant's {whose}"
