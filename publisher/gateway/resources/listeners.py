"""Which of a gateway's listeners take a host's routes, as Envoy Gateway deals them out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from publisher.gateway.options import GatewayOptions, RouteListener

ANY_LABEL: Final = "*."
"""How a listener's hostname begins that stands for all names below it, at any depth."""


def taking(hosts: Collection[str], options: GatewayOptions) -> list[RouteListener]:
    """Those that have a route of one of these hosts, in the order they were told."""
    everyone = _route_listeners(options)
    return [one for one in everyone if any(_takes(one, host, everyone) for host in hosts)]


def _route_listeners(options: GatewayOptions) -> Sequence[RouteListener]:
    alone = [RouteListener(name=name, listener=name) for name in options.listeners]
    return options.route_listeners or alone


def _takes(one: RouteListener, host: str, everyone: Sequence[RouteListener]) -> bool:
    """A wider listener has nothing of a host that another of the same port is called by."""
    if one.hostname == host:
        return True
    taken = any(other.hostname == host and other.listener == one.listener for other in everyone)
    return not taken and _covers(one.hostname, host)


def _covers(hostname: str, host: str) -> bool:
    return not hostname or (hostname.startswith(ANY_LABEL) and host.endswith(hostname[1:]))
