"""What a call's route says of it: whose it is, by the metadata that the proxy hands on. Knows protobuf's Struct only.

Plain Envoy's routes carry our own metadata. Envoy Gateway's carry its own, which names the HTTPRoute and the rule that
matched; it is believed of the one namespace that the gate was told, and of routes with our prefix. Whoever may write
HTTPRoutes there decides whose a call is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from google.protobuf.struct_pb2 import Struct

from extauth.request.packed import UNPACKS
from extauth.request.route_names import ROUTE_KIND, ROUTE_PREFIX, is_by_path, read_rule

ROUTE_NAMESPACE: Final = "tollkeeper"
"""Metadata of plain Envoy's routes: ``publication`` or ``openai_host``, whether it ``unpacks``."""
GRPC: Final = "grpc"
"""What a route of gRPC says besides."""
BY_PATH: Final = "kserve"
"""What a route says besides whose calls name the model by the path, in KServe's words."""
GATEWAY_METADATA: Final = "envoy-gateway"
"""Metadata that Envoy Gateway puts on every route it makes."""


class Routed(NamedTuple):
    """At most one of both; neither where the route names nothing that we believe."""

    publication: str = ""  # uid
    openai_host: str = ""
    unpacks: bool = False  # the proxy unpacks the call's body if it passes
    grpc: bool = False  # its calls are gRPC
    by_path: bool = False  # the path names the model, in KServe's words (``extauth.kserve.paths``)


NOWHERE: Final = Routed()


def routed(metadata: Mapping[str, Struct], gateway_namespace: str) -> Routed:
    """Read a route's metadata; ``gateway_namespace``: of the HTTPRoutes that are believed, "" for none."""
    own = metadata.get(ROUTE_NAMESPACE)
    if own is not None:
        fields = own.fields
        named = fields.get("publication")
        publication, unpacks = "" if named is None else named.string_value, UNPACKS in fields
        by_path = BY_PATH in fields
        if not publication and "openai_host" in fields:  # a route that names both means the publication
            return Routed("", fields["openai_host"].string_value, unpacks, by_path=by_path)
        return Routed(publication, "", unpacks, GRPC in fields, by_path)
    if gateway_namespace and GATEWAY_METADATA in metadata:
        return _by_rule(metadata[GATEWAY_METADATA], gateway_namespace)
    return NOWHERE


def _by_rule(told: Struct, namespace: str) -> Routed:
    """Of ``{"resources": [{kind, namespace, name, sectionName}]}``; the first resource is the route."""
    resources = told.fields["resources"].list_value.values
    route = resources[0].struct_value.fields if resources else {}
    kind, where, name, rule = (
        route[key].string_value if key in route else "" for key in ("kind", "namespace", "name", "sectionName")
    )
    if kind != ROUTE_KIND or where != namespace or not name.startswith(ROUTE_PREFIX):
        return NOWHERE
    publication, host = read_rule(rule)
    return Routed(publication, host, by_path=is_by_path(rule))
