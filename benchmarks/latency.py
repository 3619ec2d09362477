"""How long one waits for a decision beside envoyproxy/ratelimit: at 1,000 calls a second, and one call at a time.

    python -m benchmarks.latency [--rounds 7] [--seconds 3] [--rate 1000]

Both sides as in benchmarks/decisions.py: Check with three budgets beside ratelimit with three descriptors. At a rate
the generator (h2load, 4 connections) sends by the clock, whether or not answers have come (an open loop), and notes the
latency of each call; `p50` and `p99` are ratios of the medians of the rounds' percentiles. One call at a time: one
connection, one stream, the next call when the answer is there; then processor time a call and the median latency count.
Latencies are wall time: only a quiet machine tells them right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from benchmarks.decisions import WINDOWS
from benchmarks.ground import gates, h2load
from benchmarks.ground.contenders import Contender, take_turns
from benchmarks.ground.ratelimit import ratelimit
from benchmarks.ground.rows import Row, cost_row, parser_of, save, tell
from benchmarks.ground.stats import ratio

PERCENTILES: Final = {"p50": 50.0, "p99": 99.0}


def at_a_rate(pair: Sequence[Contender], rounds: int, seconds: float, rate: int) -> list[Row]:
    """Percentiles at so many calls a second."""
    for one in pair:
        one.forget()
        one.load = partial(h2load.load, one.target, calls_a_second=rate, latencies=True)
    take_turns(pair, rounds, seconds)
    rows = []
    for name, percent in PERCENTILES.items():
        told = {one.name: {f"{name} us": [load.percentile_us(percent) for load in one.loads]} for one in pair}
        mine, other = (next(iter(rounds.values())) for rounds in told.values())
        rows.append(tell(Row(name, ratio(mine, other), told)))
    return rows


def one_at_a_time(pair: Sequence[Contender], rounds: int, seconds: float) -> list[Row]:
    """Processor time and latency of calls that wait for each other."""
    for one in pair:
        one.forget()
        one.load = partial(h2load.load, one.target, connections=1, streams=1, latencies=True)
    take_turns(pair, rounds, seconds)
    latencies = {one.name: {"latency us": [load.median_us for load in one.loads]} for one in pair}
    mine, other = (rounds["latency us"] for rounds in latencies.values())
    return [tell(cost_row("alone_cpu", *pair)), tell(Row("alone_latency", ratio(mine, other), latencies))]


@contextlib.contextmanager
def both() -> Iterator[list[Contender]]:
    """The gate and ratelimit, side by side."""
    with gates.gate() as ours, ratelimit() as peer:
        mine = ours.check("Tollkeeper", gates.three_budgets(ours.catalog, "check3"))
        yield [mine, peer.contender("ratelimit", *WINDOWS)]


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=7, seconds=3)
    parser.add_argument("--rate", type=int, default=1_000, help="calls a second")
    options = parser.parse_args()
    h2load.require()
    with both() as pair:
        rows = at_a_rate(pair, options.rounds, options.seconds, options.rate)
        rows += one_at_a_time(pair, options.rounds, options.seconds / 2)
    save(rows, options.json)


if __name__ == "__main__":
    main()
