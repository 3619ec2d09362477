"""What our policies hold for: the one Gateway, or the routes whose calls' bodies Check reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import GATEWAY_LABEL, Json

READ_LABEL: Final = "tollkeeper.dev/bodies"
READS: Final[Mapping[str, str]] = MappingProxyType({READ_LABEL: "read"})
"""Labels of the routes whose calls' bodies Check reads, and of what is there for them alone."""

_GROUP: Final = "gateway.networking.k8s.io"


def gateway_target(options: GatewayOptions) -> Json:
    """The Gateway, all its listeners and routes."""
    return {"group": _GROUP, "kind": "Gateway", "name": options.gateway}


def read_targets(routes: Iterable[Json], options: GatewayOptions) -> Json:
    """Those of these routes that have the label: in a cluster by the label, so that a policy never changes with them.

    An Envoy Gateway that reads files forgets labels, so there they are named.
    """
    if not options.from_files:
        labels = {GATEWAY_LABEL: options.gateway, **READS}
        return {"targetSelectors": [{"group": _GROUP, "kind": "HTTPRoute", "matchLabels": labels}]}
    named = [route["metadata"]["name"] for route in routes if is_read(route)]
    return {"targetRefs": [{"group": _GROUP, "kind": "HTTPRoute", "name": name} for name in named]}


def is_read(obj: Json) -> bool:
    """Whether an object is there for calls whose bodies Check reads, and for no others."""
    return bool(obj["metadata"]["labels"].get(READ_LABEL))
