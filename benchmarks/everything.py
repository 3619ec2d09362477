"""`make bench`: every row of the price list, one benchmark after the other; prints them and saves them.

    python -m benchmarks.everything [--only decisions,latency [--add]] [--quick] [--out benchmarks/results]

Each benchmark is a command of its own (its docstring says how it measures); here they run one at a time, because two at
once would measure each other. Saved are a table, `DATE-bench.md`, and all that was measured round by round with the
machine, versions and commands, `DATE-bench.json`. About 20 minutes; `--quick`: a fifth of the rounds, to see that all
work. Exit 1 where a benchmark could not run; a bar that is missed is told and no failure.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.ground import h2load, machine, results
from benchmarks.ground.results import Run
from benchmarks.ground.rows import of_document, table

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "decisions": ("--rounds", "9"),
    "latency": ("--rounds", "9"),
    "endings_cost": ("--rounds", "7"),
    "metered_store": ("--rounds", "21"),
    "through_envoy": ("--rounds", "7"),
    "metering_cpu": ("--rounds", "7", "--kinds", "chat,stream,old"),
    "workers": ("--rounds", "7"),
    "revocations": (),
    "many_keys": (),
    "many_publications": ("--rounds", "7"),
    "publishing": (),
    "large_host": (),
    "store_memory": (),
}
"""Every benchmark with a bar, and how it is asked."""
QUICK: Final[Mapping[str, tuple[str, ...]]] = {
    "revocations": ("--trials", "100"),
    "many_keys": ("--keys", "50000", "--warm-up", "50000", "--rounds", "2"),
}


def run(name: str, words: Sequence[str], into: Run) -> None:
    """Run one benchmark, and take its rows."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        file = Path(folder) / "rows.json"
        command = ["-m", f"benchmarks.{name}", *words]
        into.commands.append(" ".join(["python", *command]))
        print(f"\n{into.commands[-1]}", flush=True)
        code = subprocess.run([sys.executable, *command, "--json", str(file)], cwd=ROOT, check=False).returncode
        if code or not file.exists():
            into.failed.append(name)
            print(f"{name} FAILED", flush=True)
        else:
            into.rows += map(of_document, json.loads(file.read_text(encoding="utf-8")))


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", help="of every benchmark that has rounds")
    parser.add_argument("--add", action="store_true", help="to what was saved today: of each row the newest holds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    h2load.require()
    path = options.out / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-bench.json"
    made = Run(machine.described() | {"load at the start": machine.load()})
    runs, began_s = [*(results.read(path) if options.add else ()), made], time.monotonic()
    for name in options.only.split(","):
        words = COMMANDS[name]
        if options.quick:
            words = QUICK.get(name, ("--rounds", "2", *words[2:]) if "--rounds" in words else words)
        if options.rounds and "--rounds" in words:
            words = ("--rounds", options.rounds, *words[2:])
        run(name, words, made)
        made.about |= {"load at the end": machine.load(), "took": f"{(time.monotonic() - began_s) / 60:.0f} minutes"}
        results.write(path, runs)  # after each: what comes later may fail
    print("\n" + "\n".join(table(results.newest(runs))), f"\nsaved as {path} and .md")
    sys.exit(bool(made.failed))


if __name__ == "__main__":
    main()
