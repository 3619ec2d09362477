"""Reservations of several kinds of units, to 10^12 each, in windows of any span: made by hand, ended by the script.

Beside it a plain account of what each bucket holds and how much of a window is held.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.names import budget_key, due_key, held_key
from ratelimit.tokens.ledger import TOKENS, Ledger, Outcome, Presumed, Settled, Settlement, Used
from ratelimit.tokens.reservations import kept_until_ms, written_terms

NOW_MS = 1_800_000_000_000
LATER_MS = NOW_MS + 7 * 86_400_000
LEDGER = Ledger("0")
MOST = 10**12
KINDS = (1, 2, 3, 4, 5)  # tokens, in, out, cost, slots
SPANS = {1: 20, 2: 60, 3: 60, 4: 48, 5: 84, 6: 0, 7: 0}  # buckets of second, minute, hour, day, week; calendar periods
KEYS = (budget_key("0", "k:1"), budget_key("0", "p:1"))
SECTION, ENTRY, AMOUNT, HELD = (struct.Struct(each) for each in ("<BB6s6s6s6sB", "<B6s", "<B6s6s6s", "<BBB6sB"))
NEWEST = 500  # bucket


def six(number: int) -> bytes:
    """Six bytes."""
    return number.to_bytes(6, "little")


@dataclass
class Section:
    """A window of a kind in one value."""

    buckets: dict[int, int]
    held: int = 0

    @property
    def total(self) -> int:
        """All that is counted."""
        return sum(self.buckets.values())

    def change(self, bucket: int, n: int, units: int) -> None:
        """Add units to a bucket or take them away, never more than are there; a newer one makes old ones go."""
        newest = max(self.buckets, default=bucket)
        if not units or bucket < newest - n or (bucket > newest and units < 0):
            return
        self.buckets[bucket] = max(0, self.buckets.get(bucket, 0) + units)
        if bucket > newest:
            self.buckets = {each: counted for each, counted in self.buckets.items() if each >= bucket - n}
        self.buckets = {each: counted for each, counted in self.buckets.items() if counted}

    def free(self, units: int) -> None:
        """What is held no more."""
        self.held = max(0, min(self.held - units, self.total))


Value = dict[tuple[int, int], Section]  # by kind and window


def pack_value(value: Value) -> bytes:
    """As take.lua writes it."""
    parts = [b"\x02"]
    for (kind, window), section in sorted(value.items()):
        *older, newest = sorted(section.buckets)
        numbers = (newest, section.buckets[newest], section.total, section.held)
        parts.append(SECTION.pack(kind, window, *map(six, numbers), len(older)))
        parts += [ENTRY.pack(bucket % 256, six(section.buckets[bucket])) for bucket in older]
    return b"".join(parts)


def read_value(raw: bytes) -> Value:
    """What stands there, each part checked against the others."""
    value: Value = {}
    assert raw[:1] == b"\x02"
    at = 1
    while at < len(raw):
        kind, window, *numbers, older = SECTION.unpack_from(raw, at)
        newest, units, total, held = (int.from_bytes(number, "little") for number in numbers)
        entries = list(ENTRY.iter_unpack(raw[at + SECTION.size : at + SECTION.size + older * ENTRY.size]))
        buckets = {newest - (newest - rest) % 256: int.from_bytes(each, "little") for rest, each in entries}
        assert list(buckets) == sorted(buckets)
        buckets[newest] = units
        assert (sum(buckets.values()), len(buckets)) == (total, older + 1)
        assert 0 <= held <= total
        assert (kind, window) > max(value, default=(-1, -1))
        value[kind, window] = Section(buckets, held)
        at += SECTION.size + older * ENTRY.size
    return value


@dataclass
class Reserved:
    """A reservation: of each kind what is charged, the ceiling, what is presumed; where each is counted."""

    amounts: dict[int, tuple[int, int, int]]
    places: list[tuple[int, int, int, str]]  # kind, window, bucket, key
    forgotten_ms: int = LATER_MS
    state: str = "R"
    subjects: tuple[str, ...] = ("k:1", "p:1")
    terms: bytes = field(default=b"terms")

    def pack(self) -> bytes:
        """As take.lua writes it."""
        head = struct.pack("<sddB", self.state.encode(), self.forgotten_ms, NOW_MS, len(self.amounts))
        parts = [b"\xff\xff\x02", head]
        parts += [AMOUNT.pack(kind, *map(six, numbers)) for kind, numbers in self.amounts.items()]
        parts += [struct.pack("<H", len(self.terms)), self.terms, bytes([len(self.places)])]
        for kind, window, bucket, key in self.places:
            parts += [HELD.pack(kind, window, SPANS[window], six(bucket), len(key)), key.encode()]
        parts += [bytes([len(self.subjects)])]
        return b"".join([*parts, *(bytes([len(one)]) + one.encode() for one in self.subjects)])

    def end(self, values: dict[str, Value], costs: dict[int, int] | None) -> int:
        """Charge it what it cost, or what was presumed; the tokens that this adds to its usage."""
        used = 0
        for kind, (charged, ceiling, presumed) in self.amounts.items():
            is_held = self.state == "R"
            cost = min(presumed if costs is None else costs.get(kind, 0), max(ceiling, charged if is_held else 0))
            for its_kind, window, bucket, key in self.places:
                if its_kind == kind:
                    section = values[key].setdefault((kind, window), Section({}))
                    section.change(bucket, SPANS[window], cost - charged)
                    section.free(charged if is_held else 0)
            self.amounts[kind] = (cost, ceiling, presumed)
            used = cost - (0 if is_held else charged) if kind == TOKENS else used
        for value in values.values():
            for place in [place for place, section in value.items() if not section.total]:
                del value[place]
        return used


_units = st.sampled_from((0, 1, 7, 10**6, 2**32, MOST - 1, MOST))


@st.composite
def reservations(draw: st.DrawFn) -> tuple[Reserved, dict[str, Value]]:
    """One, and the values that it is counted in: as taken, or as others have changed them since."""
    amounts = {kind: (draw(_units), draw(_units), draw(_units)) for kind in draw(st.sets(st.sampled_from(KINDS)))}
    windows = st.tuples(st.sampled_from(KINDS), st.sampled_from(sorted(SPANS)), st.sampled_from(KEYS))
    places = [
        (kind, window, NEWEST - draw(st.sampled_from((0, 0, 1, 3, 59, 90, -2, -70))), key)
        for kind, window, key in sorted(draw(st.sets(windows, max_size=5)))
    ]
    values: dict[str, Value] = {key: {} for key in KEYS}
    for kind, window, bucket, key in places:
        n = SPANS[window]
        ages = draw(st.sets(st.integers(0, n), max_size=4)) | {0}
        buckets = {NEWEST - age: draw(st.integers(1, MOST)) for age in ages}
        if draw(st.booleans()) and NEWEST - n <= bucket <= NEWEST:  # it is counted there
            buckets[bucket] = buckets.get(bucket, 0) + amounts.get(kind, (0, 0, 0))[0]
        section = Section({each: units for each, units in buckets.items() if units})
        section.held = draw(st.integers(0, section.total))
        if draw(st.integers(0, 9)):
            values[key][kind, window] = section
    return Reserved(amounts, places), values


class Store:
    """What the script finds, and what it has made of it."""

    def __init__(self, store: redis.Redis, reserved: Reserved, values: dict[str, Value]) -> None:
        store.flushdb()
        self._store = store
        store.hset(held_key("0"), "a", reserved.pack())
        store.zadd(due_key("0"), {"a": NOW_MS})
        for key, value in values.items():
            if value:
                store.set(key, pack_value(value), px=60_000)

    def settle(self, *ends: Settlement, sweep: int = 0, now_ms: int = NOW_MS) -> Settled:
        """Run the script."""
        settled = LEDGER.settle(self._store.execute_command, ends, sweep=sweep, now_ms=now_ms, format=2)
        assert settled.faults == 0
        return settled

    @property
    def values(self) -> dict[str, Value]:
        """What is counted now."""
        found = {key: self._store.get(key) for key in KEYS}
        return {key: read_value(raw) if raw else {} for key, raw in found.items()}

    @property
    def record(self) -> bytes | None:
        """The reservation, as it stands."""
        return self._store.hget(held_key("0"), "a")


@pytest.fixture
def cluster() -> None:
    """One server: a Cluster runs the same script."""


_shared = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(made=reservations(), costs=st.dictionaries(st.sampled_from(KINDS), _units))
@_shared
def test_each_kind_is_charged_what_it_cost(
    store: redis.Redis, made: tuple[Reserved, dict[str, Value]], costs: dict[int, int]
) -> None:
    """In its own buckets, up to its ceiling; a kind that is not named cost nothing; nothing stays held of it."""
    reserved, values = made
    found = Store(store, reserved, values)
    further = tuple((kind, units) for kind, units in costs.items() if kind != TOKENS)
    settled = found.settle(Settlement("a", costs.get(TOKENS, 0), further=further))
    used = reserved.end(values, costs)
    assert (settled.outcomes, settled.used) == ((Outcome.SETTLED,), (Used(("k:1", "p:1"), used),))
    assert found.values == values
    assert found.record is None


@given(made=reservations(), costs=st.dictionaries(st.sampled_from(KINDS), _units))
@_shared
def test_what_is_presumed_of_each_kind_is_put_right(
    store: redis.Redis, made: tuple[Reserved, dict[str, Value]], costs: dict[int, int]
) -> None:
    """It keeps its format and its terms, and is what a late settlement needs."""
    reserved, values = made
    found = Store(store, reserved, values)
    swept = found.settle(sweep=5)
    used = reserved.end(values, None)
    reserved.state = "P"
    assert swept.used_presumed == (Presumed(("k:1", "p:1"), used, NOW_MS),)
    assert (found.values, found.record) == (values, reserved.pack())
    further = tuple((kind, units) for kind, units in costs.items() if kind != TOKENS)
    late = found.settle(Settlement("a", costs.get(TOKENS, 0), further=further))
    assert (late.outcomes, late.used[0].tokens) == ((Outcome.REPLACED,), reserved.end(values, costs))
    assert found.values == values


def test_a_reservation_of_the_new_format_is_read_by_the_gate() -> None:
    """Its terms, whatever stands before them, and until when it is kept; nothing where it ends too early."""
    record = Reserved({1: (5, 5, 5), 4: (MOST, MOST, MOST)}, [(1, 3, NEWEST, KEYS[0])], terms=b"x" * 300).pack()
    assert (written_terms(record), kept_until_ms(record)) == (b"x" * 300, LATER_MS)
    assert (written_terms(record[:20]), kept_until_ms(record[:20])) == (b"", None)


def test_many_calls_of_one_account_change_its_values_once(store: redis.Redis) -> None:
    """Each counts by itself: a hundred reservations that are counted in the same buckets, in one run."""
    values: dict[str, Value] = {KEYS[0]: {(1, 3): Section({NEWEST: 100 * MOST // 1_000}, 100 * 10**9)}, KEYS[1]: {}}
    found = Store(store, Reserved({1: (10**9, MOST, 0)}, [(1, 3, NEWEST, KEYS[0])]), values)
    for number in range(99):
        store.hset(held_key("0"), f"b{number}", Reserved({1: (10**9, MOST, 0)}, [(1, 3, NEWEST, KEYS[0])]).pack())
    store.config_resetstat()
    settled = found.settle(*(Settlement(name, cost) for cost, name in enumerate(["a", *(f"b{n}" for n in range(99))])))
    stats = store.info("commandstats")
    assert (stats["cmdstat_get"]["calls"], stats["cmdstat_set"]["calls"]) == (1, 2)  # the value, and what the run did
    assert found.values[KEYS[0]] == {(1, 3): Section({NEWEST: sum(range(100))}, 0)}
    assert sum(used.tokens for used in settled.used) == sum(range(100))
