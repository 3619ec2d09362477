"""Thousands of odd hosts, paths and bodies through Envoy Gateway: no key ever reaches another model than its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from gatewaystack import Machine

from catalog.records import HostRecord, PublicationRecord
from tests.e2e.oddcalls import SHAPES, Call, all_reached, odd_calls
from tests.e2e.proxy import Upstream, openai

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(300)]

CALLS = 4_000
SEED = 20_262
TENANT = "odd"
OPENED = ("x", "deep", "predict", "explain", "inner", "v2")
"""Endpoints of openai models besides those that all have: what odd calls ask for below their paths."""


@dataclass
class OddGround:
    """Twelve publications, each with a server and a key of its own."""

    machine: Machine
    servers: dict[str, Upstream]
    keys: dict[str, str]
    uids: dict[str, str]

    def key_of(self, chance: random.Random, _number: int, name: str) -> str:
        """Mostly the key of the publication whose path it resembles."""
        return self.keys[name if chance.random() < 0.8 else chance.choice(sorted(self.keys))]

    def forged(self, text: bytes) -> bytes:
        """Forge the uid where a call forges a publication's name."""
        for name, uid in self.uids.items():
            text = text.replace(
                f"x-tollkeeper-publication: {name}\r\n".encode(), f"x-tollkeeper-publication: {uid}\r\n".encode()
            )
        return text


@pytest.fixture(scope="module")
def odd(gateway: Machine) -> Iterator[OddGround]:
    """Publish, and wait until each is served."""
    gateway.catalog.tenant(TENANT)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Upstream(name)) for _, name, *_ in SHAPES}
        made = {name: _published(gateway, servers[name].url, shape) for shape in SHAPES for name in [shape[1]]}
        for host in {one.host for one in made.values()}:
            here = [one for one in made.values() if one.host == host]
            models = {f"{TENANT}/{one.model}": one.uid for one in here if one.is_said}
            gateway.catalog.add(HostRecord(host, {one.path: one.uid for one in here}, models))
        keys = {name: gateway.catalog.key(one, tenant=TENANT)[1] for name, one in made.items()}
        ground = OddGround(gateway, servers, keys, {name: one.uid for name, one in made.items()})
        gateway.await_all_live()
        yield ground


_OPENAI = {name for make, name, *_ in SHAPES if make is openai}


def _published(gateway: Machine, url: str, shape: tuple[object, str, str, str]) -> PublicationRecord:
    make, name, host, path = shape
    like = make(name, path)  # type: ignore[operator]
    facts = {"type": like.type, "protocol": like.protocol, "allowed_endpoints": OPENED if name in _OPENAI else ()}
    return gateway.catalog.publication(TENANT, name, url=url, host=host, path=path, **facts)


def test_what_is_decided_is_what_is_reached(odd: OddGround) -> None:
    """Check admits a key to its one publication only: so whatever was asked, its server is the one that is reached."""
    calls = [Call(one.number, one.key, odd.forged(one.text)) for one in odd_calls(SEED, CALLS, odd.key_of)]
    before = {name: _admitted(odd, name) for name in odd.servers}
    seen_before = {name: server.seen for name, server in odd.servers.items()}
    reached = all_reached(odd.machine, calls)
    names = {key: name for name, key in odd.keys.items()}
    wrong = {one.text: reached[one.number] for one in calls if reached[one.number] not in {"", names[one.key]}}
    assert wrong == {}
    counts = Counter(reached.values())
    assert set(counts) == {"", *odd.servers}, "each server was reached, and some calls reached none"
    assert min(counts.values()) >= CALLS // 500
    admitted = {name: _admitted(odd, name) - before[name] for name in odd.servers}
    assert admitted == {name: server.seen - seen_before[name] for name, server in odd.servers.items()}


def _admitted(odd: OddGround, name: str) -> float:
    return odd.machine.metric("tollkeeper_decisions_total", reason="ok", publication=f"{TENANT}/{name}")
