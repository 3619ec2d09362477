"""A link that loses, delays, cuts and dribbles, at every step of a batch: what was charged is what was answered.

What the store holds is read after each fault: an admitted call was charged once, a call answered 4xx never, one
answered 503 at most once, and then ``tollkeeper_unknown_outcomes_total`` has counted it.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis
from faultproxy import FAULTS, Act, Command, FaultProxy, fault_proxy
from gatebench import Asker, Catalog, is_take, make_gate, question, status, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tokenbench import HELD, openai_publication, reservation_of, token_call

from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Limits, PublicationRecord
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckRequest
from ratelimit.windows.budgets import Budget, Subject, Window
from ratelimit.windows.limiter import Limiter
from runtime.grpc.front import QueueLimits
from tests.support.draws import draw

ANSWER_MS = 100
LATE_S = 0.3
_numbers = itertools.count()


@dataclass(frozen=True)
class Published:
    """A publication with its key, and the question of a call."""

    record: PublicationRecord
    key: KeyRecord
    ask: CheckRequest


@dataclass(frozen=True)
class Bench:
    """A gate whose links to the store go through the proxy, and its answers; the catalog is written past it."""

    statuses: list[int]
    store: redis.Redis
    proxy: FaultProxy
    catalog: Catalog
    registry: CollectorRegistry
    gate: Gate
    asker: Asker

    def publish(self, per_hour: int) -> Published:
        """Write a publication with this budget, and a key for it."""
        publication = self.catalog.publication(model=f"m{next(_numbers)}", limits=Limits(per_hour=per_hour))
        key, text = self.catalog.key(publication)
        return Published(publication, key, question(key=text, publication=publication))

    def ask(self, published: Published) -> int:
        """Ask once."""
        self.statuses.append(status(self.asker.ask(published.ask)))
        return self.statuses[-1]

    def unknown_outcomes(self) -> int:
        """How many calls the gate says may have been charged though they were refused."""
        return int(self.registry.get_sample_value("tollkeeper_unknown_outcomes_total") or 0)

    def charges(self, published: Published) -> int:
        """Units that the store holds against the publication, once nothing is under way any more."""
        wait_until(lambda: self.proxy.held == 0)
        limit = published.record.limits.per_hour
        assert limit is not None
        subject = Subject(f"p:{published.record.uid}", (Budget(Window.HOUR, limit),))
        limiter = Limiter(cell="0", epoch_key="none", feed_key="none:feed")
        taken = limiter.take(self.store.execute_command, [draw((subject,))], epoch="", look=True)
        remaining = taken.grants[0].states[0].remaining
        looked_at = 1 if taken.grants[0].answer.value == "admitted" else 0
        return limit - remaining - looked_at

    def heal(self, published: Published) -> int:
        """End all faults and ask until a call is decided; its answer."""
        self.proxy.heal()
        wait_until(lambda: self.ask(published) != 503)
        return self.statuses[-1]


@pytest.fixture
def bench(
    redis_url: str, store: redis.Redis, catalog: Catalog, secrets: Secrets, registry: CollectorRegistry
) -> Iterator[Bench]:
    """A ready gate behind a proxy that passes everything so far."""
    catalog.tenant()
    with (
        fault_proxy(redis_url, late_s=LATE_S) as proxy,
        tempfile.TemporaryDirectory(prefix="tk-gate-") as folder,
    ):
        proxy.deaf_to = frozenset({b"XREAD"})  # no feed: changes are found by the fence alone
        limits = QueueLimits(answer_ms=ANSWER_MS, wait_ms=2_000)
        gate = make_gate(f"unix:{folder}/g.sock", proxy.url, secrets, registry, limits)
        gate.start()
        asker = Asker(gate.address)
        try:
            wait_until(lambda: gate.readiness().ready)
            yield Bench([], store, proxy, catalog, registry, gate, asker)
        finally:
            proxy.heal()
            asker.close()
            gate.stop()


def _reads_records(command: Command) -> bool:
    return len(command) > 2


def _any(_command: Command) -> bool:
    return True


def _nothing(_bench: Bench, _published: Published) -> None:
    """The cache is cold."""


def _warm(bench: Bench, published: Published) -> None:
    assert bench.heal(published) != 503


def _forget_script(bench: Bench, published: Published) -> None:
    _warm(bench, published)
    bench.store.script_flush()


def _change_its_record(bench: Bench, published: Published) -> None:
    """Change a record of the call: that of another would cost it nothing."""
    _warm(bench, published)
    bench.catalog.change(published.record, updated_at_ms=1)


@dataclass(frozen=True)
class Step:
    """One command of a batch, and what brings it about."""

    name: str
    prepare: Callable[[Bench, Published], None]
    command: bytes
    accept: Callable[[Command], bool] = _any


STEPS = (
    Step("reading the records", _nothing, b"MGET", _reads_records),
    Step("taking", _warm, b"EVALSHA", is_take),
    Step("taking with the script again", _forget_script, b"EVAL"),
    Step("reading the epoch", _change_its_record, b"GET"),
    Step("reading the feed", _change_its_record, b"XRANGE"),
)


@pytest.mark.parametrize("act", FAULTS, ids=lambda act: act.value)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_fault_at_any_step_never_charges_twice(bench: Bench, step: Step, act: Act) -> None:
    """Whatever becomes of one command, admitted calls are charged once and a 503 at most once, which is counted."""
    published = bench.publish(per_hour=100)
    step.prepare(bench, published)
    hit = bench.proxy.once(step.command, act, step.accept)
    bench.ask(published)
    assert hit.wait(5)
    bench.heal(published)
    _check(bench, published)


def _check(bench: Bench, published: Published) -> None:
    count = Counter(bench.statuses)
    charged, unknown = bench.charges(published), bench.unknown_outcomes()
    assert count[200] <= charged <= count[200] + unknown, count
    assert unknown <= count[503], count


@pytest.mark.parametrize("act", FAULTS, ids=lambda act: act.value)
def test_a_refused_call_is_never_charged(bench: Bench, act: Act) -> None:
    """Over budget or with a dead key, with and without an answer from the store: nothing is taken."""
    published = bench.publish(per_hour=1)
    _warm(bench, published)
    hit = bench.proxy.once(b"EVALSHA", act, is_take)
    bench.ask(published)
    assert hit.is_set()
    assert bench.heal(published) == 429
    bench.catalog.change(published.key, disabled=True)
    bench.proxy.once(b"MGET", act, _reads_records)
    bench.ask(published)
    assert bench.heal(published) == 401
    assert bench.charges(published) == 1


@pytest.mark.parametrize("act", FAULTS, ids=lambda act: act.value)
def test_a_call_that_the_store_took_unheard_holds_no_tokens(bench: Bench, act: Act) -> None:
    """Whatever becomes of the script that takes: once all is well, only calls that were let through hold tokens."""
    publication = openai_publication(bench.catalog)
    asked = token_call(bench.catalog.key(publication)[1], publication, max_tokens=10)
    kept = {reservation_of(bench.asker.ask(asked))}
    hit = bench.proxy.once(b"EVALSHA", act, is_take)
    answer = bench.asker.ask(asked)
    assert hit.wait(5)
    assert (status(answer), bench.unknown_outcomes()) == (503, 1)
    bench.proxy.heal()
    wait_until(lambda: bench.proxy.held == 0)
    wait_until(lambda: bench.gate.readiness().ready)
    wait_until(lambda: bench.gate._settler.waiting == 0)
    assert {one.decode() for one in bench.store.hkeys(HELD)} == kept
    answers = bench.asker.ask_many([asked] * 20)
    assert sum(status(one) == 200 for one in answers) == 19  # there is room for twenty


@given(schedule=st.lists(st.sampled_from(Act), min_size=1, max_size=12), calls=st.integers(1, 8))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_faults_in_a_row_never_charge_twice(bench: Bench, schedule: list[Act], calls: int) -> None:
    """Faults on any command of any link, one after another, the keeper's own included."""
    published, acts = bench.publish(per_hour=5), iter(schedule)
    bench.statuses.clear()
    unknown = bench.unknown_outcomes()
    bench.proxy.plan(lambda _command: next(acts, Act.PASS))
    for _ in range(calls):
        bench.ask(published)
    bench.heal(published)
    count, charged = Counter(bench.statuses), bench.charges(published)
    assert count[200] <= charged <= min(5, count[200] + bench.unknown_outcomes() - unknown)


def test_a_store_that_hangs_again_and_again_keeps_few_calls_waiting(bench: Bench) -> None:
    """Links that are proved and then die are renewed ever more slowly: nearly all calls are refused at once."""
    published = bench.publish(per_hour=1_000)
    _warm(bench, published)
    bench.proxy.plan(lambda command: Act.DROP_REPLY if command[0] == b"EVALSHA" and is_take(command) else Act.PASS)
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        bench.ask(published)
        time.sleep(0.01)
    waited = bench.registry.get_sample_value("tollkeeper_store_errors_total", {"kind": "timeout"}) or 0
    assert 2 <= waited <= 9  # the link, its spare, and those made after pauses of 0, 50, 100, 200, 400 and 800 ms
    bench.heal(published)
