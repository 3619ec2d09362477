"""What all tests on the real Envoy Gateway find published: servers that echo, and one that sends any bytes.

Written to the catalog as the admin does, and brought into force by the admin's own publisher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from gatewaystack import Machine

from catalog.records import HostRecord, Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from tests.e2e.metered import CONTEXT, LIMIT, Answer, MeteredModel, RawServer
from tests.e2e.proxy import HOST, Upstream

OWN, OTHER = "tenant-a", "tenant-b"
OPENAI: Mapping[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}


class MeteredHere(MeteredModel):
    """The raw server's model, metered by a gate that is a process of its own."""

    machine: Machine

    def sample(self, name: str, **labels: str) -> float:
        """A counter of the gate's."""
        return self.machine.metric(name, **labels)


@dataclass
class Ground:
    """``iris`` and ``plain`` are traditional, ``echo`` and ``llm`` openai, all tenant-a's; tenant-b shares its own
    ``echo`` and hides its ``secret``."""  # noqa: D205, D209

    machine: Machine
    key: str  # tenant-a's, for all that tenant-a may call
    publications: dict[str, PublicationRecord]  # by "model", tenant-b's by "tenant-b/model"
    servers: dict[str, Upstream]  # by the same names
    raw: RawServer

    @property
    def with_key(self) -> str:
        """The header of a good call."""
        return f"x-api-key: {self.key}"

    def metered(self) -> MeteredHere:
        """The raw server's model, for tests of what calls cost."""
        rig = MeteredHere(self.machine, self.raw, self.machine.store, self.publications["llm"], self.key)
        rig.machine = self.machine
        return rig

    def reached(self) -> dict[str, int]:
        """How many calls each echoing server has seen."""
        return {name: server.seen for name, server in self.servers.items()}


@contextmanager
def ground(machine: Machine, answers: dict[str, Answer]) -> Iterator[Ground]:
    """Publish, and wait until all of it is served."""
    names = ("iris", "plain", "echo", f"{OTHER}/echo", f"{OTHER}/secret")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Upstream(name)) for name in names}
        raw = stack.enter_context(RawServer())
        raw.answers = answers
        published = _publish(machine, servers, raw.url)
        callable_ones = [one for name, one in published.items() if name != f"{OTHER}/secret"]
        _, key = machine.catalog.key(*callable_ones)
        machine.await_all_live()
        yield Ground(machine, key, published, servers, raw)


def _publish(machine: Machine, servers: Mapping[str, Upstream], raw: str) -> dict[str, PublicationRecord]:
    catalog = machine.catalog
    catalog.default_host = HOST
    catalog.tenant(OWN)
    catalog.tenant(OTHER)
    tokens, limits = TokenPolicy(context_tokens=CONTEXT), Limits(tokens_per_hour=LIMIT)
    urls = {name: server.url for name, server in servers.items()}
    made = {
        "iris": catalog.publication(OWN, "iris", url=urls["iris"]),
        "plain": catalog.publication(OWN, "plain", url=urls["plain"], protocol=Protocol.HTTP),
        "echo": catalog.publication(OWN, "echo", url=urls["echo"], path="/v1/models/echo", **OPENAI),
        "llm": catalog.publication(OWN, "llm", url=raw, path="/v1/models/llm", tokens=tokens, limits=limits, **OPENAI),
        f"{OTHER}/echo": catalog.publication(
            OTHER, "echo", url=urls[f"{OTHER}/echo"], path="/v1/models/shared", allowed_tenants=(OTHER, OWN), **OPENAI
        ),
        f"{OTHER}/secret": catalog.publication(
            OTHER, "secret", url=urls[f"{OTHER}/secret"], path="/v1/models/secret", **OPENAI
        ),
    }
    by_model = {f"{one.tenant}/{one.model}": one.uid for one in made.values() if one.type is ModelType.OPENAI}
    catalog.add(HostRecord(HOST, {one.path: one.uid for one in made.values()}, by_model))
    return made
