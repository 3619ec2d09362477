"""A plan as resources of Envoy Gateway: pure functions from values to JSON-ready objects.

The same plan and options give the same objects in the same order, and the same text. Every field that is ever set is
always set, so that an Envoy Gateway which merges files into what it has keeps nothing of before.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from publisher.gateway.backends import backends
from publisher.gateway.fitting import fitting
from publisher.gateway.grants import grants
from publisher.gateway.infrastructure import infrastructure
from publisher.gateway.naming import Json
from publisher.gateway.options import GatewayOptions
from publisher.gateway.patches import patches, route_patches
from publisher.gateway.routes import carried, no_model_filter, routes
from publisher.gateway.security import gate_backend, security_policy
from publisher.gateway.traffic import client_policy, server_policy
from publisher.plan import Plan

__all__ = ["base", "carried", "fitting", "published", "text"]


def base(options: GatewayOptions) -> tuple[Json, ...]:
    """What holds for the whole gateway, whatever is published. The policy that closes it comes first."""
    return (
        security_policy(options),
        gate_backend(options),
        *grants(options),
        client_policy(options),
        server_policy(options),
        *patches(options),
        no_model_filter(options),
        *infrastructure(options),
    )


def published(plan: Plan, options: GatewayOptions) -> tuple[Json, ...]:
    """What is published: servers, then the routes to them. What ``fitting`` refuses is left out."""
    fit = fitting(plan)
    return (*backends(fit, options), *routes(fit, options), *route_patches(fit, options))


def text(objects: Iterable[Json]) -> str:
    """Objects as one YAML file."""
    return "".join(f"---\n{yaml.dump(obj, Dumper=_Dumper, sort_keys=False, width=120)}" for obj in objects)


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands twice twice, where YAML would point to the first."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  as PyYAML calls it
        return True
