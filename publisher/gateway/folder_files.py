"""The two files of a folder that Envoy Gateway reads: what stands in them, and what it would not forget. Pure.

Envoy Gateway merges a changed object into the one it has (JSON merge patch): a field that is taken out stays in force
until Envoy Gateway is started anew. Lists are replaced whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from publisher.gateway.generation import generation_route
from publisher.gateway.manifests import base, published, text
from publisher.gateway.naming import Json, digest, identity, is_name
from publisher.gateway.options import GatewayOptions
from publisher.plan import Plan

BASE_FILE: Final = "tollkeeper-gateway.yaml"
"""What holds for the whole gateway, the policy that closes it first."""

PUBLISHED_FILE: Final = "tollkeeper-publications.yaml"

_DOCUMENT: Final = re.compile(r"^---\n", re.MULTILINE)
_POLICY: Final = "SecurityPolicy"


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """What is to stand in the folder."""

    base: str
    published: str
    generation: str  # of both: another text is another one
    hosts: tuple[str, ...]
    objects: int


def rendered(fit: Plan, options: GatewayOptions) -> FolderFiles:
    """The files of a plan that fits; raises ``ValueError`` where one would be taken for broken."""
    fixed, published_ = base(options), published(fit, options)
    generation = digest(fixed, published_)
    hosts = tuple(host.name for host in fit.hosts)
    if hosts:
        published_ = (*published_, generation_route(generation, hosts, options))
    files = FolderFiles(text(fixed), text(published_), generation, hosts, len(fixed) + len(published_))
    _check(files, (*fixed, *published_))
    return files


def objects_of(written: str) -> list[Json]:
    """The objects of a file of ours; raises ``ValueError`` where it is none."""
    found = [json.loads(document) for document in _DOCUMENT.split(written) if document.strip()]
    if not all(isinstance(obj, dict) and _has_identity(obj) for obj in found):
        raise ValueError("is no file of ours")
    return found


def kept(before: Iterable[Json], wanted: Iterable[Json]) -> list[str]:
    """What Envoy Gateway would not forget, or must not: fields taken out of an object, a policy that is gone."""
    new = {identity(obj): obj for obj in wanted}
    found: list[str] = []
    for obj in before:
        named = f"{obj['kind']} {obj['metadata']['name']}"
        if identity(obj) in new:
            gone = _gone(obj.get("spec", {}), new[identity(obj)].get("spec", {}), "spec")
            found += [f"{named}: {field}" for field in gone]
        elif obj["kind"] == _POLICY:
            found.append(f"{named} itself")
    return found


def _gone(before: Any, wanted: Any, path: str) -> Iterator[str]:
    if not isinstance(before, Mapping) or not isinstance(wanted, Mapping):
        return
    for name, value in before.items():
        if name not in wanted:
            yield f"{path}.{name}"
        else:
            yield from _gone(value, wanted[name], f"{path}.{name}")


def _has_identity(obj: Json) -> bool:
    metadata = obj.get("metadata")
    return isinstance(obj.get("kind"), str) and isinstance(metadata, dict) and isinstance(metadata.get("name"), str)


def _check(files: FolderFiles, objects: tuple[Json, ...]) -> None:
    """One broken file keeps Envoy Gateway from taking up any."""
    if (*objects_of(files.base), *objects_of(files.published)) != objects:
        raise ValueError("the files do not say what they are to say")
    if objects[0]["kind"] != _POLICY:
        raise ValueError(f"the first object is no {_POLICY}")
    names = [identity(obj) for obj in objects]
    if len(set(names)) != len(names):
        raise ValueError("two objects have one name")
    for obj in objects:
        if not obj.get("apiVersion") or not is_name(obj["metadata"]["name"]) or not isinstance(obj.get("spec"), dict):
            raise ValueError(f"no object may be like {obj['kind']} {obj['metadata']['name']}")
