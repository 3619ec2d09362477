"""What reading answers' usage costs Envoy: its processor time a call with the Lua script and with none.

    python -m benchmarks.answer_meter [--rounds 5] [--calls 1000]

Two Envoys of one thread with our filters and routes stand in front of one stub server; one of them has no script. For
each kind of answer they take turns, round by round. Counted is Envoy's user and system time from /proc; callers, the
gate (which admits everything) and the stub are other processes or this one. Medians, with the least and the most.

The last lines are of a server that sends an event of 1 MB without a line's end and then a byte a millisecond, on ten
streams at once: the share of a thread that this takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.files import METER_FILTER
from tests.e2e.proxy import HOST, Envoy, Gate, head, openai, options_for, short_folder

CONNECTIONS: Final = 16
PATH: Final = "/v1/models/llm"
BODY: Final = b'{"model":"llm","messages":[{"role":"user","content":"Hello there, how are you today?"}]}'
USAGE: Final = b'"usage":{"prompt_tokens":9,"completion_tokens":120,"total_tokens":129}'
SLOW_STREAMS: Final = 10
SLOW_S: Final = 5


def _chat(text: bytes) -> bytes:
    choice = b'{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}' % text
    return b'{"id":"c","object":"chat.completion","created":1,"model":"llm","choices":[%s],%s}' % (choice, USAGE)


def _events(more: bytes) -> list[bytes]:
    delta = b'"choices":[{"index":0,"delta":{"content":"hello"},"logprobs":null,"finish_reason":null}]'
    event = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"llm",%s%s}\n\n' % (delta, more)
    return [event] * 100


LAST: Final = b'data: {"choices":[],%s}\n\ndata: [DONE]\n\n' % USAGE
EMBEDDING: Final = b'{"embedding":[%s]}' % b",".join([b"-0.0123456789"] * 1536)
ANSWERS: Final[dict[str, list[bytes]]] = {
    "JSON, 0.8 kB": [_chat(b"hello there " * 50)],
    "JSON, 40 kB": [_chat(b"hello there " * 3300)],
    "JSON, 64 embeddings, 1.4 MB": [b'{"data":[%s],%s}' % (b",".join([EMBEDDING] * 64), USAGE)],
    "100 events, usage in the last": [*_events(b',"usage":null'), LAST],
    "100 events, no usage": _events(b""),
    "100 events, usage in each": _events(b"," + USAGE),
}
"""Every answer by its pieces; one of several is a stream."""
SHARE: Final = {"JSON, 64 embeddings, 1.4 MB": 0.1}
"""Of the calls of a round."""


class Stub(asyncio.Protocol):
    """Sends the answer whose number stands at the end of the path."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer; a request comes in one piece, as small as ours are."""
        name = data.split(b" ", 2)[1].rpartition(b"/")[2]
        if name == b"slow":
            self._sending = asyncio.get_running_loop().create_task(self._send_slowly())
            return
        pieces = list(ANSWERS.values())[int(name)]
        if len(pieces) == 1:
            lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(lines % len(pieces[0]) + pieces[0])
            return
        self._sending = asyncio.get_running_loop().create_task(self._send(pieces))

    async def _send(self, pieces: list[bytes]) -> None:
        self._begin()
        for piece in pieces:
            self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        self._transport.write(b"0\r\n\r\n")

    async def _send_slowly(self) -> None:
        self._begin()
        head = b'data: {"a":"' + b"x" * 2**20
        self._transport.write(b"%x\r\n%s\r\n" % (len(head), head))
        while not self._transport.is_closing():
            self._transport.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.001)

    def _begin(self) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )


def serve_stub(port: Any) -> None:
    """Run the stub; ``port`` is told through a pipe."""

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


def request_for(name: str) -> bytes:
    """The bytes of a call."""
    fields = (f"host: {HOST}", "content-type: application/json", f"content-length: {len(BODY)}")
    return head("POST", f"{PATH}/{name}", *fields) + BODY


async def call(port: int, name: str, calls: int) -> None:
    """Make so many calls in a closed loop."""
    left = iter(range(calls))
    await asyncio.gather(*(_loop(port, request_for(name), left) for _ in range(CONNECTIONS)))


async def _loop(port: int, request: bytes, left: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**23)
    for _ in left:
        writer.write(request)
        said = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in said.partition(b"\r\n")[0]:
            raise SystemExit(said.decode())
        if b"transfer-encoding: chunked" in said:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            await reader.readexactly(int(said.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    writer.close()


async def read_slowly(port: int) -> None:
    """Read ten streams that never end for some seconds, the first megabytes before."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SLOW_STREAMS)]
    for reader, writer in opened:
        writer.write(request_for("slow"))
        await reader.readexactly(2**20)
    read = [asyncio.create_task(_read(reader)) for reader, _ in opened]
    await asyncio.sleep(SLOW_S)
    for task in read:
        task.cancel()
    for _, writer in opened:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


def spent_us(envoy: Envoy) -> float:
    """User and system time so far, of all threads: by the scheduler, which counts finer than ticks."""
    threads = Path(f"/proc/{envoy._process.pid}/task").glob("*/schedstat")  # noqa: SLF001
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e3


def without_script(config: dict[str, Any]) -> dict[str, Any]:
    """The same proxy, whose answers nobody reads."""
    (listener,) = config["static_resources"]["listeners"]
    (lua,) = (one for one in _filters(listener) if one["name"] == METER_FILTER)
    lua["typed_config"]["default_source_code"] = {"inline_string": "-- nothing"}
    return config


def _filters(listener: dict[str, Any]) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return filters


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1_000)
    options = parser.parse_args()
    near, far = multiprocessing.Pipe()
    stub = multiprocessing.get_context("spawn").Process(target=serve_stub, args=(far,), name="stub", daemon=True)
    stub.start()
    with ExitStack() as stack:
        stack.callback(stub.terminate)
        url = f"http://127.0.0.1:{near.recv()}"
        envoys = {way: _envoy(stack, url, way) for way in ("unread", "read")}
        for number, name in enumerate(ANSWERS):
            _measure(envoys, name, str(number), options.rounds, int(options.calls * SHARE.get(name, 1)))
        for way, envoy in envoys.items():
            before_us, began_s = spent_us(envoy), time.monotonic()
            asyncio.run(read_slowly(envoy.ports["http"]))
            share = (spent_us(envoy) - before_us) / 1e6 / (time.monotonic() - began_s)
            print(f"{SLOW_STREAMS} streams, a byte a millisecond, {way}: {share:.0%} of a thread")


def _envoy(stack: ExitStack, url: str, way: str) -> Envoy:
    folder = stack.enter_context(short_folder())
    gate = stack.enter_context(Gate(folder))
    chosen = options_for(folder, gate.target)
    config = bootstrap(chosen)
    envoy = Envoy(chosen, config if way == "read" else without_script(config))
    envoy.publish([openai("llm", PATH, url)])
    return stack.enter_context(envoy)


def _measure(envoys: dict[str, Envoy], name: str, number: str, rounds: int, calls: int) -> None:
    costs: dict[str, list[float]] = {way: [] for way in envoys}
    for one in range(-1, rounds):  # the first warms up, uncounted
        for way, envoy in envoys.items():
            before_us = spent_us(envoy)
            asyncio.run(call(envoy.ports["http"], number, calls))
            if one >= 0:
                costs[way].append((spent_us(envoy) - before_us) / calls)
    told = {way: f"{statistics.median(all_):,.0f} ({min(all_):,.0f}..{max(all_):,.0f})" for way, all_ in costs.items()}
    more = statistics.median(after - before for before, after in zip(*costs.values(), strict=True))
    print(f"{name:32} {json.dumps(told)} read costs {more:,.0f} us a call", flush=True)


if __name__ == "__main__":
    main()
