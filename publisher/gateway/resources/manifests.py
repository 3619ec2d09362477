"""A plan as resources of Envoy Gateway: pure functions from values to JSON-ready objects.

The same plan and options give the same objects in the same order, and the same text. Every field that is ever set is
always set, so that an Envoy Gateway which merges files into what it has keeps nothing of before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from publisher.gateway.endings import endings_backends
from publisher.gateway.gate import gate_backend
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.ai_routes import ai_routes
from publisher.gateway.resources.backends import backends, nobody
from publisher.gateway.resources.fitting import fitting
from publisher.gateway.resources.grants import grants
from publisher.gateway.resources.infrastructure import infrastructure
from publisher.gateway.resources.metering import meter_policy
from publisher.gateway.resources.naming import Json
from publisher.gateway.resources.patches import gates_patch, patches
from publisher.gateway.resources.routes import carried, credential_filters, no_model_filter, own_host_filter, routes
from publisher.gateway.resources.security import bodies_policy, security_policy
from publisher.gateway.resources.traffic import client_policy, server_policy
from publisher.plan import Plan

__all__ = ["base", "carried", "fitting", "published", "text"]


def base(options: GatewayOptions) -> tuple[Json, ...]:
    """What holds for the whole gateway, whatever is published. The policy that closes it comes first."""
    return (
        security_policy(options),
        gate_backend(options),
        *nobody(options),
        *endings_backends(options),
        *grants(options),
        client_policy(options),
        server_policy(options),
        *patches(options),
        no_model_filter(options),
        own_host_filter(options),
        *infrastructure(options),
    )


def published(plan: Plan, options: GatewayOptions) -> tuple[Json, ...]:
    """What is published: servers, then the routes to them. What ``fitting`` refuses is left out.

    Before them what brings their calls' bodies to Check and has their answers metered.
    """
    fit = fitting(plan, options)
    laid = routes(fit, options)
    return (
        bodies_policy(laid, options),
        *meter_policy(laid, options),
        *backends(fit, options),
        *credential_filters(fit, options),
        *laid,
        *ai_routes(fit, options),
        *gates_patch(fit, options),
    )


def text(objects: Iterable[Json]) -> str:
    """Objects as one YAML file, each as JSON: no reader takes a name for a number or for a truth (``n``, ``on``)."""
    return "".join(f"---\n{json.dumps(obj, indent=1)}\n" for obj in objects)
