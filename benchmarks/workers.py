"""What a second worker costs: the gate's and the store's processor time a call with one worker and with two.

    python -m benchmarks.workers [--rounds 7] [--seconds 1.5] [--transport native]

Two gates, one of one worker and one of two, each with a Valkey of its own, over gRPC as in benchmarks/decisions.py:
Check with three budgets. They take turns. The second gate is tried twice: with the first one's load divided between its
workers, which halves their batches, and with as much for each worker, which is when one adds a worker; the bar is held
by the latter. The parent process counts. On two cores the workers, Valkey and the generators share them: more cores
tell more.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.ground import gates, h2load
from benchmarks.ground.contenders import Contender, take_turns
from benchmarks.ground.gates import Ours
from benchmarks.ground.h2load import CONNECTIONS, Load, Target
from benchmarks.ground.rows import cost_row, parser_of, save, tell
from benchmarks.ground.stats import ratio

WORKERS: Final = 2


def spread(target: Target, ports: tuple[int, ...], connections: int, calls: int) -> Load:
    """Load every worker at once, with so many connections each."""

    def one(port: int) -> Load:
        at = Target(port, target.path, target.payload)
        return h2load.load(at, calls // len(ports), connections=connections)

    with ThreadPoolExecutor(len(ports)) as pool:
        loads = list(pool.map(one, ports))
    return Load(calls, sum(load.calls_a_second for load in loads))


def contender(gate: Ours, name: str, connections: int) -> Contender:
    """A gate under load at every worker."""
    made = gate.check(name, gates.three_budgets(gate.catalog, name))
    made.load = lambda calls: spread(made.target, gate.ports, connections, calls)
    return made


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=7, seconds=1.5)
    parser.add_argument("--transport", default="native")
    options = parser.parse_args()
    h2load.require()
    with contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(gates.gate("--transport", options.transport, workers=workers))
            for workers in (1, WORKERS)
        )
        single = contender(one, "one-worker", CONNECTIONS)
        divided = contender(two, "two-same-load", CONNECTIONS // WORKERS)
        each = contender(two, "two-same-load-each", CONNECTIONS)
        take_turns([single, divided, each], options.rounds, options.seconds)
        row = cost_row("workers", each, single)
        halves = ratio(divided.sums, single.sums)
        save([tell(row.noted(f"with the same load divided between two workers: {halves}"))], options.json)


if __name__ == "__main__":
    main()
