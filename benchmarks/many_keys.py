"""What Check costs as keys grow: 1,000,000 keys beside 1,000, called by Zipf's law.

    python -m benchmarks.many_keys [--keys 1000000] [--rounds 5] [--calls 20000] [--warm-up 300000]

Two gates, each with a Valkey of its own; one has a thousand keys of one publication, the other a million (about 600 MB
of records, written as the admin writes them, in half a minute). Each key has three budgets. Which key calls is drawn by
Zipf's law with exponent 1.1: of a million keys the first ten make a third of the calls and the last 900,000 a tenth.
After a warm-up both take turns. Every answer is decoded: it must admit; and what the busiest key has left must fall by
exactly its calls. The hit rate is how many calls had not to read a record from the store. Counted is the processor
time of gate and store.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from benchmarks.ground import gates, limits
from benchmarks.ground.gates import Ours
from benchmarks.ground.processes import cpu_us
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import ratio
from benchmarks.ground.wire import Caller
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.records import KeyRecord, Kind, Limits, encode, ref
from catalog.store import names
from extauth.edge import CHECK_PATH

EXPONENT: Final = 1.1
FEW: Final = 1_000
TENANT: Final = "bench"
_CHUNK: Final = 2_000
_OWN: Final = Limits(burst=limits.PLENTY, per_minute=limits.PLENTY, per_hour=limits.HOUR)


@dataclass
class Crowd:
    """A gate whose callers have so many keys."""

    gate: Ours
    questions: Sequence[bytes]  # of each key, the busiest first
    weights: Sequence[float]  # running sums
    us_a_call: dict[str, list[float]] = field(default_factory=dict)

    def draw(self, calls: int) -> list[int]:
        """Which keys call."""
        return random.choices(range(len(self.questions)), cum_weights=self.weights, k=calls)  # noqa: S311

    def make(self, calls: int) -> None:
        """Make so many calls; every one must be admitted, and the busiest key's be counted."""
        drawn = self.draw(calls)
        left: dict[bytes, int] = {}
        caller = Caller(self.gate.ports[0], CHECK_PATH)
        busiest = self.questions[0]

        def note(question: bytes, answer: bytes) -> None:
            told = gates.remaining(answer)
            if question == busiest:
                left[question] = min(told, left.get(question, told))

        caller.call(iter([busiest]), note)
        before = left.pop(busiest)
        caller.call((self.questions[number] for number in drawn), note)
        caller.close()
        if before - left.get(busiest, before) != drawn.count(0):
            raise SystemExit(f"{drawn.count(0)} calls of the busiest key, and {before} became {left}")

    def round(self, calls: int) -> None:
        """Make calls and note what each cost."""
        parts = self.gate.parts
        before = {part: cpu_us(pids) for part, pids in parts.items()}
        misses = self._misses()
        self.make(calls)
        spent = {part: (cpu_us(pids) - before[part]) / calls for part, pids in parts.items()}
        spent["all"] = sum(spent.values())
        for part, us in spent.items():
            self.us_a_call.setdefault(f"{part} us", []).append(us)
        self.us_a_call.setdefault("hit rate %", []).append(100 * (1 - (self._misses() - misses) / calls))

    def _misses(self) -> float:
        return self.gate.row.total("tollkeeper_cache_misses_total")


def question_of(gate: Ours) -> tuple[str, bytes, bytes]:
    """The publication that all call, and a question around the key's text."""
    gate.catalog.tenant(TENANT)
    publication = gate.catalog.publication(TENANT, TENANT)
    sample = gate.catalog.key(publication, tenant=TENANT)[1]
    head, _, tail = gates.question(key=sample, publication=publication).SerializeToString().partition(sample.encode())
    return publication.uid, head, tail


def write_keys(gate: Ours, count: int) -> list[bytes]:
    """Write so many keys' records; the question of each."""
    publication, head, tail = question_of(gate)
    secrets, shard, questions = gate.catalog.secrets, shard_of(TENANT), []
    with gate.store.client() as store:
        for chunk in _chunks(count):
            written = {}
            for _ in range(chunk):
                uid = new_id(shard, os.urandom)
                text = mint(uid, secrets, os.urandom)
                made = KeyRecord(uid, TENANT, "key", (publication,), hash_key(text, secrets), 0, 0, limits=_OWN)
                written[names.record(ref(Kind.KEY, uid))] = encode(structs.replace(made, version=1))
                questions.append(head + text.reveal().encode() + tail)
            store.mset(written)
    return questions


def _chunks(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, _CHUNK)
        count -= _CHUNK


def crowd(gate: Ours, keys: int) -> Crowd:
    """A gate with so many keys."""
    weights = itertools.accumulate(1 / rank**EXPONENT for rank in range(1, keys + 1))
    return Crowd(gate, write_keys(gate, keys), list(weights))


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=20_000, help="of a round")
    parser.add_argument("--warm-up", type=int, default=300_000, help="calls before the first round")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        few, many = (crowd(stack.enter_context(gates.gate()), keys) for keys in (min(FEW, options.keys), options.keys))
        few.make(options.calls)
        many.make(options.warm_up)
        for number in range(options.rounds):
            for one in (few, many)[:: -1 if number % 2 else 1]:
                one.round(options.calls)
        rounds = {f"{len(one.questions):,} keys": one.us_a_call for one in (few, many)}
        row = Row("million", ratio(many.us_a_call["all us"], few.us_a_call["all us"]), rounds)
        save([tell(row.noted(f"{options.keys:,} keys"))], options.json)


if __name__ == "__main__":
    main()
