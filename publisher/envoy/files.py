"""The files that Envoy reads while it runs: pure functions from values to JSON-ready dicts.

Owns the form of such a file and the names that routes, clusters and filters share. Knows no disk and no Envoy process
(``sink`` does), no cluster (``clusters``), no route (``routes``) and nothing of listeners and filters (``bootstrap``).
A file's version is the hash of what it says, so the same plan is the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

ROUTES_NAME: Final = "tollkeeper"
"""The route configuration that the listeners ask for."""

ROUTE_NAMESPACE: Final = "tollkeeper"
"""Route metadata under this name reaches Check: ``publication`` or ``openai_host``."""

PUBLICATION_HEADER: Final = "x-tollkeeper-publication"
"""Names the publication to its server; on calls decided by the body, Check sets it and the route wants it."""

METER_FILTER: Final = "envoy.filters.http.lua/tollkeeper"
"""Reads the usage of an answer as it passes; off unless a route turns it on. There may be other filters of its kind."""

REWRITE_FILTER: Final = "envoy.filters.http.lua/tollkeeper-rewrite"
"""Writes the name that a model's server knows into a body that says another; off unless a route turns it on."""

NO_CLUSTER: Final = "tollkeeper-no-model"
"""The cluster of calls that lead to no model: there is none of this name, nor can a publication's be called so."""

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

IDLE_S: Final = 300
"""Longest silence of a connection without calls, and of a call that has found no model yet, in seconds."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The content of one file: Envoy's DiscoveryResponse. Each resource is kept as text, as it was rendered."""

    version: str
    texts: Mapping[str, str]
    """Each resource as JSON, by its name."""

    def text(self) -> str:
        """The file, as Envoy reads it: a resource a line."""
        head = f'{{"version_info": {compact(self.version)}, "resources": ['
        return "\n".join((head, ",\n".join(self.texts.values()), "]}", ""))

    @property
    def size(self) -> int:
        """About the file's bytes."""
        return sum(map(len, self.texts.values()))

    @classmethod
    def parse(cls, text: str) -> Resources:
        """A file's content; raises ``ValueError``, ``KeyError`` or ``TypeError`` where it is none of ours."""
        response = json.loads(text)
        return cls(response["version_info"], {one["name"]: compact(one) for one in response["resources"]})


def compact(value: object) -> str:
    """A value as JSON without a space too many: Envoy reads some ten MB a second."""
    return json.dumps(value, separators=(",", ":"))


def together(old: Resources, new: Resources) -> Resources:
    """What both files say, the new one's word where both name a resource: nothing old is missed while routes move."""
    named = {**old.texts, **new.texts}
    return new if len(named) == len(new.texts) else versioned({name: named[name] for name in sorted(named)})


def error_body(*, message: str, kind: str, code: str) -> str:
    """An error in OpenAI's shape, for the answers Envoy gives by itself."""
    return json.dumps({"error": {"message": message, "type": kind, "code": code, "param": None}})


def cluster_name(publication: str) -> str:
    """The cluster of a publication."""
    return f"publication-{publication}"


def http_options(version: Json, filters: Sequence[Json] = ()) -> Json:
    """The protocol spoken to a cluster, and what its calls pass on their way, as its extension options."""
    options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": version}
    return {_HTTP_OPTIONS: options | ({"http_filters": list(filters)} if filters else {})}


def assignment(name: str, addresses: Sequence[Json]) -> Json:
    """The endpoints of a cluster."""
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def socket_address(address: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": address, "port_value": port}}


def watched_file(folder: str, name: str) -> Json:
    """A file of resources that is read again whenever another is renamed into its place.

    Not whenever something is renamed into its folder: each of our files would be read again with every other.
    """
    source = {"path": f"{folder}/{name}"}
    return {"resource_api_version": "V3", "path_config_source": source}


def versioned(texts: Mapping[str, str]) -> Resources:
    """These resources by name, with the hash of what they say."""
    said = hashlib.sha256()
    for text in texts.values():
        said.update(text.encode())
        said.update(b"\n")
    return Resources(said.hexdigest()[:16], texts)
