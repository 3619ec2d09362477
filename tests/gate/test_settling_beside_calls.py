"""A backlog of ended calls, or of overdue ones, never shuts out calls: settling has its share of the store, no more."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis
from gatebench import Catalog, status, wait_until
from gateprocess import GateProcess, gate_process
from prometheus_client import CollectorRegistry

from catalog.ids import cell_of, shard_prefix
from catalog.keys.secrets import create_secrets
from catalog.records import Limits
from protos.external_auth_pb2 import CheckRequest
from ratelimit.names import held_key, rest_key
from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.ledger import Ledger
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.settling.metrics import SettlementMetrics
from ratelimit.tokens.settling.pace import MAX_BATCH
from ratelimit.tokens.settling.settler import MAX_WAITING, Settler
from ratelimit.tokens.terms import Asked, Policy, terms_of
from ratelimit.usage.book import UsageBook
from ratelimit.windows.budgets import Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.link import StoreLink
from tests.support.draws import draw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RATE = 500  # calls a second
KEYS, TENANTS, PUBLICATIONS = 2_000, 50, 100
BUDGETS = (Budget(Window.MINUTE, 10**9), Budget(Window.HOUR, 10**9), Budget(Window.TOKENS_HOUR, 10**9))
TERMS = terms_of(Asked(prompt_bytes=100, max_tokens=100), Policy())
ENDED = Ended(200, 400, total=30, aborted=False)
STORE_WAIT_MS = "100"
FEW = 0.01
"""Of the calls: what a machine may refuse that is busy with other things; one that is not refuses none. Unsized scripts
refused 75 and 96 of 100."""


class Reservations:
    """Admitted calls, each held in the budgets of a key, a tenant and a publication whose hours are full of buckets."""

    def __init__(self, store: redis.Redis) -> None:
        self._execute = store.execute_command
        self._limiter = Limiter(cell="0", epoch_key="tk:unfenced:{0}", feed_key="tk:unfenced:{0}")
        self._subjects = {
            f"{kind}:{number}": Subject(f"{kind}:{number}", BUDGETS)
            for kind, count in (("k", KEYS), ("t", TENANTS), ("p", PUBLICATIONS))
            for number in range(count)
        }
        self._fill(int(store.time()[0]) * 1_000)

    def _fill(self, now_ms: int) -> None:
        for minute in range(50, 0, -10):
            for first in range(0, KEYS, 250):
                charges = [draw(self._of(number), tokens=1) for number in range(first, first + 250)]
                self._limiter.take(self._execute, charges, epoch="", now_ms=now_ms - minute * 60_000)

    def _of(self, number: int) -> tuple[Subject, ...]:
        names = (f"k:{number % KEYS}", f"t:{number % TENANTS}", f"p:{number % PUBLICATIONS}")
        return tuple(self._subjects[name] for name in names)

    def admit(self, count: int, timeout_ms: int) -> list[str]:
        """Make so many; their ids."""
        ids = [f"{shard_prefix(0)}{number:032x}" for number in range(count)]
        for first in range(0, count, 250):
            charges = [
                draw(
                    self._of(first + place),
                    tokens=TERMS.reserved,
                    hold=Hold(name, TERMS.ceiling, TERMS.presumed, timeout_ms, TERMS.pack()),
                )
                for place, name in enumerate(ids[first : first + 250])
            ]
            self._limiter.take(self._execute, charges, epoch="")
        return ids


def _settler(url: str, registry: CollectorRegistry) -> Settler:
    """As a gate has it."""
    clock = SystemClock()
    return Settler(
        make=lambda: StoreLink(url, clock),
        cells=1,
        cell_of=cell_of,
        metrics=SettlementMetrics(registry),
        name_of=lambda _uid: "",
        on_fault=lambda: pytest.fail("the settler ended by a fault"),
        now_ms=clock.monotonic_ms,
        lessons=LessonBook(),
        usage=UsageBook(),
    )


class Callers:
    """Asks a gate so many times a second, until it is told to stop."""

    def __init__(self, gate: GateProcess, asked: CheckRequest) -> None:
        self.answers: Counter[int] = Counter()
        self._gate, self._asked = gate, asked
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callers")

    def __enter__(self) -> Self:
        """Begin to call."""
        self._thread.start()
        return self

    @property
    def refused(self) -> float:
        """Which part of the calls was not admitted, for want of a store that answers."""
        assert set(self.answers) <= {200, 503}
        return self.answers[503] / max(1, self.answers.total())

    def __exit__(self, *_error: object) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.is_set():
            self.answers.update(map(status, self._gate.asker.ask_many([self._asked] * 10)))
            due_s += 10 / RATE
            self._stopping.wait(max(0, due_s - time.monotonic()))


@contextmanager
def _gate(redis_url: str, catalog: Catalog, folder: Path) -> Iterator[tuple[GateProcess, CheckRequest]]:
    catalog.secrets = create_secrets(folder / "secrets.json")
    _, asked = catalog.callable_publication(Limits(per_minute=10**6))
    with gate_process(redis_url, folder / "secrets.json", "--store-wait-ms", STORE_WAIT_MS) as gate:
        wait_until(lambda: status(gate.asker.ask(asked)) == 200)
        yield gate, asked


def _scripts(registry: CollectorRegistry, work: str) -> tuple[float, float]:
    """How many scripts ran, and how many of them kept the store longer than five times what one should."""
    name = "tollkeeper_settlement_script_seconds_bucket"
    short, every = (registry.get_sample_value(name, {"work": work, "le": edge}) or 0 for edge in ("0.01", "+Inf"))
    return every, every - short


def test_a_full_backlog_is_settled_beside_calls(
    redis_url: str, store: redis.Redis, catalog: Catalog, tmp_path: Path
) -> None:
    """20,000 ended calls that come at once are settled while 500 calls a second are answered, none of them with 503."""
    with _gate(redis_url, catalog, tmp_path) as (gate, asked):
        ids = Reservations(store).admit(MAX_WAITING, timeout_ms=600_000)
        registry = CollectorRegistry()
        settler = _settler(redis_url, registry)
        for name in ids:
            settler.note_all([Told(name, "uid", ENDED)])
        with Callers(gate, asked) as callers:
            settler.start()
            wait_until(lambda: settler.waiting == 0, 200)
        settler.stop(10)
    scripts, long_ones = _scripts(registry, "settle")
    assert store.hlen(held_key("0")) == 0
    assert callers.refused <= FEW
    assert callers.answers.total() > 100
    assert (scripts > 100, long_ones <= scripts / 100) == (True, True)


def test_what_a_killed_gate_leaves_is_swept_beside_calls(
    redis_url: str, store: redis.Redis, catalog: Catalog, tmp_path: Path
) -> None:
    """10,000 overdue reservations are swept by a gate that answers 500 calls a second, none of them with 503."""
    Reservations(store).admit(10_000, timeout_ms=0)
    with _gate(redis_url, catalog, tmp_path) as (gate, asked):
        with Callers(gate, asked) as callers:
            wait_until(lambda: gate.metric("tollkeeper_reservations_presumed_total") == 10_000, 200)
        wait_until(lambda: gate.metric("tollkeeper_sweep_age_seconds") < 5)
        scripts = gate.metric('tollkeeper_settlement_script_seconds_count{work="sweep"}')
        short = gate.metric('tollkeeper_settlement_script_seconds_bucket{le="0.01",work="sweep"}')
    assert callers.refused <= FEW
    assert (scripts > 50, scripts - short <= scripts / 100) == (True, True)


def test_a_gate_that_stops_with_a_backlog_leaves_in_time(redis_url: str, store: redis.Redis) -> None:
    """It goes on settling as gently as before until its time is up; the others are told of and left to the sweep."""
    ids = Reservations(store).admit(MAX_WAITING, timeout_ms=600_000)
    registry = CollectorRegistry()
    settler = _settler(redis_url, registry)
    for name in ids:
        settler.note_all([Told(name, "uid", ENDED)])
    settler.start()
    began_s = time.monotonic()
    settler.stop(0.5)
    assert time.monotonic() - began_s < 5
    settler._thread.join(10)
    assert not settler._thread.is_alive()
    held = store.hlen(held_key("0"))
    assert 0 < held <= settler.waiting <= held + MAX_BATCH  # of the last script nobody heard
    assert _scripts(registry, "settle")[1] == 0


@pytest.mark.usefixtures("store")
def test_cells_of_one_server_share_its_rest(redis_url: str) -> None:
    """Sixteen cells of one store do not have half of it each."""
    with redis.Redis.from_url(redis_url) as client:
        client.set(rest_key("0"), (int(client.time()[0]) + 1) * 1_000_000, px=1_000)
        refused = Ledger("7", rests_with="0").settle(client.execute_command, (), sweep=1, most_us=2_000)
    assert refused.is_resting
