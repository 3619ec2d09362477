"""What a decision costs beside envoyproxy/ratelimit (and Limitador): processor time of server and store a call.

    python -m benchmarks.decisions [--rows limits,check3,check6,openai,refused] [--rounds 5] [--seconds 1.5]

The gate and ratelimit run side by side, each with a Valkey of its own on a Unix socket, both on loopback TCP, and take
turns, round by round and row by row: a row is ours, then theirs, then theirs, then ours. The generator is h2load with 4
connections of 16 streams in a closed loop; it is not counted. Counted is user and system time by the kernel's clocks of
the processes. Every round is checked: the `remaining` of a call before it and of one after it must differ by exactly
the calls between. Both are asked about the same key all the time. Medians, with the least and the most; only ratios of
one run count.

Rows: `limits` RateLimitService with three descriptors (a second, a minute, an hour); `check3` Check with three windows
of a key; `check6` with two each of key, tenant and publication, all headers; `openai` a chat of 2 kB with seven budgets
and a reservation; all these beside ratelimit's three descriptors. `refused`: one that is over its limit asks again and
again, beside ratelimit with its local cache. `limitador`, where LIMITADOR_BIN names its server: check3 beside it with
Redis. `saturation` is the calls a second of check3's rounds.

A quick look at one row: `--rows check6 --rounds 3 --seconds 1`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.ground import gates, h2load, limitador
from benchmarks.ground.contenders import Contender, take_turns
from benchmarks.ground.gates import Ours
from benchmarks.ground.ratelimit import LOCAL_CACHE, TUNING, ratelimit
from benchmarks.ground.rows import Row, cost_row, parser_of, rounds_of, save, tell
from benchmarks.ground.stats import ratio

NAME: Final = "Tollkeeper"
WINDOWS: Final = ("second", "minute", "hour")
OURS: Final[Mapping[str, Callable[[Ours, str], Contender]]] = {
    "limits": lambda ours, _row: ours.limits(NAME, *WINDOWS),
    "check3": lambda ours, row: ours.check(NAME, gates.three_budgets(ours.catalog, row)),
    "check6": lambda ours, row: ours.check(NAME, gates.six_budgets(ours.catalog, row)),
    "openai": lambda ours, row: ours.check(NAME, gates.openai(ours.catalog, row)),
    "refused": lambda ours, row: ours.check(NAME, gates.spent(ours.catalog, row)),
    "limitador": lambda ours, row: ours.check(NAME, gates.three_budgets(ours.catalog, row)),
}


class Peers:
    """The other sides, each started when a row first needs it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._made: dict[str, Contender] = {}

    def of(self, row: str) -> Contender:
        """Who a row is compared with."""
        name = row if row in {"refused", "limitador"} else "ratelimit"
        if name not in self._made:
            self._made[name] = self._make(name)
        self._made[name].forget()
        return self._made[name]

    def _make(self, name: str) -> Contender:
        match name:
            case "limitador":
                return self._stack.enter_context(limitador.limitador())
            case "refused":
                return self._stack.enter_context(ratelimit({**TUNING, **LOCAL_CACHE})).contender("ratelimit", "spent")
            case _:
                return self._stack.enter_context(ratelimit()).contender("ratelimit", *WINDOWS)


def measure(names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Run these rows, and tell each when it is there."""
    rows = []
    with contextlib.ExitStack() as stack:
        ours, peers = stack.enter_context(gates.gate()), Peers(stack)
        for name in names:
            pair = OURS[name](ours, name), peers.of(name)
            take_turns(pair, rounds, seconds)
            rows.append(tell(cost_row(name, *pair)))
            if name == "check3":
                both = {one.name: rounds_of(one) for one in pair}
                rows.append(tell(Row("saturation", ratio(pair[0].rates, pair[1].rates), both)))
    return rows


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=5, seconds=1.5)
    known = [name for name in OURS if name != "limitador" or limitador.binary()]
    parser.add_argument("--rows", default=",".join(known))
    options = parser.parse_args()
    h2load.require()
    save(measure(options.rows.split(","), options.rounds, options.seconds), options.json)


if __name__ == "__main__":
    main()
