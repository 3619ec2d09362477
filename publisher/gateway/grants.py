"""Leave to use a Secret of another namespace, in that namespace. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.gateway.naming import Json, made, own_name
from publisher.gateway.options import GatewayOptions, SecretRef


def grants(options: GatewayOptions) -> list[Json]:
    """One ReferenceGrant for each Secret that lies elsewhere; model servers need none, they are named by address."""
    return [_grant(kind, group, secret, options) for kind, group, secret in _used(options) if secret.namespace]


def _used(options: GatewayOptions) -> Iterator[tuple[str, str, SecretRef]]:
    if options.gate_tls is not None and options.gate_tls.client is not None:
        yield "Backend", "gateway.envoyproxy.io", options.gate_tls.client
    if options.host is not None and options.host.certificate is not None:
        yield "Gateway", "gateway.networking.k8s.io", options.host.certificate


def _grant(kind: str, group: str, secret: SecretRef, options: GatewayOptions) -> Json:
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": options.namespace}],
        "to": [{"group": "", "kind": "Secret", "name": secret.name}],
    }
    name = own_name(options.gateway, f"{kind.lower()}-secret")
    return made("ReferenceGrant", name, spec, namespace=secret.namespace, gateway=options.gateway)
