"""How the publisher sees that Envoy Gateway has taken its files up: a route that says which. Pure.

Envoy Gateway reads all of a folder at once, so where this route leads to the hash of the files, all that they say is in
force, what was taken out of them too. Check answers a probe call there as it would for a host's openai models. There is
no host of that name, so nobody else learns or gets anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauth.answers.probing import OPENAI_HOST
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import Json, made, own_name
from publisher.gateway.resources.rules import entry
from publisher.probes import Question

MAX_HOSTS: Final = 16
"""Most host names of an HTTPRoute (Gateway API)."""

_PATH: Final = "/:tollkeeper/"
"""No publication's path can begin so."""


def generation_route(generation: str, hosts: Sequence[str], options: GatewayOptions) -> Json:
    """The route, on the first few hosts: the listeners take what is published there, if anything."""
    matches = [{"path": {"type": "Exact", "value": _PATH + generation}}]
    spec = {
        "parentRefs": [{"name": options.gateway}],
        "hostnames": list(hosts[:MAX_HOSTS]),
        "rules": [entry(_name(generation), matches, options)],
    }
    name = own_name(options.gateway, "generation")
    return made("HTTPRoute", name, spec, namespace=options.namespace, gateway=options.gateway)


def generation_questions(generation: str, hosts: Sequence[str]) -> tuple[Question, ...]:
    """What is to be asked; one right answer is enough."""
    return tuple(Question(host, _PATH + generation, OPENAI_HOST, _name(generation)) for host in hosts[:MAX_HOSTS])


def _name(generation: str) -> str:
    return f"{generation}.generation"
