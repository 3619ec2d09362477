"""Leave to use a Secret of another namespace, in that namespace. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from publisher.gateway.options import GatewayOptions, SecretRef
from publisher.gateway.resources.naming import Json, made, own_name


def grants(options: GatewayOptions) -> list[Json]:
    """One ReferenceGrant for all Secrets of a namespace; model servers need none, they are named by address."""
    elsewhere: dict[tuple[str, str, str], list[str]] = {}
    for kind, group, secret in _used(options):
        if secret.namespace:
            elsewhere.setdefault((kind, group, secret.namespace), []).append(secret.name)
    return [_grant(*place, names, options) for place, names in elsewhere.items()]


def _used(options: GatewayOptions) -> Iterator[tuple[str, str, SecretRef]]:
    if options.gate_tls is not None and options.gate_tls.client is not None:
        yield "Backend", "gateway.envoyproxy.io", options.gate_tls.client
    for certificate in options.host.certificates if options.host is not None else ():
        yield "Gateway", "gateway.networking.k8s.io", certificate


def _grant(kind: str, group: str, namespace: str, secrets: Sequence[str], options: GatewayOptions) -> Json:
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": options.namespace}],
        "to": [{"group": "", "kind": "Secret", "name": name} for name in secrets],
    }
    name = own_name(options.gateway, f"{kind.lower()}-secret")
    return made("ReferenceGrant", name, spec, namespace=namespace, gateway=options.gateway)
