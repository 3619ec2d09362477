"""Endings while gates come and go: a rolling update from the release before, a gate that is killed and comes back."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from authority import Authority
from gatebench import Catalog, wait_until
from gaterow import command

from catalog.keys.secrets import create_secrets
from catalog.records import Limits, ModelType, Protocol, TokenPolicy
from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.endings import ENDINGS
from publisher.envoy.gate import GATE, GateTls
from tests.e2e.metered import CONTEXT, MODEL, PATH, MeteredModel, RawServer, document
from tests.e2e.olderenvoy import as_the_release_before
from tests.e2e.proxy import HOST, Envoy, options_for, short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ANSWERS = {"json": document({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})}
TOLD = 12
PATIENCE_S = 60
RESERVED_S = 4
CALLERS = 4


@dataclass
class Place:
    """One gate's place: where it listens, and the process that is there now."""

    number: int
    folder: Path
    words: list[str]
    target: str  # where Envoy asks
    endings: str  # where Envoy tells
    url: str = ""
    started: int = 0

    def start(self, *, hears: bool = True) -> None:
        """Start a gate there, ready; one of the release before ``hears`` nothing at that address."""
        self.started += 1
        log = self.folder / f"gate-{self.number}.{self.started}.log"
        own = ["--endings-listen", self.endings] if hears else []
        with log.open("wb") as said:
            self.process = subprocess.Popen(command(*self.words, "--listen", self.target, *own), stderr=said)
        wait_until(lambda: ", http " in log.read_text() or self.process.poll() is not None, PATIENCE_S)
        assert self.process.poll() is None, log.read_text()
        self.url = "http://" + log.read_text().partition(", http ")[2].split()[0]
        wait_until(lambda: bool(requests.get(f"{self.url}/readyz", timeout=10).json()["ready"]), PATIENCE_S)

    def replace(self) -> None:
        """As a rolling update does: drained, and another one in its place."""
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0
        self.start()

    def kill(self) -> None:
        """End it as a machine does that loses its power."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def counted(self, line: str) -> float:
        """The sum of the samples whose lines begin with this."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return sum(float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line))


@dataclass
class Fleet:
    """Two gates, and a model behind as many Envoys as a test wants."""

    gates: list[Place]
    folder: Path
    stack: ExitStack
    of_envoy: dict[str, Any]  # how it is let in
    model: Callable[[Envoy], MeteredModel]

    def envoy(self, name: str, *, older: bool = False, threads: int = 1) -> MeteredModel:
        """One more Envoy that asks both gates, and tells both."""
        folder = self.folder / name
        folder.mkdir()
        gates, endings = [one.target for one in self.gates], [one.endings for one in self.gates]
        options = options_for(folder, *gates, endings=endings, **self.of_envoy)
        envoy = Envoy(options, as_the_release_before(bootstrap(options)) if older else None, threads=threads)
        model = self.model(envoy)
        envoy.publish([model.publication])
        self.stack.enter_context(envoy)
        wait_until(lambda: envoy.stat(f"cluster.{GATE}.membership_healthy") == len(gates), PATIENCE_S)
        return model

    def both_hear(self, model: MeteredModel) -> bool:
        """Whether Envoy knows both gates to hear endings."""
        assert isinstance(model.envoy, Envoy)
        return model.envoy.stat(f"cluster.{ENDINGS}.membership_healthy") == len(self.gates)


@dataclass(frozen=True)
class Wire:
    """How Envoys and gates talk."""

    addresses: list[str]  # two to ask, two to tell
    words: list[str] = field(default_factory=list)  # what gates are told of it
    of_envoy: dict[str, Any] = field(default_factory=dict)


def sockets(folder: Path) -> Wire:
    """By Unix sockets."""
    return Wire([f"unix:{folder}/{name}-{number}.sock" for name in ("gate", "endings") for number in range(2)])


def tcp_with_mtls(folder: Path) -> Wire:
    """Over TCP, each side showing a certificate."""
    ours = Authority(folder, "ours")
    (chain, key), (shown, shown_key) = ours.give("gate.internal"), ours.give("envoy")
    words = ["--transport", "grpcio", "--tls-certificate", str(chain), "--tls-key", str(key)]
    tls = GateTls(ca=str(ours.ca), name="gate.internal", certificate=str(shown), private_key=str(shown_key))
    addresses = [_free_address() for _ in range(4)]
    return Wire(addresses, [*words, "--tls-client-ca", str(ours.ca)], {"gate_tls": tls})


def _free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


@contextmanager
def fleet(
    redis_url: str, wire: Callable[[Path], Wire] = sockets, *, hears: tuple[bool, bool] = (True, True)
) -> Iterator[Fleet]:
    """Start two gates."""
    with short_folder() as folder, ExitStack() as stack:
        catalog = Catalog(redis_url, create_secrets(folder / "secrets.json"))
        catalog.tenant()
        server = stack.enter_context(RawServer())
        server.answers = dict(ANSWERS)
        publication = catalog.publication(
            model=MODEL,
            path=PATH,
            url=server.url,
            host=HOST,
            type=ModelType.OPENAI,
            protocol=Protocol.OPENAI,
            limits=Limits(tokens_per_hour=10**8),
            tokens=TokenPolicy(context_tokens=CONTEXT, reservation_timeout_s=RESERVED_S),
        )
        _, key = catalog.key(publication)
        store = stack.enter_context(redis.Redis.from_url(redis_url))
        words = ["--redis-url", redis_url, "--secrets-file", f"{folder}/secrets.json", "--http-listen", "127.0.0.1:0"]
        words += ["--drain-s", "0.7", "--store-wait-ms", "190"]
        made = wire(folder)
        words += made.words
        gates = [
            Place(number, folder, words, made.addresses[number], made.addresses[2 + number]) for number in range(2)
        ]
        for gate, one_hears in zip(gates, hears, strict=True):
            gate.start(hears=one_hears)
            stack.callback(lambda gate=gate: gate.kill())
        yield Fleet(
            gates, folder, stack, made.of_envoy, lambda envoy: MeteredModel(envoy, server, store, publication, key)
        )


@dataclass
class Calls:
    """Callers that go on until they are told to stop."""

    models: list[MeteredModel]
    statuses: Counter[int] = field(default_factory=Counter)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call while the body runs."""
        self._stopping, self._lock = threading.Event(), threading.Lock()
        threads = [threading.Thread(target=self._call, args=(one,)) for one in self.models for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(PATIENCE_S)

    def _call(self, model: MeteredModel) -> None:
        while not self._stopping.is_set():
            status = model.call("json").status
            with self._lock:
                self.statuses[status] += 1
            time.sleep(0.01)  # the rate of a caller, not a wait for something

    def some_more(self, calls: int = 40) -> None:
        """Wait for so many more answers."""
        before = self.statuses.total()
        wait_until(lambda: self.statuses.total() >= before + calls, PATIENCE_S)


def test_a_rolling_update_from_the_release_before_loses_no_ending(redis_url: str) -> None:
    """Every call that was admitted is charged what its answer told, once.

    Envoys of both releases and gates of both, on one store, replaced one after the other under load.
    """
    with fleet(redis_url, hears=(False, True)) as gates:
        older, newer = gates.envoy("older", older=True), gates.envoy("newer")
        calls = Calls([older, newer])
        with calls.running():
            calls.some_more()
            for gate in (gates.gates[0], gates.gates[1]):
                gate.replace()
                calls.some_more()
                wait_until(lambda: gates.both_hear(newer), PATIENCE_S)
            calls.some_more()
        assert calls.statuses.keys() <= {200, 503}, calls.statuses
        assert newer.settled() == TOLD * calls.statuses[200]
        assert sum(gate.counted("tollkeeper_reservations_presumed_total") for gate in gates.gates) == 0
        assert sum(gate.counted('tollkeeper_endings_heard_total{way="stream_done"}') for gate in gates.gates) > 0


@pytest.mark.parametrize("wire", [sockets, tcp_with_mtls])
def test_a_killed_gates_endings_go_to_another(redis_url: str, wire: Callable[[Path], Wire]) -> None:
    """What it had not read or settled is presumed when its time is over, and no more; the other hears all that follow.

    Once it is back, it hears its share again.
    """
    with fleet(redis_url, wire) as gates:
        models = [gates.envoy(name) for name in ("one", "two")]
        calls = Calls(models)
        first, second = gates.gates
        with calls.running():
            wait_until(lambda: all(gate.counted("tollkeeper_endings_heard_total") > 50 for gate in gates.gates), 90)
            first.kill()
            heard = second.counted("tollkeeper_endings_heard_total")
            wait_until(lambda: second.counted("tollkeeper_endings_heard_total") > heard + 100, PATIENCE_S)
            first.start()
            wait_until(lambda: first.counted("tollkeeper_endings_heard_total") > 50, 90)
        used = models[0].settled()
        presumed = sum(gate.counted("tollkeeper_reservations_presumed_total") for gate in gates.gates)
        tokens = sum(gate.counted("tollkeeper_tokens_presumed_total") for gate in gates.gates)
        assert presumed < calls.statuses[200] / 20
        assert used >= TOLD * (calls.statuses[200] - presumed) + tokens
        unanswered = calls.statuses.total() - calls.statuses[200]  # of a killed gate: they may have been counted
        assert used <= TOLD * (calls.statuses[200] - presumed + unanswered) + tokens
