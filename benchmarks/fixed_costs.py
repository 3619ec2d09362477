"""What a batch and a call cost before anything is decided, and what ordinary descriptors add: processor time.

    python -m benchmarks.fixed_costs [--rounds 5]

`front`: gRPC in and out with nothing behind it, as the gate uses pygrpc-native, and pygrpc-native alone with all of a
call's metadata brought to Python; by h2load, many calls at once and one at a time. `link`: one exchange with Valkey on
a Unix socket, and the same by redis-py. `limits`: `RateLimitService` with three descriptors in this process, from a
batch's bytes to its answers and the store's wait between, by the size of the batch; `fresh` calls were never seen
before. Thread time but for the front's rows, where the process counts.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Final

import redis
from prometheus_client import CollectorRegistry
from pygrpc_native import EVENT_CALL, NativeGrpcFront

from benchmarks.ground import h2load
from benchmarks.ground.processes import accepts, await_that, cpu_us, free_port, running, valkey
from protos.rate_limit_pb2 import RateLimitRequest
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.reading import parse
from ratelimit.service.edge import RateLimitService
from ratelimit.service.stream_done import StreamDone
from runtime.clock import SystemClock
from runtime.grpc.front import QueueLimits
from runtime.grpc.health import HEALTH_PATH, HealthService
from runtime.grpc.native import NativeFront
from runtime.store.link import StoreLink

SIZES: Final = (1, 8, 20, 64)
LOADS: Final = {"64 at once": (4, 16, 12_000), "one at a time": (1, 1, 3_000)}
BATCHES: Final = 300
KEYS: Final = ("second", "minute", "hour")
FILE: Final = "domain: bench\ndescriptors:\n" + "".join(
    f"  - {{key: {key}, rate_limit: {{unit: {key}, requests_per_unit: 1000000000}}}}\n" for key in KEYS
)
CLOCK: Final = SystemClock()


def serve(port: int, *, with_details: bool) -> None:
    """Answer calls with nothing, until killed."""
    target = f"127.0.0.1:{port}"
    if not with_details:
        services = {HEALTH_PATH: HealthService(lambda: True, ())}
        NativeFront(services, target=target, clock=CLOCK, on_fault=sys.exit, limits=QueueLimits()).start()
        Event().wait()
    front = NativeGrpcFront(target, [(HEALTH_PATH, False)], io_threads=1, call_details=True)
    front.start()
    while True:
        for event in front.recv_batch_details(4_000, 100) or ():
            if event[0] == EVENT_CALL:
                front.respond(event[1], b"")


@contextlib.contextmanager
def fronts(folder: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """Both fronts: their ports and processes."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("the gate's", "with all metadata"):
            port = free_port()
            words = ["--serve", str(port), *(["--with-details"] if name != "the gate's" else [])]
            command = [sys.executable, "-m", "benchmarks.fixed_costs", *words]
            process = stack.enter_context(running(command, folder / f"{port}.log"))
            await_that(partial(accepts, port), "a front")
            found[name] = port, process.pid
        yield found


def front_rows(rounds: int, folder: Path) -> None:
    """Measure the fronts by turns."""
    with fronts(folder) as found:
        for load, (connections, streams, calls) in LOADS.items():
            spent: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(rounds):
                for name, (port, pid) in found.items():
                    before_us = cpu_us([pid])
                    target = h2load.Target(port, HEALTH_PATH, b"")
                    h2load.load(target, calls, connections=connections, streams=streams)
                    spent[name].append((cpu_us([pid]) - before_us) / calls)
            for name, values in spent.items():
                tell(f"front, {name}, {load}", values, "a call")


def exchange_rows(rounds: int, store_path: Path) -> None:
    """Measure one exchange."""
    link = StoreLink(f"unix://{store_path}", CLOCK)
    link.connect()
    with contextlib.closing(link), redis.Redis(unix_socket_path=str(store_path)) as client:
        ours: Callable[[], object] = lambda: link.execute(CLOCK.monotonic_ms() + 1_000, "PING")  # noqa: E731
        tell("link, an exchange", [thread_us(ours) for _ in range(rounds)])
        tell("link, the same by redis-py", [thread_us(client.ping) for _ in range(rounds)])


def limits_rows(rounds: int, store_path: Path) -> None:
    """Measure descriptors by the size of a batch."""
    link = StoreLink(f"unix://{store_path}", CLOCK)
    link.connect()
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(CollectorRegistry()), writes_format=lambda: 2)
    ordinary.use(parse(FILE))
    service = RateLimitService(
        StreamDone(lambda _told: None, lambda: None),
        lambda asked, deadline_ms: ordinary.decide(asked, partial(link.execute, deadline_ms), 0),
        lambda: None,
        on_fault=lambda _calls: sys.exit("a fault of ours"),
        denies_undecided=lambda: True,
    )
    numbers = itertools.count()
    with contextlib.closing(link):
        for size in SIZES:
            hot = itertools.repeat([question("hot")] * size)
            fresh = iter([[question(str(next(numbers))) for _ in range(size)] for _ in range(rounds * BATCHES)])
            for name, batches in (("", hot), (", fresh", fresh)):
                act = partial(answer_next, service, batches)
                tell(f"limits, a batch of {size}{name}", [thread_us(act) for _ in range(rounds)], calls=size)


def answer_next(service: RateLimitService, batches: Iterator[list[bytes]]) -> None:
    """Have one batch answered."""
    service.answer(next(batches), soon_ms())


def question(value: str) -> bytes:
    """Three descriptors with this value."""
    request = RateLimitRequest(domain="bench")
    for key in KEYS:
        request.descriptors.add().entries.add(key=key, value=value)
    return request.SerializeToString()


def soon_ms() -> float:
    """A deadline that nothing misses."""
    return CLOCK.monotonic_ms() + 10_000


def thread_us(act: Callable[[], object]) -> float:
    """This thread's time for one of many."""
    begun_s = time.thread_time()
    for _ in range(BATCHES):
        act()
    return (time.thread_time() - begun_s) / BATCHES * 1e6


def tell(what: str, values: list[float], per: str = "", calls: int = 1) -> None:
    """Print the median with the least and the most."""
    median = statistics.median(values)
    share = f", {median / calls:6.1f} a call" if calls > 1 else ""
    print(f"{what:42}: {median:7.1f} us {per}({min(values):.1f}..{max(values):.1f}){share}", flush=True)


def main(options: Namespace) -> None:
    """Measure and print."""
    if options.serve:
        serve(options.serve, with_details=options.with_details)
    with TemporaryDirectory(prefix="tk-") as folder, valkey() as store:
        front_rows(options.rounds, Path(folder))
        exchange_rows(options.rounds, store.path)
        limits_rows(options.rounds, store.path)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=int, default=0, metavar="PORT", help="be a front with nothing behind it")
    parser.add_argument("--with-details", action="store_true")
    main(parser.parse_args())
