"""Rounds of work, power cut, restart and accounts: real store, real admin, real gates, many at work at once.

One gate is a process as operators start it. The other is deaf, its feed is dead: what is revoked is dead there by the
fence alone.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from catalog.keys.secrets import create_secrets
from tests.durability.callers import Caller, Publications, Watcher
from tests.durability.operators import PATIENCE_S, Api, Operator
from tests.durability.outages import Outages, PoweredStores, Taken
from tests.durability.processes import deaf_gate, model_server, process
from tests.durability.store import powered_store
from tests.durability.whole import (
    Audited,
    require,
    require_epoch_known,
    require_same_count,
    require_whole_records,
)

OPERATORS: Final = 4
PASSWORD: Final = "a good password"


@dataclass(slots=True)
class Totals:
    """What happened in all rounds."""

    taken: Taken
    rounds: int = 0
    acts: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    longest_heal_ms: int = 0

    def __str__(self) -> str:
        acts = ", ".join(f"{count} {name}" for name, count in sorted(self.acts.items()))
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        return (
            f"{self.rounds} rounds: {self.taken}; acts: {acts}; calls: {answers}; "
            f"a gate answered again after {self.longest_heal_ms} ms at most"
        )


class Rig:
    """Everything that runs, and its history."""

    def __init__(
        self, stores: PoweredStores, operators: Sequence[Operator], caller: Caller, chance: random.Random
    ) -> None:
        self._store = stores.records
        self._outages = Outages(stores, chance)
        self._operators = operators
        self._caller = caller
        self._chance = chance
        self._watcher = Watcher(stores.records.url)
        self._audited = Audited()
        self.totals = Totals(self._outages.taken)

    def run(self, callers: Sequence[Caller], rounds: int) -> Iterator[Totals]:
        """Run rounds; the callers go on through all of them. Raises ``Lost``."""
        ended = threading.Event()
        with ThreadPoolExecutor(len(callers) + 1, thread_name_prefix="caller") as pool:
            calling = [pool.submit(one.keep_calling, self._operators, ended) for one in callers]
            calling.append(pool.submit(self._watcher.keep_reading, ended))
            try:
                require(self._watcher.reads.wait(PATIENCE_S), "nobody could read the epoch before the first cut")
                for _ in range(rounds):
                    self._round()
                    _raise_faults(calling)
                    self._count(callers)
                    yield self.totals
            finally:
                ended.set()
            for one in calling:
                one.result(PATIENCE_S)

    def _count(self, callers: Sequence[Caller]) -> None:
        self.totals.rounds += 1
        self.totals.acts = sum((one.outcomes for one in self._operators), Counter())
        self.totals.answers = sum((one.answers for one in (*callers, self._caller)), Counter())

    def _round(self) -> None:
        stop = threading.Event()
        with ThreadPoolExecutor(OPERATORS, thread_name_prefix="operator") as pool:
            works = [pool.submit(_work, one, stop) for one in self._operators]
            try:
                stop.wait(self._chance.uniform(0.1, 0.8))
                told = self._lose_power()
                self._await_healed()
            finally:
                stop.set()
            for work in works:
                work.result(2 * PATIENCE_S)
        self._account(told)

    def _lose_power(self) -> str:
        """Have an outage; the last epoch that was told before it."""
        told = []
        self._outages.strike(on_dead=lambda: told.append(self._watcher.last))
        return told[0]

    def _await_healed(self) -> None:
        """Wait until the gate answers again; the operators whose acts were all answered are still at work."""
        began_s = time.monotonic()
        for operator in self._operators:
            self._caller.await_healed(operator)
        self.totals.longest_heal_ms = max(self.totals.longest_heal_ms, int((time.monotonic() - began_s) * 1000))

    def _account(self, told: str) -> None:
        """Hold what the store, the API and the gate say to what was acknowledged."""
        with redis.Redis.from_url(self._store.url, socket_timeout=PATIENCE_S) as client:
            ask = client.execute_command
            require_epoch_known(ask, told)
            require_whole_records(ask)
            self._settle(ask)
        for operator in self._operators:
            operator.require_in_force()
            self._caller.require_in_force(operator)

    def _settle(self, ask: Any) -> None:
        """Hold the audit to the answers: every acknowledged act is in it, once, and no act that was not asked for."""
        done = Counter(self._audited.read_on(ask))
        require_same_count(ask, self._audited.commits)
        for operator in self._operators:
            asked = operator.acknowledged | set(operator.doubtful)
            own = {name: count for name, count in done.items() if name.rpartition("-")[0] == operator.tenant}
            require(operator.acknowledged <= set(own), f"not in the audit: {operator.acknowledged - set(own)}")
            require(set(own) <= asked, f"in the audit, though refused: {set(own) - asked}")
            require(all(count == 1 for count in own.values()), f"done more than once: {own}")
            operator.settle(set(own), partial(self._caller.await_in_force, operator))


def _work(operator: Operator, stop: threading.Event) -> None:
    while not stop.is_set() and operator.act():
        pass


def _raise_faults(futures: Sequence[Future[None]]) -> None:
    for one in futures:
        if one.done():
            one.result()


@contextmanager
def rig(
    binary: str, library: Path, seed: int, *options: str, two_stores: bool = False
) -> Iterator[tuple[Rig, list[Caller]]]:
    """Start everything; ``options`` are those of the store of records, after those of ``up``."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tk-")))
        stores = PoweredStores(stack.enter_context(powered_store(binary, library, folder / "store", *options)))
        if two_stores:
            budgets = powered_store(binary, library, folder / "budgets", "--appendfsync", "everysec")
            stores = PoweredStores(stores.records, stack.enter_context(budgets))
        models = stack.enter_context(model_server())
        secrets = create_secrets(folder / "secrets.json")
        shared = (*stores.options, "--secrets-file", str(folder / "secrets.json"))
        admin = stack.enter_context(process(folder / "admin.log", *_admin(shared)))
        gate = f"unix:{folder}/gate.sock"
        stack.enter_context(process(folder / "gate.log", *_gate(shared, gate)))
        deaf = stack.enter_context(deaf_gate(f"unix:{folder}/deaf.sock", stores.urls, secrets))
        publications = Publications(stores.records.ask)
        callers = [
            stack.enter_context(contextlib.closing(Caller(target, publications, random.Random(chance.random()))))
            for target in (gate, deaf, gate)
        ]
        operators = [
            _operator(stack, f"tenant-{number}", f"http://{admin}", models, random.Random(chance.random()))
            for number in range(OPERATORS)
        ]
        yield Rig(stores, operators, callers.pop(), chance), callers


def _admin(shared: tuple[str, ...]) -> tuple[str, ...]:
    own = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    own += ("--user-calls-per-minute", "1000000")
    return ("admin", *shared, *own, "--admin-password", PASSWORD, "--probe-allow", "127.0.0.0/8")


def _gate(shared: tuple[str, ...], target: str) -> tuple[str, ...]:
    return ("gate", *shared, "--listen", target, "--http-listen", "127.0.0.1:0")


def _operator(stack: contextlib.ExitStack, tenant: str, url: str, models: str, chance: random.Random) -> Operator:
    api = stack.enter_context(contextlib.closing(Api(url, PASSWORD)))
    operator = Operator(tenant, api, chance)
    operator.prepare(models)
    return operator
