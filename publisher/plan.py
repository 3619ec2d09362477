"""Publications to hosts, routes and upstreams: what any gateway must be told, in no gateway's words.

Owns the order in which routes are tried, how paths are rewritten, and which publications no gateway can be given.
Pure: knows no Envoy, no file and no store. The same publications give the same plan, whatever order they come in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final
from urllib.parse import urlsplit

from catalog import inference
from catalog.keys.upstream import owner_of
from catalog.records import ModelType, Protocol, PublicationRecord, Server, servers_of
from extauth.kserve.paths import NAMED_ROOT
from extauth.listing import MODELS_ROOT
from publisher.kserve.paths import ENTRIES, NAMED_PART, Path, own_v1, own_v2

LONGEST_S: Final = 600
"""Longest call of a publication whose calls reserve nothing; others may take as long as a reservation lives."""
OPENAI_ROOT: Final = "/v1"
"""Below it a host's openai models are called by the body's ``model``."""

_MAX_PATH: Final = 512
_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]+")
_UID: Final = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """One server of a model."""

    tls: bool
    hostname: str  # a name or an address, without brackets
    port: int
    authority: str  # what it is told as Host: "models.local:9001"
    weight: int = 1  # its share of the calls: weight / the sum of all


@dataclass(frozen=True, slots=True)
class Injection:
    """A header that a publication's servers get with each call: sealed, or in a Secret of the gateway's operator."""

    header: str  # in lower case: authorization
    sealed: str
    owner: bytes  # what it is sealed for
    secret: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """The servers of one publication's model."""

    publication: str  # uid
    targets: tuple[Target, ...]  # at least one
    injection: Injection | None = None
    http2: bool = False  # what they speak, with or without TLS


@dataclass(frozen=True, slots=True)
class Route:
    """A match of paths, the publication it leads to, and what the server sees."""

    name: str  # "<uid>/predict": stable, unique in the plan
    publication: str  # uid
    path: str  # "/models/iris/predict"
    below: bool  # True: every path that begins with `path` + "/"; False: `path` itself
    rewrite: str  # replaces what matched: "/v1/models/iris:predict", or below: "/v1/" for "/models/llm/"
    chosen: bool = False  # matches only once Check has named the publication, by the body or the path
    grpc: bool = False  # one of gRPC's: at the service's own path, whatever the publication's is
    called_as: str = ""  # of those: what its metadata names the model; "": it names none
    reads_body: bool = False  # Check must be told the JSON body's fields
    longest_s: int = LONGEST_S  # a call that takes longer is cut off

    @property
    def chosen_by_body(self) -> bool:
        """Whether it is a body that Check names the publication by."""
        return self.chosen and self.path == OPENAI_ROOT

    @property
    def waits(self) -> bool:
        """Whether its calls wait for Check, which writes their path anew: it leads to no server."""
        return not self.rewrite


@dataclass(frozen=True, slots=True)
class Host:
    """A host name and its routes, in the order they are tried."""

    name: str  # lower case, no port, no trailing dot
    routes: tuple[Route, ...]
    openai: bool  # calls below /v1 that no route takes are decided by the body's `model`
    kserve: bool = False  # calls in KServe's words that no route takes are decided by the name in their path

    @property
    def entries(self) -> tuple[Path, ...]:
        """Where calls in KServe's words wait; none that is a publication's own path, or within what one has whole."""
        if not self.kserve:
            return ()
        taken = [f"{route.path}/" for route in self.routes if route.below and not route.chosen]
        own = {route.path for route in self.routes if not route.below}
        return tuple(one for one in ENTRIES if not _is_within(one, taken) and (one.below or one.path not in own))


def _is_within(entry: Path, taken: Iterable[str]) -> bool:
    whole = f"{entry.path}/" if entry.below else entry.path
    return any(whole.startswith(one) for one in taken)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is published, in a stable order."""

    upstreams: tuple[Upstream, ...]
    hosts: tuple[Host, ...]
    refused: Mapping[str, str]  # uid -> why it is left out


@dataclass(frozen=True, slots=True)
class Laid:
    """One publication laid out, or why none can be made of it."""

    upstream: Upstream | None
    by_path: tuple[Route, ...] = ()
    chosen: tuple[Route, ...] = ()  # once Check has named it
    alone: tuple[Route, ...] = ()  # besides, where nothing else is published on its host
    fault: str = ""


def laid_out(record: PublicationRecord) -> Laid:
    """Lay out a publication by itself."""
    if fault := _fault(record):
        return Laid(None, fault=fault)
    if record.protocol is Protocol.GRPC:
        return Laid(_upstream(record), (_grpc_route(record),), alone=_grpc_alone(record))
    return Laid(_upstream(record), tuple(_path_routes(record)), tuple(_chosen_routes(record)))


def plan(publications: Iterable[PublicationRecord], lay: Callable[[PublicationRecord], Laid] = laid_out) -> Plan:
    """Lay out the publications. One that cannot be laid out is refused with a reason; the others go on.

    ``lay``: what lays out one of them, for those who remember it.
    """
    fit, refused = _sorted_out(publications, lay)
    by_host = groupby(sorted(fit, key=_order), key=lambda one: one[0].host)
    return Plan(
        upstreams=tuple(sorted((one.upstream for _, one in fit if one.upstream), key=lambda up: up.publication)),
        hosts=tuple(_host(name, [one for _, one in found]) for name, found in by_host),
        refused=refused,
    )


_Fit = tuple[PublicationRecord, Laid]


def _order(one: _Fit) -> tuple[str, int, str]:
    """Longest path first within a host, so that a nested publication is found before the one around it."""
    record, _ = one
    return record.host, -len(record.path), record.path


def _sorted_out(
    publications: Iterable[PublicationRecord], lay: Callable[[PublicationRecord], Laid]
) -> tuple[list[_Fit], dict[str, str]]:
    fit: dict[tuple[str, str], _Fit] = {}
    refused: dict[str, str] = {}
    for record in sorted(publications, key=lambda record: (record.created_at_ms, record.uid)):
        laid, taken = lay(record), fit.get((record.host, record.path))
        fault = laid.fault or (taken and f"path: {record.path} of {record.host} is {taken[0].uid}'s")
        if fault:
            refused[record.uid] = fault
        else:
            fit[record.host, record.path] = record, laid
    return list(fit.values()), refused


def _fault(record: PublicationRecord) -> str | None:
    """The first reason for which no gateway could be given this publication."""
    if not _UID.fullmatch(record.uid):
        return "uid: must be letters, digits and dashes"
    if not _HOST.fullmatch(record.host):
        return "host: must be a lower-case host name without a port"
    if not _is_plain_path(record.path):
        return "path: must be /segments of letters, digits and -._~ without a trailing slash"
    if not _SEGMENT.fullmatch(record.model):
        return "model: must be letters, digits and -._~"
    if record.is_said_by_path and not _SEGMENT.fullmatch(record.served_as):
        return "modelId: must be letters, digits and -._~ where a path names the model"
    return next(filter(None, (_url_fault(server.url) for server in servers_of(record))), None)


def _is_plain_path(path: str) -> bool:
    head, *segments = path.split("/")
    plain = all(_SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in segments)
    return head == "" and bool(segments) and plain and len(path) <= _MAX_PATH


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"url: {error}"
    if parts.scheme not in _PORTS:
        return "url: must begin with http:// or https://"
    if not parts.hostname or port == 0:
        return "url: must name a host, and a port from 1 to 65535"
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return "url: must be scheme, host and port only"
    return None


def _upstream(record: PublicationRecord) -> Upstream:
    targets = tuple(map(_target, servers_of(record)))
    return Upstream(record.uid, targets, _injection(record), http2=record.protocol is Protocol.GRPC)


def _injection(record: PublicationRecord) -> Injection | None:
    auth = record.upstream_auth
    if auth is None:
        return None
    return Injection(auth.header, auth.sealed, owner_of(record, auth.header), auth.secret)


def _target(server: Server) -> Target:
    parts = urlsplit(server.url)
    return Target(
        tls=parts.scheme == "https",
        hostname=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        authority=parts.netloc,
        weight=server.weight,
    )


def _host(name: str, found: list[Laid]) -> Host:
    """Paths first, so that a call which a path decides is decided by it alone, whatever headers Check adds."""
    by_path = [route for one in found for route in one.by_path]
    by_path += found[0].alone if len(found) == 1 else ()
    chosen = [route for one in found for route in one.chosen]
    by_body = any(route.chosen_by_body for route in chosen)
    return Host(
        name=name,
        routes=(*by_path, *sorted(chosen, key=lambda route: route.publication)),
        openai=by_body,
        kserve=any(not route.chosen_by_body for route in chosen),
    )


def _path_routes(record: PublicationRecord) -> Iterator[Route]:
    if record.type is ModelType.OPENAI:
        return _openai_routes(record)
    if record.protocol is Protocol.KSERVE_V1:
        return _written(record, own_v1(record))
    if record.protocol is Protocol.KSERVE_V2:
        return _written(record, own_v2(record))
    return _stripped_routes(record)


def _written(record: PublicationRecord, paths: Iterable[Path]) -> Iterator[Route]:
    for part, path, rewrite, below in paths:
        yield _route(record, part, path, rewrite=rewrite, below=below)


def _openai_routes(record: PublicationRecord) -> Iterator[Route]:
    """``PATH/chat/completions`` is the server's ``/v1/chat/completions``.

    ``/v1/models/NAME`` itself is no route of a publication: there a host's models are asked for by name, which means
    to each key its own tenant's model. At any other path it is the one model's, and Check answers.
    """
    if record.path.rpartition("/")[0] != MODELS_ROOT:
        yield _route(record, "status", record.path, rewrite=f"{MODELS_ROOT}/{record.model}")
    yield _route(record, "below", record.path, below=True, rewrite=f"{OPENAI_ROOT}/", reads_body=True)


def _grpc_route(record: PublicationRecord) -> Route:
    """Calls of gRPC inference whose metadata name the publication."""
    return Route(
        name=f"{record.uid}/grpc",
        publication=record.uid,
        path=inference.ROOT,
        below=True,
        rewrite=f"{inference.ROOT}/",
        grpc=True,
        called_as=inference.called_as(record.path),
        longest_s=LONGEST_S,
    )


def _grpc_alone(record: PublicationRecord) -> tuple[Route, ...]:
    """And those that name no model, on a host that was given to it.

    Not on the one that is there for all: the next publication would take these calls away from it.
    """
    if record.host_unnamed:
        return ()
    return (replace(_grpc_route(record), name=f"{record.uid}/grpc-alone", called_as=""),)


def _stripped_routes(record: PublicationRecord) -> Iterator[Route]:
    """Any other server: the external path is taken off."""
    yield _route(record, "root", record.path, rewrite="/")
    yield _route(record, "below", record.path, below=True, rewrite="/")


def _route(
    record: PublicationRecord,
    part: str,
    path: str,
    *,
    rewrite: str,
    below: bool = False,
    reads_body: bool = False,
) -> Route:
    return Route(
        name=f"{record.uid}/{part}",
        publication=record.uid,
        path=path,
        below=below,
        rewrite=rewrite,
        reads_body=reads_body,
        longest_s=_longest_s(record),
    )


def _longest_s(record: PublicationRecord) -> int:
    """No call outlives its reservation: what it cost would have been presumed while it still ran."""
    return record.tokens.reservation_timeout_s if record.type is ModelType.OPENAI else LONGEST_S


def _chosen_routes(record: PublicationRecord) -> Iterator[Route]:
    """Once Check has named the publication: below /v1, where the path stays as it is, or below what it has written."""
    if record.type is ModelType.OPENAI:
        whole = _route(record, "body", OPENAI_ROOT, rewrite=f"{OPENAI_ROOT}/", below=True, reads_body=True)
        yield replace(whole, chosen=True)
    elif record.is_said_by_path:
        yield replace(_route(record, NAMED_PART, NAMED_ROOT, rewrite="/", below=True), chosen=True)
