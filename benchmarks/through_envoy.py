"""What a call costs through Envoy: our one callout for keys and limits beside ratelimit's, alone and with a second one.

    python -m benchmarks.through_envoy [--rounds 5] [--seconds 2]

Three Envoys of one thread each, in front of the same model server: one as Tollkeeper configures it, hardened, asking
the gate (a key with three budgets); one that has nothing but Envoy's ratelimit filter (three descriptors of the key)
with its headers; and that with a plain ext_authz callout before it, to a service that admits everybody unread. They
take turns. All services and stores listen on Unix sockets, as the product ships. Counted is the processor time of all
processes that a call passes: Envoy, gate or services, store; not the generator (h2load, HTTP/1.1, 16 connections) nor
the model server. The answers' `remaining` is checked.
"""

from __future__ import annotations

import contextlib
import http.client
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.ground import envoys, gates, h2load, limits
from benchmarks.ground.contenders import REFUSED, Contender, take_turns
from benchmarks.ground.h2load import Target
from benchmarks.ground.ratelimit import RateLimit, ratelimit
from benchmarks.ground.rows import Row, cost_row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from catalog.records import Limits
from tests.e2e.proxy import Envoy, options_for

CONNECTIONS: Final = 16
BODY: Final = b'{"instances":[1]}'


def contender(name: str, target: Target, parts: dict[str, list[int]]) -> Contender:
    """A side behind its Envoy."""
    return Contender(
        name,
        target,
        parts,
        partial(remaining, target),
        partial(h2load.load, target, connections=CONNECTIONS, streams=1),
    )


def remaining(target: Target) -> int:
    """Make one call; what its answer says is left, or REFUSED where nobody counts."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    headers = dict(header.split(": ", 1) for header in target.headers)
    connection.request("POST", target.path, target.payload, headers)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise SystemExit(f"a call through Envoy was answered by {answer.status}: {answer.read()!r}")
    connection.close()
    return int(answer.headers.get("x-ratelimit-remaining", REFUSED))


def target_of(port: int, host: str, path: str, key: str) -> Target:
    """A call of a traditional model."""
    headers = (f"host: {host}", f"x-api-key: {key}", "content-type: application/json")
    return Target(port, path, BODY, headers, is_grpc=False)


@contextlib.contextmanager
def ours(model: int) -> Iterator[Contender]:
    """A gate behind an Envoy as the product configures it."""
    own = Limits(burst=limits.PLENTY, per_minute=limits.PLENTY, per_hour=limits.HOUR)
    with tempfile.TemporaryDirectory(prefix="tk-") as folder, gates.gate(listen=f"unix:{folder}/gate.sock") as gate:
        gate.catalog.tenant("bench")
        publication = gate.catalog.publication("bench", "bench", url=f"http://127.0.0.1:{model}")
        key = gate.catalog.key(publication, tenant="bench", limits=own)[1]
        envoy = Envoy(options_for(Path(folder), f"unix:{folder}/gate.sock"))
        envoy.publish([publication])
        with envoy:
            target = target_of(envoy.ports["http"], publication.host, f"{publication.path}/predict", key)
            yield contender("Tollkeeper", target, {"Envoy": [envoy.pid], **gate.parts})


def theirs(name: str, proxy: envoys.Proxy, peer: RateLimit, **more: list[int]) -> Contender:
    """Ratelimit behind its Envoy."""
    target = target_of(proxy.port, "api.example.test", "/models/bench/predict", "a-key-of-some-length")
    return contender(name, target, {"Envoy": [proxy.pid], "server": [peer.pid], **more, "store": [peer.store.pid]})


def measure(rounds: int, seconds: float) -> list[Row]:
    """Run both rows, and tell each."""
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(envoys.model_server())
        mine = stack.enter_context(ours(model))
        peers = [stack.enter_context(ratelimit(on_unix=True)) for _ in range(2)]
        sockets = [peer.socket or Path() for peer in peers]
        authz, authz_pid = stack.enter_context(envoys.plain_authz())
        one = stack.enter_context(envoys.with_ratelimit(sockets[0], model))
        two = stack.enter_context(envoys.with_ratelimit(sockets[1], model, authz))
        alone = theirs("ratelimit alone", one, peers[0])
        both = theirs("ratelimit and ext_authz", two, peers[1], ext_authz=[authz_pid])
        bare = stack.enter_context(envoys.plain(model))
        nobody = contender("nobody asked", target_of(bare.port, "api.example.test", "/", "-"), {"Envoy": [bare.pid]})
        take_turns([mine, alone, both, nobody], rounds, seconds)
        note = f"an Envoy without filters, which asks nobody: {Spread.of(nobody.sums)} us a call"
        return [tell(cost_row("envoy_one", mine, alone).noted(note)), tell(cost_row("envoy_two", mine, both))]


def main() -> None:
    """Run."""
    options = parser_of(__doc__, rounds=5, seconds=2).parse_args()
    h2load.require()
    save(measure(options.rounds, options.seconds), options.json)


if __name__ == "__main__":
    main()
