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
from ratelimit.tokens.costs import charge_of
from ratelimit.tokens.ledger import Ledger, Outcome, Settled, Settlement
from ratelimit.tokens.terms import Terms, terms_of
from ratelimit.windows.budgets import Answer, Budget, Draw, Hold, Subject, Window
from tests.ratelimit.conftest import EPOCH_KEY, FEED_KEY
from tests.support.countinglimiter import CountingLimiter
from tests.support.draws import draw
from tests.support.examples import examples
from tests.support.oldsettling import OldLedger
from tests.support.settlements import settle
from tests.tables.endings import ROWS, Row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

START_MS = 1_800_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
WINDOW_MINUTES = 61  # the current one and the sixty before it
LIMITS = {"k:1": 1_500, "k:2": 3_000, "p:1": 4_000}
SUBJECTS = {name: Subject(name, (Budget(Window.TOKENS_HOUR, limit),)) for name, limit in LIMITS.items()}
LEDGER = Ledger("0")


class Release(enum.Enum):
    """Of a gate."""

    THIS = enum.auto()
    BEFORE = enum.auto()


LEDGERS = {Release.THIS: LEDGER, Release.BEFORE: OldLedger("0")}
_RELEASES = st.integers(0, 1)  # which of the releases settles, by its place among them


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
    above: dict[int, tuple[int, int]] = field(default_factory=dict)  # by hour: calls dearer than held, tokens not held

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

    def note_above(self, tokens: int, now_ms: int) -> None:
        """A settled call was dearer than held by so much."""
        calls, so_far = self.above.get(now_ms // HOUR_MS, (0, 0))
        if tokens:
            self.above[now_ms // HOUR_MS] = calls + 1, so_far + tokens

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

    def __init__(self, store: redis.Redis, releases: tuple[Release, ...], formats: tuple[int, ...]) -> None:
        """``releases``: of the gates that settle. ``formats``: that are written."""
        super().__init__()
        self.store, self.releases, self.formats, self.written = store, releases, formats, formats[0]
        self.limiter = CountingLimiter(
            cell="0", epoch_key=EPOCH_KEY, feed_key=FEED_KEY, writes_format=lambda: self.written
        )
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
        fits = not terms.reserved or all(  # what costs nothing always fits
            self.account.used(subject, self.now_ms) + terms.reserved <= LIMITS[subject] for subject in (key, "p:1")
        )
        assert self._take(
            draw(
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

    def _take(self, charge: Draw) -> Answer:
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
    @rule(data=st.data(), release=_RELEASES)
    def give_up(self, data: st.DataObject, release: int) -> None:
        """A proxy gave up before the answer: what was held is given back."""
        call = self._drawn(data, self.streams)
        self._settle([Settlement(call.id, 0)], sweep=0, release=release)

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

    @rule(place=st.integers(0, 1))
    def write(self, place: int) -> None:
        """From now on gates write in this format: all of them read it, or one has come that does not."""
        self.written = self.formats[place % len(self.formats)]

    @precondition(lambda self: self.told)
    @rule(most=st.integers(1, 5))
    def read_terms(self, most: int) -> None:
        """A gate learns what the calls that ended may cost: of all that stand, and of no other."""
        calls, self.told = self.told[:most], self.told[most:]
        found = LEDGER.terms(self.store.execute_command, [call.id for call in calls])
        for call, raw in zip(calls, found, strict=True):
            assert (raw is None) == (call.state is State.GONE)
            if raw is not None:
                cost = charge_of(Terms.unpack(raw), call.row.ended)
                assert cost == call.row.cost
                self.in_hand.append(Settlement(call.id, cost.tokens, above=cost.above))

    @precondition(lambda self: self.in_hand)
    @rule(answered=st.booleans(), sweep=st.integers(0, 3), release=_RELEASES)
    def settle(self, answered: bool, sweep: int, release: int) -> None:  # noqa: FBT001  drawn
        """A gate settles what it has in hand; where the store's answer is lost it does so again."""
        self._settle(self.in_hand, sweep, release)
        if answered:
            self.in_hand = []

    @precondition(lambda self: self.told or self.in_hand)
    @rule()
    def die(self) -> None:
        """A gate dies with all that it heard."""
        self.told, self.in_hand = [], []

    @rule(most=st.integers(1, 4), release=_RELEASES)
    def sweep(self, most: int, release: int) -> None:
        """Some gate sweeps."""
        self._settle([], most, release)

    @rule(tokens=st.sampled_from((0, 7, 10**9)), data=st.data())
    def forge(self, tokens: int, data: st.DataObject) -> None:
        """Somebody tells of a reservation that never was, or tells again of one that is no more."""
        gone = [call.id for call in self.account.calls.values() if call.state is State.GONE]
        name = data.draw(st.sampled_from(["0a1x", *gone]))
        settled = settle(self.store.execute_command, LEDGER, [Settlement(name, tokens)], sweep=0, now_ms=self.now_ms)
        assert settled.outcomes == (Outcome.UNKNOWN,)

    def _settle(self, settlements: list[Settlement], sweep: int, release: int = 0) -> Settled:
        by = self.releases[release % len(self.releases)]
        ledger = LEDGERS[by]
        settled = settle(
            self.store.execute_command, ledger, settlements, sweep=sweep, now_ms=self.now_ms, format=self.written
        )
        expected = [self.account.calls[one.id].settle(one.tokens) for one in settlements]
        for one, outcome in zip(settlements, expected, strict=True):
            if outcome is not Outcome.UNKNOWN and by is Release.THIS:  # the one before does not count it
                self.account.note_above(one.above, self.now_ms)
        self.account.sweep(sweep, self.now_ms)
        assert (list(settled.outcomes), settled.faults) == (expected, 0)
        return settled

    def _drawn(self, data: st.DataObject, calls: list[Call]) -> Call:
        return calls.pop(data.draw(st.integers(0, len(calls) - 1)))

    # What always holds

    @invariant()
    def budgets_hold_what_the_account_says(self) -> None:
        """Used and reserved, of every subject."""
        look = [draw((subject,), tokens=0, hits=(0,)) for subject in SUBJECTS.values()]
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

    @invariant()
    def what_was_not_held_is_counted_by_the_hour(self) -> None:
        """Of the publication, once for each call, however often it was told of."""
        told = self.store.hget(usage_key("0", "p:1"), "above")
        latest = max(self.account.above.items(), default=None)
        assert told == (latest and f"{latest[0]} {latest[1][0]} {latest[1][1]}".encode())

    def teardown(self) -> None:
        """When all has ended nothing is held, and nothing is kept of it."""
        while standing := self.account.standing():
            self.now_ms = max(self.now_ms, *(call.due_ms for call in standing))
            self._settle([], 1_000)
            self.budgets_hold_what_the_account_says()
            self.usage_counts_what_was_charged()
        assert not self.store.exists(held_key("0"), due_key("0"))


@pytest.mark.parametrize(
    ("releases", "formats"),
    [((Release.THIS,), (1, 2)), ((Release.THIS,), (2,)), ((Release.THIS, Release.BEFORE), (1,))],
)
def test_no_crash_leaks_or_hides_a_token(
    store: redis.Redis, releases: tuple[Release, ...], formats: tuple[int, ...]
) -> None:
    """Any order of calls, ends, deaths, sweeps, repetitions and forgeries keeps budgets, ledger and usage exact.

    Also while what is written changes its format, back and forth, and beside gates of the release before.
    """
    run_state_machine_as_test(
        partial(LedgerMachine, store, releases, formats),
        settings=settings(
            max_examples=examples(50),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
