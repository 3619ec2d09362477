"""What a call costs Envoy as publications grow: processor time of plain Envoy with 10, 100, 1,000 and 3,000 of them.

    python -m benchmarks.many_publications [--rounds 5] [--calls 2000] [--publications 10 100 1000 3000]

One Envoy of one thread for each number, with the product's own start-up configuration and files, beside a stub gate
that answers every Check at once and a stub server: both are processes of their own and not counted, nor is the
caller. All publications of an Envoy are on one host, two openai ones to one traditional. Calls go to ten publications
spread evenly over the catalog, so that every Envoy has as many connections. The Envoys take turns, round by round; a
call is counted only if the right publication answered. Microseconds of user and system time of the whole Envoy
process, medians of all rounds with the least and the most; ratios are to the smallest number.

Kinds: a traditional call by its path, a chat by its path, a chat that its body decides (two looks at the routes).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from benchmarks.ground import plain_authz
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import ratio as ratio_of
from catalog.records import PublicationRecord
from tests.e2e.proxy import HOST, Envoy, admitted, head, openai, options_for, publication, short_folder

CALLED: Final = 10
BARS_SIZES: Final = (10, 3_000)
CONNECTIONS: Final = 16
CHAT: Final = "/v1/chat/completions"
_MODEL: Final = re.compile(rb'"model": "([^"]+)"')
_NAMED: Final = re.compile(rb"(?i)x-tollkeeper-publication: ([^\r]+)\r")


def catalog(count: int, url: str) -> list[PublicationRecord]:
    """So many publications of one host: every third is traditional, the others openai."""
    return [
        publication(f"p{n}", f"/models/team-{n % 50}/m{n}", url)
        if n % 3 == 0
        else openai(f"p{n}", f"/v1/models/team-{n % 50}/m{n}", url)
        for n in range(count)
    ]


@dataclass(frozen=True)
class Call:
    """A call as it is sent, and the publication that must be reached."""

    text: bytes
    publication: str


def calls(kind: str, found: Sequence[PublicationRecord]) -> list[Call]:
    """One to each of the publications that are called."""
    fits = [record for record in found if (record.path.startswith("/models")) == (kind == "traditional, by path")]
    step = max(1, len(fits) // CALLED)
    return [Call(_text(kind, record), record.uid) for record in fits[::step][:CALLED]]


def _text(kind: str, record: PublicationRecord) -> bytes:
    path = {
        "traditional, by path": f"{record.path}/predict",
        "chat, by path": f"{record.path}/chat/completions",
        "chat, by body": CHAT,
    }[kind]
    body = json.dumps({"model": record.uid, "messages": [{"role": "user", "content": "Hello, who are you?"}]}).encode()
    headers = (f"host: {HOST}", "content-type: application/json", f"content-length: {len(body)}")
    return head("POST", path, *headers, "x-api-key: tk_0a1b2c_benchmark") + body


KINDS: Final = ("traditional, by path", "chat, by path", "chat, by body")


def serve_gate(target: str, ready: Any) -> None:
    """Answer every Check at once; where a body names a model, that is the publication."""
    plain = admitted({}).SerializeToString()

    def answer(asked: bytes) -> bytes:
        model = _MODEL.search(asked)
        return admitted({"x-tollkeeper-publication": model[1].decode()}).SerializeToString() if model else plain

    plain_authz.serve(target, answer, partial(ready.send, True))


def serve_model(ready: Any) -> None:
    """Answer every call with the publication that it was named."""

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(_Model, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


class _Model(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._text = b""

    def data_received(self, data: bytes) -> None:
        self._text += data
        end = self._text.find(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", self._text[:end]) if end >= 0 else None
        if end < 0 or len(self._text) < end + 4 + int(length[1] if length else 0):
            return
        named = _NAMED.search(self._text)
        said = b'{"upstream":"%s"}' % (named[1] if named else b"")
        self._text = b""
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        self._transport.write(answer % (len(said), said))


@contextmanager
def process(serve: Any, *arguments: Any) -> Iterator[Any]:
    """What a stub says when it is ready, while it runs in a process of its own."""
    near, far = multiprocessing.Pipe()
    made = multiprocessing.get_context("spawn").Process(target=serve, args=(*arguments, far), daemon=True)
    made.start()
    try:
        far.close()  # so that one that ends is heard
        yield near.recv()
    finally:
        made.terminate()
        made.join()


def cpu_ns(pid: int) -> int:
    """What all threads of a process have run for."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files)


async def send(port: int, wanted: Sequence[Call], count: int) -> None:
    """Send so many in closed loops; each must reach its publication."""

    async def loop(turn: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(count // CONNECTIONS):
            call = wanted[(turn + n) % len(wanted)]
            writer.write(call.text)
            told = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", told)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if json.loads(body).get("upstream") != call.publication:
                raise AssertionError(f"{call.text!r} was answered {told!r} {body!r}")
        writer.close()

    await asyncio.gather(*(loop(turn) for turn in range(CONNECTIONS)))


@dataclass(frozen=True)
class Measured:
    """An Envoy and whom it serves."""

    envoy: Envoy
    found: Sequence[PublicationRecord]

    @property
    def pid(self) -> int:
        """Its process."""
        return self.envoy._process.pid  # noqa: SLF001  a test's own

    def cost_us(self, kind: str, count: int) -> float:
        """Envoy's processor time a call."""
        begun = cpu_ns(self.pid)
        asyncio.run(send(self.envoy.ports["http"], calls(kind, self.found), count))
        return (cpu_ns(self.pid) - begun) / (count // CONNECTIONS * CONNECTIONS) / 1_000


@contextmanager
def envoys(counts: Sequence[int]) -> Iterator[dict[int, Measured]]:
    """One for each number of publications."""
    with ExitStack() as stack:
        port = stack.enter_context(process(serve_model))
        made = {}
        for count in counts:
            folder = stack.enter_context(short_folder())
            stack.enter_context(process(serve_gate, f"unix:{folder}/gate.sock"))
            envoy = Envoy(options_for(folder, f"unix:{folder}/gate.sock"))
            found = catalog(count, f"http://127.0.0.1:{port}")
            envoy.publish(found)
            made[count] = Measured(stack.enter_context(envoy), found)
        yield made


def row_of(costs: Mapping[tuple[str, int], Sequence[float]]) -> Row:
    """The bar: the kind of call that grows most from the fewest to the most."""
    few, many = BARS_SIZES
    sides: dict[str, dict[str, Sequence[float]]] = defaultdict(dict)
    for (kind, count), of in costs.items():
        sides[f"{count:,} publications"][f"{kind}, us"] = of
    ratios = [ratio_of(costs[kind, many], costs[kind, few]) for kind in KINDS]
    return Row("publications", max(ratios, key=lambda one: one.median), sides)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--publications", type=int, nargs="+", default=[10, 100, 1_000, 3_000])
    options = parser.parse_args()
    costs: dict[tuple[str, int], list[float]] = defaultdict(list)
    with envoys(options.publications) as measured:
        for turn in range(options.rounds + 1):
            for kind in KINDS:
                for count, one in measured.items():
                    cost_us = one.cost_us(kind, options.calls)
                    if turn:  # the first opens connections
                        costs[kind, count].append(cost_us)
    least = min(options.publications)
    print("| call | publications | Envoy, us a call | / the fewest |\n|---|---|---|---|")
    for (kind, count), found in costs.items():
        ratio = statistics.median(found) / statistics.median(costs[kind, least])
        spread = f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
        print(f"| {kind} | {count:,} | {spread} | {ratio:.2f} |")
    if {*BARS_SIZES} <= {*options.publications}:
        save([tell(row_of(costs))], options.json)


if __name__ == "__main__":
    main()
