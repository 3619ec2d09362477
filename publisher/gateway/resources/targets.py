"""What our policies hold for: the one Gateway. Pure."""

from __future__ import annotations

from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import Json


def gateway_target(options: GatewayOptions) -> Json:
    """The Gateway, all its listeners and routes."""
    return {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": options.gateway}
