"""The token ledger through any history, with a crash between any two of its steps: compared with a plain account of it.

Gates hear how calls ended, read their terms and settle them; each of these may be lost, late, repeated or done by two
gates at once. What each call costs in the end is the endings table's word (tests/tables/endings.py), or what it was
presumed to cost where nobody told in time.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ratelimit.names import due_key, held_key, usage_key
from ratelimit.tokens.costs import Terms, charge_of, terms_of
from ratelimit.tokens.ledger import Ledger, Outcome, Settled, Settlement
from ratelimit.windows.budgets import Answer, Budget, Charge, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.tables.endings import ROWS, Row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

START_MS = 1_800_000_000_000
MINUTE_MS = 60_000
WINDOW_MINUTES = 61  # the current one and the sixty before it
LIMITS = {"k:1": 1_500, "k:2": 3_000, "p:1": 4_000}
SUBJECTS = {name: Subject(name, (Budget(Window.TOKENS_HOUR, limit),)) for name, limit in LIMITS.items()}
LEDGER = Ledger("0")


class State(enum.Enum):
    """Where a reservation stands."""

    HELD = enum.auto()
    PRESUMED = enum.auto()
    GONE = enum.auto()


@dataclass
class Call:
    """One admitted call, as the account has it."""

    id: str
    row: Row
    key: str
    terms: Terms
    minute: int  # of its admission, in which it is counted
    due_ms: int
    state: State = State.HELD
    charged: int = 0  # while it is held: what is held

    @property
    def release_ms(self) -> int:
        """When its minute is counted no more."""
        return (self.minute + WINDOW_MINUTES) * MINUTE_MS

    @property
    def subjects(self) -> tuple[str, str]:
        """Whose budgets hold it."""
        return self.key, "p:1"

    def settle(self, tokens: int) -> Outcome:
        """What a settlement must answer, and what it does."""
        before, self.state = self.state, State.GONE
        if before is State.GONE:
            return Outcome.UNKNOWN
        self.charged = min(tokens, self.terms.ceiling)
        return Outcome.SETTLED if before is State.HELD else Outcome.REPLACED

    def presume(self, now_ms: int) -> None:
        """What the sweep does once it is due."""
        if self.state is State.HELD:
            self.charged = self.terms.presumed
            self.state, self.due_ms = State.PRESUMED, self.release_ms
            if self.release_ms > now_ms:
                return
        self.state = State.GONE


@dataclass
class Account:
    """All calls that were admitted."""

    calls: dict[str, Call] = field(default_factory=dict)

    def used(self, subject: str, now_ms: int) -> int:
        """Tokens counted against a subject's hour, held ones included."""
        oldest = now_ms // MINUTE_MS - WINDOW_MINUTES + 1
        return sum(call.charged for call in self.of(subject) if call.minute >= oldest)

    def of(self, subject: str) -> Iterable[Call]:
        """A subject's calls."""
        return (call for call in self.calls.values() if subject in call.subjects)

    def standing(self) -> list[Call]:
        """Those of which the ledger still knows."""
        return [call for call in self.calls.values() if call.state is not State.GONE]

    def usage(self, subject: str) -> int:
        """Tokens that a subject's ended calls were charged."""
        return sum(call.charged for call in self.of(subject) if call.state is not State.HELD)

    def sweep(self, most: int, now_ms: int) -> None:
        """End the overdue, the most overdue first."""
        overdue = sorted((call.due_ms, call.id) for call in self.standing() if call.due_ms <= now_ms)
        for _, name in overdue[:most]:
            self.calls[name].presume(now_ms)


class LedgerMachine(RuleBasedStateMachine):
    """One store, a clock, and gates that come and go."""

    def __init__(self, limiter: Limiter, store: redis.Redis) -> None:
        super().__init__()
        self.limiter, self.store = limiter, store
        store.flushdb()
        self.now_ms = START_MS
        self.account = Account()
        self.streams: list[Call] = []  # admitted calls whose proxy knows their reservation
        self.told: list[Call] = []  # whose end a gate has heard
        self.in_hand: list[Settlement] = []  # with their terms read, not settled yet

    # What callers and the proxy do

    @rule(
        row=st.sampled_from(ROWS),
        key=st.sampled_from(("k:1", "k:2")),
        timeout_ms=st.sampled_from((5_000, 600_000)),
        answered=st.booleans(),
    )
    def call(self, row: Row, key: str, timeout_ms: int, answered: bool) -> None:  # noqa: FBT001  drawn
        """A call is admitted exactly if it fits what is used and held; a gate may die before it answers."""
        terms = terms_of(row.asked, row.policy, row.learned)
        name = f"0a1{len(self.account.calls)}"
        fits = all(
            self.account.used(subject, self.now_ms) + terms.reserved <= LIMITS[subject] for subject in (key, "p:1")
        )
        assert self._take(
            Charge(
                (SUBJECTS[key], SUBJECTS["p:1"]),
                tokens=terms.reserved,
                hold=Hold(name, terms.ceiling, terms.presumed, timeout_ms, terms.pack()),
                usage=(key, "p:1"),
            )
        ) is (Answer.ADMITTED if fits else self._refusal(key, terms))
        if fits:
            call = Call(name, row, key, terms, self.now_ms // MINUTE_MS, self.now_ms + timeout_ms)
            call.charged = terms.reserved
            self.account.calls[name] = call
            self.streams += [call] * answered

    def _take(self, charge: Charge) -> Answer:
        taken = self.limiter.take(self.store.execute_command, [charge], epoch="", now_ms=self.now_ms)
        return taken.grants[0].answer

    def _refusal(self, key: str, terms: Terms) -> Answer:
        return Answer.NEVER_FITS if terms.reserved > LIMITS[key] else Answer.REFUSED

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), gates=st.sampled_from((0, 1, 1, 2)))
    def end(self, data: st.DataObject, gates: int) -> None:
        """A stream ends; its end is lost, heard by one gate, or by two."""
        call = self._drawn(data, self.streams)
        self.told += [call] * gates

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A proxy gave up before the answer: what was held is given back."""
        call = self._drawn(data, self.streams)
        self._settle([Settlement(call.id, 0)], sweep=0)

    @rule(passes_ms=st.sampled_from((1, 999, MINUTE_MS, 10 * MINUTE_MS, 61 * MINUTE_MS)))
    def wait(self, passes_ms: int) -> None:
        """Time passes."""
        self.now_ms += passes_ms

    @precondition(lambda self: self.account.standing())
    @rule(beside_ms=st.sampled_from((-1, 0, 0)), data=st.data())
    def wait_for_one(self, beside_ms: int, data: st.DataObject) -> None:
        """Time passes until some reservation is due, or to the last moment before."""
        call = data.draw(st.sampled_from(self.account.standing()))
        self.now_ms = max(self.now_ms, call.due_ms + beside_ms)

    # What gates do

    @precondition(lambda self: self.told)
    @rule(most=st.integers(1, 5))
    def read_terms(self, most: int) -> None:
        """A gate learns what the calls that ended may cost: of all that stand, and of no other."""
        calls, self.told = self.told[:most], self.told[most:]
        found = LEDGER.terms(self.store.execute_command, [call.id for call in calls])
        for call, raw in zip(calls, found, strict=True):
            assert (raw is None) == (call.state is State.GONE)
            if raw is not None:
                cost = charge_of(Terms.unpack(raw), call.row.ended, call.row.learned)
                assert cost == call.row.cost
                self.in_hand.append(Settlement(call.id, cost.tokens))

    @precondition(lambda self: self.in_hand)
    @rule(answered=st.booleans(), sweep=st.integers(0, 3))
    def settle(self, answered: bool, sweep: int) -> None:  # noqa: FBT001  drawn
        """A gate settles what it has in hand; where the store's answer is lost it does so again."""
        self._settle(self.in_hand, sweep)
        if answered:
            self.in_hand = []

    @precondition(lambda self: self.told or self.in_hand)
    @rule()
    def die(self) -> None:
        """A gate dies with all that it heard."""
        self.told, self.in_hand = [], []

    @rule(most=st.integers(1, 4))
    def sweep(self, most: int) -> None:
        """Some gate sweeps."""
        self._settle([], most)

    @rule(tokens=st.sampled_from((0, 7, 10**9)), data=st.data())
    def forge(self, tokens: int, data: st.DataObject) -> None:
        """Somebody tells of a reservation that never was, or tells again of one that is no more."""
        gone = [call.id for call in self.account.calls.values() if call.state is State.GONE]
        name = data.draw(st.sampled_from(["0a1x", *gone]))
        settled = LEDGER.settle(self.store.execute_command, [Settlement(name, tokens)], sweep=0, now_ms=self.now_ms)
        assert settled.outcomes == (Outcome.UNKNOWN,)

    def _settle(self, settlements: list[Settlement], sweep: int) -> Settled:
        settled = LEDGER.settle(self.store.execute_command, settlements, sweep=sweep, now_ms=self.now_ms)
        expected = [self.account.calls[one.id].settle(one.tokens) for one in settlements]
        self.account.sweep(sweep, self.now_ms)
        assert (list(settled.outcomes), settled.faults) == (expected, 0)
        return settled

    def _drawn(self, data: st.DataObject, calls: list[Call]) -> Call:
        return calls.pop(data.draw(st.integers(0, len(calls) - 1)))

    # What always holds

    @invariant()
    def budgets_hold_what_the_account_says(self) -> None:
        """Used and reserved, of every subject."""
        look = [Charge((subject,), tokens=0, costs=(0,)) for subject in SUBJECTS.values()]
        taken = self.limiter.take(self.store.execute_command, look, epoch="", now_ms=self.now_ms, look=True)
        left = [grant.states[0].remaining for grant in taken.grants]
        assert left == [max(0, limit - self.account.used(name, self.now_ms)) for name, limit in LIMITS.items()]

    @invariant()
    def the_ledger_knows_what_stands(self) -> None:
        """No reservation more, none less, each of them due."""
        standing = {call.id.encode() for call in self.account.standing()}
        assert set(self.store.hkeys(held_key("0"))) == standing
        assert dict(self.store.zrange(due_key("0"), 0, -1, withscores=True)) == {
            call.id.encode(): call.due_ms for call in self.account.standing()
        }

    @invariant()
    def usage_counts_what_was_charged(self) -> None:
        """Once for each call, whatever was presumed of it meanwhile."""
        for name in LIMITS:
            assert int(self.store.hget(usage_key("0", name), "tokens") or 0) == self.account.usage(name)

    def teardown(self) -> None:
        """When all has ended nothing is held, and nothing is kept of it."""
        while standing := self.account.standing():
            self.now_ms = max(self.now_ms, *(call.due_ms for call in standing))
            self._settle([], 1_000)
            self.budgets_hold_what_the_account_says()
            self.usage_counts_what_was_charged()
        assert not self.store.exists(held_key("0"), due_key("0"))


def test_no_crash_leaks_or_hides_a_token(limiter: Limiter, store: redis.Redis) -> None:
    """Any order of calls, ends, deaths, sweeps, repetitions and forgeries keeps budgets, ledger and usage exact."""
    run_state_machine_as_test(
        partial(LedgerMachine, limiter, store),
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
