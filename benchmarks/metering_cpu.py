"""What metering costs: processor time a call of Envoy, gate and store, before the meter was rebuilt and now.

    python -m benchmarks.metering_cpu [--rounds 5] [--calls 1200] [--before 1c9bad4] [--kinds chat,long,stream]

Two whole machines (`tollkeeper up`: one Envoy with one thread, one gate, one Valkey each) run side by side: one of the
commit `--before`, exported from this repository's own history into a temporary folder, one of this tree. Both publish
the same stub model server. For each kind of call they take turns, round by round, so that what else the computer does
hits both. Counted is user and system time, after the last call of a round has been settled; callers and the stub are
processes of their own and not counted. 16 connections call in a closed loop (4 with large bodies). Medians of all
rounds, with the least and the most; only ratios of one run count.

Kinds: `chat` with a prompt of 110 bytes; `long`, one of 40 kB; `stream`, 100 events; `flood`, 4 MB of small JSON values
without a key, refused; `old`, a call of a traditional model, which is not metered.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import redis
import requests
from upclient import Operator
from upmachine import UpMachine, until, up_machine

from benchmarks.ground.gates import NEWEST_S, writes_newest
from benchmarks.ground.processes import await_that, cpu_us
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import ratio

BEFORE: Final = "1c9bad4"
TENANT: Final = "bench"
PLENTY: Final = {"requestsPerMinute": 10**8, "requestsPerHour": 10**8, "tokensPerHour": 10**9, "burstLimit": 10**8}
LEAST_SHARE: Final = 0.99
TRIES: Final = 5
"""A busy machine has calls run into their deadlines; such a round never counts."""
LOGS: Final = {"envoy": "envoy", "gate": "gate", "store": "valkey"}
"""The parts of a machine that are counted, and where each of them writes."""
PARTS: Final = tuple(LOGS)
_USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


@dataclass(frozen=True)
class Kind:
    """One kind of call."""

    name: str
    model: str
    target: str
    body: bytes
    calls: float = 1.0  # of the calls of a round
    connections: int = 16
    has_key: bool = True
    status: int = 200


def _chat(**fields: Any) -> bytes:
    return json.dumps({"model": "chat", "max_tokens": 100} | fields).encode()


def kinds() -> dict[str, Kind]:
    """All that can be measured."""
    short, long = [{"role": "user", "content": "Hello, who are you?"}], [{"role": "user", "content": "word " * 8_000}]
    many = b'{"model":"chat","x":[' + b"[{},{}]," * 499_990 + b"1]}"
    chat = "/v1/chat/completions"
    return {
        "chat": Kind("JSON chat, prompt of 110 B", "chat", chat, _chat(messages=short)),
        "long": Kind("JSON chat, prompt of 40 kB", "chat", chat, _chat(messages=long), 0.7),
        "stream": Kind("stream of 100 events", "chat", chat, _chat(messages=short, stream=True), 0.4),
        "flood": Kind("4 MB without a key", "chat", chat, many, 0.02, 4, has_key=False, status=401),
        "old": Kind("traditional call", "old", "/models/bench/old/predict", b'{"instances":[1]}'),
    }


class Stub(asyncio.Protocol):
    """A model server: a chat whole or as 100 events, a traditional model, and what is asked when it is registered."""

    def __init__(self) -> None:
        self._text = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is whole."""
        self._text += data
        end = self._text.find(b"\r\n\r\n")
        if end < 0 or len(self._text) < end + 4 + _length(bytes(self._text[:end])):
            return
        request, self._text = bytes(self._text), bytearray()
        for part in _answer(request):
            self._transport.write(part)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length: ")
    return int(rest.split(b"\r\n")[0]) if found else 0


def _answer(request: bytes) -> Iterator[bytes]:
    if b'"stream": true' in request[-300:]:
        event = b'data: {"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}],"usage":null}\n\n'
        last = b"data: " + json.dumps({"choices": [], "usage": _USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        for text in (*[event] * 99, last):
            yield b"%x\r\n%s\r\n" % (len(text), text)
        yield b"0\r\n\r\n"
    else:
        path = request.split(b" ", 2)[1]
        body = json.dumps(_document(path.decode())).encode()
        yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _document(path: str) -> Any:
    match path:
        case "/v1/models":
            return {"object": "list", "data": [{"id": "chat", "object": "model"}]}
        case "/v1/models/old":
            return {"name": "old", "ready": True}
        case _:
            return {"choices": [{"message": {"content": "Hello!"}}], "usage": _USAGE, "predictions": [1]}


def serve_stub(port: Any) -> None:
    """Run the stub; ``port`` is told through a pipe."""

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


@contextmanager
def stub() -> Iterator[str]:
    """The URL of a stub that runs in a process of its own."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_stub, args=(far,), name="stub", daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{near.recv()}"
    finally:
        process.terminate()
        process.join()


async def call(port: int, kind: Kind, request: bytes, calls: int) -> int:
    """Make so many calls in a closed loop; how many were answered as they should be."""
    left = iter(range(calls))
    return sum(await asyncio.gather(*(_loop(port, kind, request, left) for _ in range(kind.connections))))


async def _loop(port: int, kind: Kind, request: bytes, left: Iterator[int]) -> int:
    good, writer = 0, None
    for _ in left:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            await reader.readexactly(_length(head))
        good += int(head.split(b" ", 2)[1]) == kind.status
        if not kind.has_key or b"connection: close" in head.lower():  # refused: the rest of the body is not waited for
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return good


@dataclass
class Side:
    """One machine, ready, and what its parts have cost so far by kind of call."""

    name: str
    machine: UpMachine
    key: str
    pids: dict[str, int]
    us_a_call: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def round(self, kind: Kind, calls: int) -> None:
        """Make calls and note what each cost."""
        for _ in range(TRIES):
            before_us = self._spent_us()
            good = asyncio.run(call(self._port(), kind, self._request(kind), calls))
            self._await_settled()
            if good >= LEAST_SHARE * calls:
                break
            print(f"{self.name}, {kind.name}: {good} of {calls} calls were answered by {kind.status}; once more")
        else:
            raise SystemExit(f"{self.name}, {kind.name}: too many calls were not answered by {kind.status}")
        spent_us = self._spent_us()
        cost = {part: (spent_us[part] - before_us[part]) / calls for part in PARTS}
        self.us_a_call.setdefault(kind.name, []).append(cost)

    def _port(self) -> int:
        return urllib.parse.urlsplit(self.machine.up["gateway_url"]).port or 80

    def _request(self, kind: Kind) -> bytes:
        lines = [f"POST {kind.target} HTTP/1.1", f"host: {self.machine.up['sample']['openai']['host']}"]
        lines += [f"x-api-key: {self.key}"] if kind.has_key else []
        lines += ["content-type: application/json", f"content-length: {len(kind.body)}", "", ""]
        return "\r\n".join(lines).encode() + kind.body

    def _spent_us(self) -> dict[str, float]:
        return {part: cpu_us([pid]) for part, pid in self.pids.items()}

    def _await_settled(self) -> None:
        with redis.Redis.from_url(self.machine.up["redis_url"]) as store:
            if not until(lambda: store.hlen("tk:held:{0}") == 0, 60):
                raise SystemExit(f"{self.name}: calls stay unsettled")


@contextmanager
def side(name: str, tree: Path, folder: Path, server: str) -> Iterator[Side]:
    """Start a machine of a source tree and publish the stub there."""
    settings = {"PYTHONPATH": str(tree), "TOLLKEEPER_ADMIN_PASSWORD": "password", "TOLLKEEPER_STORE_WAIT_MS": "190"}
    with up_machine(folder / name, cwd=tree, **settings) as machine:
        pids = {part: _pid(machine, log) for part, log in LOGS.items()}
        key = _publish(Operator(machine), server)
        facts = machine.up["metrics_url"].replace("/metrics", "/readyz")
        await_that(lambda: _writes_newest(facts), "a gate that writes the newest format", NEWEST_S)
        yield Side(name, machine, key, pids)


def _writes_newest(url: str) -> bool:
    """Whether it has looked about long enough for gates of a release before; an older commit does not know of that."""
    told = requests.get(url, timeout=10).json()
    return "storeFormat" not in told or writes_newest(told)


def _pid(machine: UpMachine, log: str) -> int:
    """The process that writes to this log."""
    (pid,) = (pid for pid in machine.children if Path(f"/proc/{pid}/fd/1").readlink().stem == log)
    return pid


def _publish(operator: Operator, server: str) -> str:
    """Publish the stub as two models; a key for both."""
    operator.must("POST", "/api/tenants", {"tenantId": TENANT})
    for model, path in (("chat", "/v1/models/bench-chat"), ("old", "/models/bench/old")):
        operator.must("POST", "/api/models", {"name": model, "tenantId": TENANT, "url": server})
        place = f"/api/models/{model}/publish?tenantId={TENANT}"
        operator.must("POST", place, {"config": {"externalPath": path, "rateLimiting": PLENTY}})
        if not until(lambda at=place: operator.must("GET", at)["status"] == "live", 30):
            raise SystemExit(f"{model} is not live")
    asked = {"tenantId": TENANT, "name": "bench", "publications": ["chat", "old"]}
    return str(operator.must("POST", "/api/keys", asked)["apiKey"])


def export(commit: str, folder: Path) -> Path | None:
    """The files of a commit of this repository's own history; None where that does not reach so far back."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False).returncode:
        return None
    packed = folder / "before.tar"
    subprocess.run([*git, "archive", "-o", str(packed), commit], check=True)
    tree = folder / "before-tree"
    tree.mkdir()
    subprocess.run(["tar", "-xf", str(packed), "-C", str(tree)], check=True)
    return tree


def report(sides: list[Side]) -> None:
    """Print medians and spreads of each kind, and the ratio of the sums round by round."""
    print(f"{'microseconds of CPU a call':28} {'':7} " + " ".join(f"{part:>22}" for part in (*PARTS, "all")))
    for kind in sides[0].us_a_call:
        for one in sides:
            rounds = one.us_a_call[kind]
            columns = [[cost[part] for cost in rounds] for part in PARTS] + [[sum(cost.values()) for cost in rounds]]
            print(f"{kind:28} {one.name:7} " + " ".join(f"{_spread(column):>22}" for column in columns))
        sums = [[sum(cost.values()) for cost in one.us_a_call[kind]] for one in sides]
        ratios = [after / before for before, after in zip(*sums, strict=True)]
        print(f"{'':28} ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})")


def _rounds(costs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {f"{part} us": [cost[part] for cost in costs] for part in PARTS}


def _spread(costs: list[float]) -> str:
    return f"{statistics.median(costs):,.0f} ({min(costs):,.0f}..{max(costs):,.0f})"


def main() -> None:
    """Run."""
    known = kinds()
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--calls", type=int, default=1_200)
    parser.add_argument("--before", default=BEFORE)
    parser.add_argument("--kinds", default=",".join(known))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tk-") as name, ExitStack() as stack:
        folder = Path(name)
        tree = export(options.before, folder)
        if tree is None:
            print(f"skipped: this repository's history has no commit {options.before} to compare with")
            return
        trees = {"before": tree, "now": ROOT}
        server = stack.enter_context(stub())
        sides = [stack.enter_context(side(name, tree, folder, server)) for name, tree in trees.items()]
        began_s = time.monotonic()
        for kind in [known[name] for name in options.kinds.split(",")]:
            calls = max(kind.connections, int(options.calls * kind.calls))
            for one in sides:  # warm up, uncounted
                one.round(kind, max(kind.connections, calls // 4))
                one.us_a_call.pop(kind.name)
            for number in range(options.rounds):
                for one in sides if number % 2 else sides[::-1]:
                    one.round(kind, calls)
        report(sides)
        chats = [[sum(cost.values()) for cost in one.us_a_call.get(known["chat"].name, ())] for one in sides]
        if options.before == BEFORE and all(chats):
            rounds = {one.name: _rounds(one.us_a_call[known["chat"].name]) for one in sides}
            save([tell(Row("chat", ratio(chats[1], chats[0]), rounds))], options.json)
        print(f"{options.rounds} rounds in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
