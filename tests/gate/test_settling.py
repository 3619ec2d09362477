"""The settler on a real Valkey: an end that was told is settled once, whatever befalls the store or the gates."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import redis
from faultproxy import FAULTS, Act, Command, FaultProxy, fault_proxy
from gatebench import wait_until
from prometheus_client import CollectorRegistry

from catalog.ids import cell_of, shard_prefix
from gate.usage import count_admitted
from ratelimit.names import due_key, held_key, usage_key
from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.settling import settler as settling
from ratelimit.tokens.settling.cells import MAX_AGE_MS
from ratelimit.tokens.settling.metrics import SettlementMetrics
from ratelimit.tokens.settling.settler import Settler
from ratelimit.tokens.terms import Asked, Policy, Terms, Work, terms_of
from ratelimit.usage.book import UsageBook
from ratelimit.windows.budgets import Answer, Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.link import StoreLink
from tests.support.draws import draw
from tests.support.settlements import AtOnce, write

CELLS = 4
LIMIT = 10**6
TERMS = terms_of(Asked(prompt_bytes=100, max_tokens=100), Policy())
REAL = 30
ENDED = Ended(200, 400, total=REAL, aborted=False)
PATIENCE_MS = 300
LATE_S = 0.5


class Clock(SystemClock):
    """The system's, moved on by a test."""

    ahead_ms = 0.0

    def monotonic_ms(self) -> float:
        """Milliseconds that only ever grow."""
        return super().monotonic_ms() + self.ahead_ms


@dataclass
class Gate:
    """A settler as one gate has it, with what it counts."""

    url: str
    clock: Clock = field(default_factory=Clock)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    settler: Settler = field(init=False)

    def __post_init__(self) -> None:
        """Put it together, not started."""
        self.settler = Settler(
            make=lambda: StoreLink(self.url, self.clock),
            cells=CELLS,
            cell_of=cell_of,
            metrics=SettlementMetrics(self.registry),
            name_of=lambda _uid: "tenant-a/llm",
            on_fault=lambda: pytest.fail("the settler ended by a fault"),
            now_ms=self.clock.monotonic_ms,
            lessons=LessonBook(),
            usage=AtOnce(self.url),
        )

    def tell(self, ids: Sequence[str], ended: Ended = ENDED) -> None:
        """Tell of calls that ended."""
        for name in ids:
            self.settler.note_all([Told(name, "uid", ended)])

    def counted(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return self.registry.get_sample_value(f"tollkeeper_{name}", labels) or 0


@contextmanager
def running(*gates: Gate) -> Iterator[None]:
    """Let them settle."""
    with ExitStack() as stack:
        for gate in gates:
            stack.callback(gate.settler.stop, 10)
            gate.settler.start()
        yield


@dataclass
class Calls:
    """Admitted calls of one cell, in the store."""

    store: redis.Redis
    cell: int = 0
    made: int = 0

    @property
    def _name(self) -> str:
        return f"p:{self.cell}"

    def admit(
        self,
        count: int,
        timeout_ms: int = 600_000,
        *,
        terms: Terms = TERMS,
        written: bytes = b"",
        ceiling: int | None = None,
    ) -> list[str]:
        """Admit so many, each with a reservation, under these terms or as ``written`` down; their ids."""
        ids = [f"{shard_prefix(self.cell)}{self.made + number:032x}" for number in range(count)]
        self.made += count
        subject = Subject(self._name, (Budget(Window.TOKENS_HOUR, LIMIT),))
        holds = [
            Hold(name, ceiling or terms.ceiling, terms.presumed, timeout_ms, written or terms.pack()) for name in ids
        ]
        charges = [draw((subject,), tokens=terms.reserved, hold=hold, usage=(self._name,)) for hold in holds]
        cell = str(self.cell)
        limiter = Limiter(cell=cell, epoch_key=f"tk:epoch:{{{cell}}}", feed_key=f"tk:feed:{{{cell}}}")
        taken = limiter.take(self.store.execute_command, charges, epoch="")
        assert {grant.answer for grant in taken.grants} <= {Answer.ADMITTED}
        book = UsageBook()
        count_admitted(book, taken)
        assert write(self.store.execute_command, book, cell) == 0
        return ids

    @property
    def held(self) -> int:
        """How many reservations stand."""
        return self.store.hlen(held_key(str(self.cell)))

    @property
    def above(self) -> list[int]:
        """Calls and tokens that were not held, of this hour."""
        told = self.store.hget(usage_key(str(self.cell), self._name), "above")
        return [int(part) for part in (told or b"0 0 0").split()[1:]]

    @property
    def tokens(self) -> int:
        """What their usage says."""
        return int(self.store.hget(usage_key(str(self.cell), self._name), "tokens") or 0)


@pytest.fixture
def calls(store: redis.Redis) -> Calls:
    """Calls of cell 0."""
    return Calls(store)


@pytest.fixture
def gate(redis_url: str) -> Gate:
    """A settler, not started."""
    return Gate(redis_url)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[FaultProxy]:
    """What stands between a settler and the store."""
    with fault_proxy(redis_url, late_s=LATE_S) as proxy:
        yield proxy


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the store a little only."""
    monkeypatch.setattr(settling, "PATIENCE_MS", PATIENCE_MS)


def settles(command: Command) -> bool:
    """Whether a script has an end in hand; one without only sweeps."""
    return len(command) > len(("EVALSHA", "sha", 5, "held", "due", "rest", "old rest", "run", "head", "costs"))


@pytest.mark.parametrize("act", FAULTS)
@pytest.mark.parametrize(("name", "accept"), [(b"HMGET", lambda _command: True), (b"EVALSHA", settles)])
@pytest.mark.usefixtures("hurried")
def test_an_end_is_settled_once_whatever_befalls_the_store(
    calls: Calls, proxy: FaultProxy, act: Act, name: bytes, accept: Callable[[Command], bool]
) -> None:
    """A command or its answer lost, late, cut, dribbling: it is said again, and charged once."""
    ids = calls.admit(5)
    gate = Gate(proxy.url)
    done = proxy.once(name, act, accept)
    with running(gate):
        gate.tell(ids)
        assert done.wait(10)
        wait_until(lambda: gate.settler.waiting == 0)
    assert (calls.held, calls.tokens) == (0, 5 * REAL)
    assert gate.counted("settlement_errors_total") >= 1


@pytest.mark.usefixtures("hurried")
def test_what_is_told_while_the_store_is_away_is_settled_when_it_is_back(calls: Calls, proxy: FaultProxy) -> None:
    """Nobody who tells waits for it."""
    ids = calls.admit(600)
    gate = Gate(proxy.url)
    with running(gate):
        gate.tell(ids[:100])
        wait_until(lambda: calls.held == 500 and gate.settler.waiting == 0)  # the answer has come too
        proxy.hang()
        gate.tell(ids[100:])
        wait_until(lambda: gate.counted("settlement_errors_total") >= 1)
        assert (calls.held, gate.settler.waiting) == (500, 500)
        proxy.flow()
        wait_until(lambda: calls.held == 0)
    assert calls.tokens == 600 * REAL


def test_two_gates_that_hear_the_same_charge_it_once(calls: Calls, redis_url: str) -> None:
    """However they come between each other's steps; one that is told again later changes nothing either."""
    ids = calls.admit(1_000)
    one, other = Gate(redis_url), Gate(redis_url)
    with running(one, other):
        tellers = [threading.Thread(target=gate.tell, args=(ids,)) for gate in (one, other)]
        for teller in tellers:
            teller.start()
        for teller in tellers:
            teller.join()
        wait_until(lambda: one.settler.waiting == other.settler.waiting == 0)
        one.tell(ids)
        wait_until(lambda: one.settler.waiting == 0)
    assert (calls.held, calls.tokens) == (0, 1_000 * REAL)
    settled = sum(gate.counted("settlements_total", ending="usage", outcome="settled") for gate in (one, other))
    assert settled == 1_000
    charged = sum(gate.counted("tokens_charged_total", publication="tenant-a/llm") for gate in (one, other))
    assert charged == 1_000 * REAL


def test_a_gate_that_stops_settles_what_it_heard(calls: Calls, gate: Gate) -> None:
    """All that waits when it is told to stop."""
    ids = [*calls.admit(1_000), *calls.admit(500)]
    with running(gate):
        gate.tell(ids)
    assert (calls.held, calls.tokens) == (0, 1_500 * REAL)


@pytest.mark.usefixtures("hurried")
def test_a_gate_that_stops_waits_for_no_store_that_is_away(calls: Calls, proxy: FaultProxy) -> None:
    """What it heard is left to the sweep of others."""
    ids = calls.admit(10)
    gate = Gate(proxy.url)
    proxy.hang()
    gate.settler.start()
    gate.tell(ids)
    begun_ms = gate.clock.monotonic_ms()
    gate.settler.stop(30)
    assert gate.clock.monotonic_ms() - begun_ms < 10_000
    assert calls.held == 10


def test_what_nobody_tells_is_swept_and_a_late_end_puts_it_right(calls: Calls, gate: Gate) -> None:
    """Overdue reservations are charged what was presumed, and what they really cost once it is told."""
    ids = calls.admit(450, timeout_ms=0)
    with running(gate):
        wait_until(lambda: calls.tokens == 450 * TERMS.presumed)
        gate.tell(ids[:50])
        wait_until(lambda: calls.held == 400)
    assert calls.tokens == 400 * TERMS.presumed + 50 * REAL
    assert gate.counted("reservations_presumed_total") == 450
    assert gate.counted("settlements_total", ending="usage", outcome="replaced") == 50


def test_whole_answers_without_usage_are_noted_of_their_publication(
    calls: Calls, gate: Gate, store: redis.Redis
) -> None:
    """So that it can be said which publications are charged by estimates; an answer that was cut off says nothing."""
    untold, cut_off, told = Ended(200, 400, aborted=False), Ended(200, 400, aborted=True), ENDED

    def noted() -> int:
        return int(store.hget(usage_key("0", "p:0"), "estimated") or 0)

    with running(gate):
        for ended, count, so_far in ((untold, 3, 3), (cut_off, 2, 3), (told, 1, 0), (untold, 1, 1)):
            gate.tell(calls.admit(count), ended)
            wait_until(lambda: calls.held == 0)
            wait_until(lambda so_far=so_far: noted() == so_far)  # type: ignore[misc]


def test_what_cannot_be_settled_holds_up_nothing_else(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """Ids that nobody made, terms that cannot be read, reservations of garbage: each is counted."""
    good, (odd_terms, garbage) = calls.admit(10), calls.admit(2)
    record = bytearray(store.hget(held_key("0"), odd_terms) or b"")
    record[2] ^= 0xFF  # the version of its terms
    store.hset(held_key("0"), odd_terms, bytes(record))
    store.hset(held_key("0"), garbage, b"\x00\x00garbage")
    with running(gate):
        gate.tell(["no id of ours", "", "000" + "f" * 32, odd_terms, garbage, *good])
        wait_until(lambda: gate.settler.waiting == 0)
    assert calls.tokens == 10 * REAL
    assert gate.counted("settlements_lost_total", why="unreadable") >= 3
    assert gate.counted("settlements_total", ending="unknown", outcome="unknown") == 1
    assert store.hexists(held_key("0"), odd_terms)  # the sweep will presume it


def test_a_cell_that_fails_keeps_no_other_waiting(store: redis.Redis, gate: Gate) -> None:
    """Neither their ends nor their sweeps; and its own are settled as soon as it works."""
    sick, *well = [Calls(store, cell) for cell in range(CELLS)]
    ids = sick.admit(20)
    store.rename(held_key("0"), "aside{0}")
    store.set(held_key("0"), "no hash")
    overdue = [calls.admit(20, timeout_ms=0) for calls in well]
    with running(gate):
        gate.tell(ids)
        for calls in well:
            gate.tell(calls.admit(20))
        wait_until(lambda: [calls.tokens for calls in well] == [20 * REAL + 20 * TERMS.presumed] * len(well))
        assert gate.settler.waiting == 20
        store.rename("aside{0}", held_key("0"))
        wait_until(lambda: gate.settler.waiting == 0)
    assert (sick.held, sick.tokens) == (0, 20 * REAL)
    assert sum(map(len, overdue)) == gate.counted("reservations_presumed_total")


def test_what_waits_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it an end is counted and left to the sweep; how far behind it is can be told."""
    monkeypatch.setattr(settling, "MAX_WAITING", 100)
    gate.tell(["0" * 35] * 105)
    gate.clock.ahead_ms += 60_000
    assert gate.settler.waiting == 100
    assert gate.counted("settlements_lost_total", why="overflow") == 5
    assert gate.settler.behind_s >= 60


def test_an_end_that_waited_too_long_is_left_to_what_was_presumed(calls: Calls, gate: Gate) -> None:
    """Half an hour without a store: it is counted, and the next ones are settled."""
    old, new = calls.admit(1), calls.admit(1)
    gate.tell(old)
    gate.clock.ahead_ms += MAX_AGE_MS + 1
    gate.tell(new)
    with running(gate):
        wait_until(lambda: gate.settler.waiting == 0)
    assert (calls.held, calls.tokens) == (1, REAL)
    assert gate.counted("settlements_lost_total", why="too_old") == 1


def test_nothing_is_kept_of_calls_that_were_given_back(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """A reservation that is released leaves neither itself nor tokens, and teaches nothing."""
    ids = calls.admit(3)
    with running(gate):
        for name in ids:
            gate.settler.release(name)
        wait_until(lambda: calls.held == 0)
    assert calls.tokens == 0
    assert not store.exists(held_key("0"), due_key("0"))
    assert gate.counted("reservations_released_total") == 3


def store_now_ms(store: redis.Redis) -> int:
    """The store's clock."""
    seconds, microseconds = store.time()
    return int(seconds) * 1_000 + int(microseconds) // 1_000


def test_what_was_admitted_unheard_is_given_back(calls: Calls, gate: Gate) -> None:
    """Also what has been presumed meanwhile; of one that was not admitted nothing is made, and nothing is counted."""
    presumed = calls.admit(2, timeout_ms=0)
    with running(gate):
        wait_until(lambda: calls.tokens == 2 * TERMS.presumed)
        for name in [*calls.admit(3), *presumed, "000" + "f" * 32]:
            gate.settler.give_back(name, 0)
        wait_until(lambda: gate.settler.waiting == 0)
    assert (calls.held, calls.tokens) == (0, 0)
    assert gate.counted("reservations_released_total") == 5
    assert gate.counted("settlements_total", ending="unknown", outcome="unknown") == 0


def test_a_call_that_is_admitted_after_it_was_given_up_is_given_back(
    calls: Calls, gate: Gate, store: redis.Redis
) -> None:
    """Its script was still on its way when the ledger was asked: it is asked again."""
    late = f"{shard_prefix(0)}{0:032x}"
    with running(gate):
        gate.settler.give_back(late, store_now_ms(store) + 60_000)
        wait_until(lambda: gate.settler._backlog.early == 1)
        assert calls.admit(1) == [late]
        wait_until(lambda: calls.held == 0)
        wait_until(lambda: gate.settler.waiting == 0)
    assert calls.tokens == 0
    assert gate.counted("reservations_released_total") == 1


def test_a_call_that_can_be_admitted_no_more_is_not_waited_for(calls: Calls, gate: Gate, store: redis.Redis) -> None:
    """From the moment on, by the store's clock, at which its script gives up; not before."""
    until_ms = store_now_ms(store) + 300
    with running(gate):
        gate.settler.give_back(f"{shard_prefix(0)}{0:032x}", until_ms)
        wait_until(lambda: gate.settler.waiting == 0)
        assert store_now_ms(store) > until_ms
    assert calls.held == 0
    assert gate.counted("reservations_released_total") == 0


def test_a_call_dearer_than_its_hold_is_charged_in_full_counted_and_told_of_its_publication(
    gate: Gate, calls: Calls
) -> None:
    """Beside one that is not."""
    dear, cheap = calls.admit(2)
    with running(gate):
        gate.settler.note_all([Told(dear, "uid", Ended(200, total=TERMS.reserved + 5_000, cached=7, aborted=False))])
        gate.tell([cheap])
        wait_until(lambda: calls.held == 0)
    assert calls.tokens == TERMS.reserved + 5_000 + REAL
    assert calls.above == [1, 5_000]
    label = {"publication": "tenant-a/llm"}
    assert gate.counted("settlements_above_hold_total", **label) == 1
    assert gate.counted("tokens_above_hold_total", **label) == 5_000
    assert gate.counted("tokens_told_total", part="cached", **label) == 7


def test_a_form_that_tells_is_charged_and_warns_of_nothing(gate: Gate, calls: Calls) -> None:
    """Nobody could have held what it costs: the metrics count it, its publication does not."""
    (form,) = calls.admit(1, terms=terms_of(Asked(0, work=Work.FORM), Policy()))
    with running(gate):
        gate.settler.note_all([Told(form, "uid", Ended(200, total=900, aborted=False))])
        wait_until(lambda: calls.held == 0)
    assert (calls.tokens, calls.above) == (900, [0, 0])
    assert gate.counted("tokens_above_hold_total", publication="tenant-a/llm") == 899


def test_calls_of_the_release_before_are_settled_by_its_terms(gate: Gate, calls: Calls) -> None:
    """Whose script has written beside them that no more than a context may be charged."""
    old = struct.pack("<BIIIIBQII", 1, 500, 1_000, 100, 300, 0, 400, 100, 1)
    (name,) = calls.admit(1, written=old, ceiling=1_000)
    with running(gate):
        gate.settler.note_all([Told(name, "uid", Ended(200, total=10**9, aborted=False))])
        wait_until(lambda: calls.held == 0)
    assert calls.tokens == 1_000
    assert gate.counted("settlements_clamped_total", publication="tenant-a/llm") == 1
