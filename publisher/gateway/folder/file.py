"""Our file of a folder that Envoy Gateway reads: what stands in it, and what would not be forgotten of it. Pure.

It is one, so that whoever loses it loses the routes with the policy that closes them: a gateway without ours serves
nothing of ours.

Envoy Gateway merges a changed object into the one it has (JSON merge patch): a field that is taken out stays in force
until Envoy Gateway is started anew. Lists are replaced whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from publisher.gateway.folder.generation import generation_route
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.manifests import base, published, text
from publisher.gateway.resources.naming import Json, digest, identity, is_name
from publisher.plan import Plan

FILE: Final = "tollkeeper.yaml"
"""The policy that closes the gateway first, what else holds for all of it, then what is published."""

_DOCUMENT: Final = re.compile(r"^---\n", re.MULTILINE)
_POLICY: Final = "SecurityPolicy"


@dataclass(frozen=True, slots=True)
class FolderFile:
    """What is to stand in the folder."""

    text: str
    generation: str  # another text is another one
    hosts: tuple[str, ...]
    objects: int


def rendered(fit: Plan, options: GatewayOptions) -> FolderFile:
    """The file of a plan that fits; raises ``ValueError`` where it would be taken for broken."""
    fixed, published_ = base(options), published(fit, options)
    generation = digest(fixed, published_)
    hosts = tuple(host.name for host in fit.hosts)
    if hosts:
        published_ = (*published_, generation_route(generation, hosts, options))
    objects = (*fixed, *published_)
    file = FolderFile(text(objects), generation, hosts, len(objects))
    _check(file, objects)
    return file


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


def _check(file: FolderFile, objects: tuple[Json, ...]) -> None:
    """One broken file keeps Envoy Gateway from taking up any."""
    if tuple(objects_of(file.text)) != objects:
        raise ValueError("the file does not say what it is to say")
    if objects[0]["kind"] != _POLICY:
        raise ValueError(f"the first object is no {_POLICY}")
    names = [identity(obj) for obj in objects]
    if len(set(names)) != len(names):
        raise ValueError("two objects have one name")
    for obj in objects:
        if not obj.get("apiVersion") or not is_name(obj["metadata"]["name"]) or not isinstance(obj.get("spec"), dict):
            raise ValueError(f"no object may be like {obj['kind']} {obj['metadata']['name']}")
