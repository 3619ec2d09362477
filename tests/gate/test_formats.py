"""Which format of stored values gates write: the newest once all have read it a while, 1 as soon as one does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
import redis
from gatebench import make_gate, wait_until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate import formats as module
from gate.assembly import Gate
from gate.formats import LOOKED_MS, NEWEST, OLDEST, QUIET_MS, Heard, WrittenFormat, format_of, heard
from ratelimit.names import old_rest_key

QUIET = Heard(0, old_settles=False)
KEPT = (Heard(1, old_settles=False), Heard(0, old_settles=True))
OLD_REST = old_rest_key("0")


class Watch:
    """A gate's choice, by a clock that is set."""

    def __init__(self, newest: int = NEWEST) -> None:
        self.now_ms = 0.0
        self.written = WrittenFormat(newest, lambda: self.now_ms)

    def hear(self, found: Heard, after_ms: float = 1_000) -> int:
        """Look at the stores some time later; what is written from then on."""
        self.now_ms += after_ms
        self.written.hear(found)
        return self.written()


def test_the_newest_is_written_after_a_minute_without_a_trace() -> None:
    """Not a moment before; whoever keeps it at 1 is named until then, and nobody after."""
    watch = Watch()
    assert (watch.written(), bool(watch.written.kept_by)) == (OLDEST, True)
    seconds = QUIET_MS // 1_000
    found = [watch.hear(QUIET) for _ in range(seconds + 1)]
    assert found == [OLDEST] * seconds + [NEWEST]
    assert watch.written.kept_by == ""


def test_a_gate_that_starts_beside_one_that_writes_the_newest_does_too() -> None:
    """What that has proved within a minute stands; but not against a trace, nor once another has found one."""
    watch = Watch()
    written = QUIET._replace(is_written=True)
    assert (watch.written.saying, watch.hear(written), watch.written.saying) == ("waits", NEWEST, "writes")
    for trace in KEPT:
        watch = Watch()
        assert (watch.hear(trace._replace(is_written=True)), watch.written.saying) == (OLDEST, "kept")
        assert (watch.hear(QUIET), watch.written.saying) == (OLDEST, "waits")
    pinned = Watch(newest=OLDEST)
    assert (pinned.hear(written), pinned.written.saying) == (OLDEST, "kept")


@pytest.mark.parametrize("trace", KEPT)
def test_it_falls_back_at_once(trace: Heard) -> None:
    """With the first look that finds one; the minute begins anew with the first that does not."""
    watch = Watch()
    watch.hear(QUIET)
    assert watch.hear(QUIET, LOOKED_MS) == OLDEST
    for _ in range(60):
        watch.hear(QUIET)
    assert watch.written() == NEWEST
    assert watch.hear(trace) == OLDEST
    assert "release before" in watch.written.kept_by
    watch.hear(QUIET)
    assert [watch.hear(QUIET, LOOKED_MS) for _ in range(6)] == [OLDEST] * 5 + [NEWEST]


def test_who_cannot_look_writes_as_before() -> None:
    """After ten seconds without an answer of the stores, and for a minute after that."""
    watch = Watch()
    watch.hear(QUIET)
    for _ in range(6):
        watch.hear(QUIET, LOOKED_MS)
    assert watch.written() == NEWEST
    for _ in range(2):
        watch.now_ms += LOOKED_MS / 2
        watch.written.miss()
        assert watch.written() == NEWEST
    watch.now_ms += 1
    watch.written.miss()
    assert (watch.written(), watch.hear(QUIET)) == (OLDEST, OLDEST)
    assert watch.hear(QUIET, QUIET_MS) == OLDEST, "a look that comes late proves nothing of the time before"


def test_an_operator_pins_it() -> None:
    """For as long as the gate runs."""
    watch = Watch(newest=OLDEST)
    assert {watch.hear(QUIET) for _ in range(200)} == {OLDEST}
    assert "--store-format 1" in watch.written.kept_by


@given(st.lists(st.tuples(st.sampled_from([QUIET, QUIET, QUIET, *KEPT, None]), st.integers(1, 30_000)), max_size=60))
def test_the_newest_is_written_only_after_a_quiet_minute(looks: list[tuple[Heard | None, int]]) -> None:
    """Whatever is found when: in the minute before, every ten seconds somebody looked, and nobody found a trace."""
    watch, told = Watch(), [(0.0, False)]
    for found, after_ms in looks:
        if found is None:
            watch.now_ms += after_ms
            watch.written.miss()
        else:
            watch.hear(found, after_ms)
            told.append((watch.now_ms, found == QUIET))
        if watch.written() == NEWEST:
            last_ms = told[-1][0]
            assert watch.now_ms - last_ms <= LOOKED_MS
            minute = [one for one in told if one[0] > last_ms - QUIET_MS]
            before = max((one for one in told if one[0] <= last_ms - QUIET_MS), default=(0.0, False))
            assert all(is_quiet for _, is_quiet in (before, *minute))
            moments = [at_ms for at_ms, _ in (before, *minute)]
            assert all(later - earlier <= LOOKED_MS for earlier, later in pairwise(moments))


def test_what_gates_tell() -> None:
    """One of the release before tells no format, which is 1; so is what nobody would write."""
    assert [format_of(one) for one in (b"0a1b", b"0a1b:1", b"0a1b:2", b"0a1b:", b"0a1b:x", b":")] == [1, 1, 2, 1, 1, 1]
    assert heard([b"a:2", b"b", b"c:1"], old_settles=False) == Heard(2, old_settles=False)
    assert heard([b"a:2", b"b:3"], old_settles=True) == Heard(0, old_settles=True)
    assert heard([b"a:2", b"written"], old_settles=False) == Heard(0, old_settles=False, is_written=True)


@dataclass(frozen=True)
class Running:
    """A gate of its own registry."""

    gate: Gate
    registry: CollectorRegistry

    def writes(self) -> int:
        """The format that it writes, as it tells everywhere."""
        written = self.gate.formats()
        facts = self.gate.readiness().facts
        sample = self.registry.get_sample_value("tollkeeper_store_format")
        return written if (facts["storeFormat"], sample) == (written, written) else 0


@contextmanager
def running_gate(url: str, secrets: Secrets, newest: int = NEWEST) -> Iterator[Running]:
    """A gate."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        registry = CollectorRegistry()
        gate = make_gate(f"unix:{folder}/g.sock", url, secrets, registry, newest_format=newest)
        gate.start()
        try:
            yield Running(gate, registry)
        finally:
            gate.stop()


def test_gates_agree_through_their_stores(
    redis_url: str, store: redis.Redis, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old traces, old heartbeats and one gate that is pinned keep all of them at 1; none of these, and all write 2."""
    monkeypatch.setattr(module, "QUIET_MS", 1_500)
    with ExitStack() as stack:
        gates = [stack.enter_context(running_gate(redis_url, secrets)) for _ in range(2)]

        def all_write(written: int) -> None:
            wait_until(lambda: [one.writes() for one in gates] == [written] * len(gates), 30)

        all_write(NEWEST)
        store.set(OLD_REST, 1, px=5_000)
        all_write(OLDEST)
        all_write(NEWEST)
        (seconds, _) = store.time()
        store.zadd("tk:gates", {"0a1b": seconds * 1_000})
        all_write(OLDEST)
        assert "1 gate with --store-format 1" in gates[0].gate.readiness().facts["storeFormatKeptBy"]
        store.zrem("tk:gates", "0a1b")
        all_write(NEWEST)
        for one in gates:
            one.gate.formats._quiet_from_ms = -1e9  # it has been quiet for long
        monkeypatch.setattr(module, "QUIET_MS", 60_000)
        with running_gate(redis_url, secrets) as late:
            wait_until(lambda: late.writes() == NEWEST, 30)
            assert late.registry.get_sample_value("tollkeeper_gates") == 3
        with running_gate(redis_url, secrets, newest=OLDEST):
            all_write(OLDEST)
            wait_until(lambda: store.zscore("tk:gates", "written") is None, 30)
