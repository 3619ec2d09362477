"""Answers pass a real Envoy as they come, of any form and size, and what they tell of usage stands in its metadata."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gatebench import wait_until

from publisher.envoy.answer import meter
from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.files import METER_FILTER
from ratelimit.tokens.meter import ID, USAGE_NAMESPACE
from tests.e2e.meterbench import PLAIN, Bench, meterbench
from tests.e2e.metered import Answer, events, sse, whole
from tests.e2e.proxy import PATIENCE_S
from tests.tables.answers import EVENTS, READ, UNREAD, Form

MIB = 1024 * 1024
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
LAST = {"choices": [], "usage": USAGE}
DELTA = {"choices": [{"delta": {"content": "x"}}]}
FORMS = {f"form-{number}": form for number, form in enumerate([*READ, *UNREAD])}
LEFT = threading.Event()


def served(form: Form) -> Answer:
    """A form as some server sends it: events in pieces of seven bytes, all else whole."""
    if form.kind == EVENTS and not form.headers:
        return events(form.body, piece=7)
    given = [f"{name.replace('_', '-')}: {value}" for name, value in form.headers.items() if name != "status"]
    return whole(form.body, f"content-type: {form.kind}", *given, status=int(form.headers.get("status", "200")))


def repeated(piece: bytes, times: int, first: bytes, last: bytes, kind: str = "application/json") -> Answer:
    """A long answer, which stands nowhere in memory."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        length = len(first) + times * len(piece) + len(last)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n".encode() + first)
        for _ in range(times):
            writer.write(piece)
            await writer.drain()
        writer.write(last)

    return answer


def waits(text: bytes, rest: bytes) -> Answer:
    """Events, of which the rest is sent once the caller has seen the first."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + text)
        await writer.drain()
        await asyncio.to_thread(LEFT.wait, PATIENCE_S)
        writer.write(rest)

    return answer


VECTOR = b"[" + b",".join([b"-0.012345678"] * 3072) + b"]"
TOLD = b',"usage":' + json.dumps(USAGE).encode() + b"}"
ANSWERS: dict[str, Answer] = {
    **{name: served(form) for name, form in FORMS.items()},
    "image": whole(b'{"data":[{"b64_json":"' + b"A" * 6_000_000 + b'"}],"usage":{"total_tokens":4210}}'),
    "embeddings": whole(
        b'{"data":[' + b",".join([b'{"embedding":' + VECTOR + b"}"] * 256) + b'],"usage":{"total_tokens":2560}}'
    ),
    "huge": repeated(b"x" * MIB, 100, b'{"text":"', b'"' + TOLD),
    "huge-events": repeated(sse(DELTA, done="") * 10_000, 100, b"", sse(LAST), EVENTS),
    "huge-audio": repeated(b'{"usage":{"' * 100_000, 100, b"", b"", "audio/mpeg"),
    "leaves": waits(sse(DELTA, DELTA, LAST, done=""), b""),
    "silent-leaves": waits(sse(*[DELTA] * 90, done=""), b""),
    "first": waits(b"data: {", b'"usage":{"total_tokens":12}}\n\n'),
}


class Logged:
    """An Envoy whose access log is what the meter told of each call."""

    def __init__(self, bench: Bench, log: Path) -> None:
        self.bench, self._log = bench, log

    def told(self) -> dict[str, int]:
        """The numbers of the one call that has ended since the last time."""
        wait_until(lambda: self._log.exists() and self._log.read_text().endswith("\n"), PATIENCE_S)
        (line,) = self._log.read_text().splitlines()
        self._log.write_text("")
        told = json.loads(line)["usage"] or {}
        return {name: int(value) for name, value in told.items() if name != ID}

    def resident_bytes(self) -> int:
        """Memory of Envoy's process."""
        status = Path(f"/proc/{self.bench.envoy._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def logging(config: dict[str, Any], log: Path, script: str | None = None) -> dict[str, Any]:
    """Have the metadata logged that the meter sets, and perhaps another script run."""
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    form = {"json_format": {"usage": f"%DYNAMIC_METADATA({USAGE_NAMESPACE})%"}}
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    file = {"@type": kind, "path": str(log), "log_format": form}
    manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": file}]
    if script is not None:
        (lua,) = (one for one in manager["http_filters"] if one["name"] == METER_FILTER)
        lua["typed_config"]["default_source_code"] = {"inline_string": script}
    return config


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """One Envoy for all."""
    log = tmp_path_factory.mktemp("answers") / "usage.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.e2e.proxy.bootstrap", lambda options: logging(bootstrap(options), log))
        with meterbench(ANSWERS) as bench:
            yield Logged(bench, log)


@pytest.fixture
def logged(shared: Logged) -> Iterator[Logged]:
    """The same, with nothing to wait for left over."""
    LEFT.clear()
    yield shared
    LEFT.set()


@pytest.mark.parametrize("name", FORMS, ids=lambda name: FORMS[name].name)
def test_each_form_is_read_by_envoy(logged: Logged, name: str) -> None:
    """As the table says, through the real filter; the caller gets the answer as it was sent."""
    form = FORMS[name]
    assert logged.bench.curl(name).stdout == form.body
    assert logged.told() == form.told


@pytest.mark.parametrize(("name", "total"), [("image", 4210), ("embeddings", 2560)])
def test_large_answers_come_through_and_are_counted(logged: Logged, name: str, total: int) -> None:
    """An image of 6 MB and 256 vectors of 3,072 numbers."""
    assert logged.bench.call(name).status == 200
    assert logged.told() == {"total": total}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("huge", {"prompt": 5, "completion": 7, "total": 12}),
        ("huge-events", {"prompt": 5, "completion": 7, "total": 12, "events": 1_000_001}),
        ("huge-audio", {}),
    ],
)
def test_memory_stays_flat_under_huge_answers(logged: Logged, name: str, told: dict[str, int]) -> None:
    """100 MB and more stream through; Envoy grows by less than it may hold for two connections."""
    before_bytes = logged.resident_bytes()
    most_bytes, received = 0, 0
    with logged.bench.envoy.connect() as connection:
        connection.sendall(logged.bench.begin(name))
        while not _ended(received, more := connection.recv(4 * MIB), name):
            received += len(more)
            most_bytes = max(most_bytes, logged.resident_bytes())
    assert most_bytes - before_bytes < 24 * MIB
    assert logged.told() == told


def _ended(received: int, more: bytes, name: str) -> bool:
    sizes = {"huge": 100 * MIB, "huge-events": 10_000 * 100 * len(sse(DELTA, done="")), "huge-audio": 110_000_000}
    return not more or (received + len(more) > sizes[name] and more.endswith((b"}", b"[DONE]\n\n", b'{"')))


@pytest.mark.parametrize(
    ("name", "last", "told"),
    [
        ("leaves", b'"total_tokens": 12}}', {"prompt": 5, "completion": 7, "total": 12, "events": 3}),
        ("silent-leaves", b"", {"events": 90}),
    ],
)
def test_who_leaves_has_been_told_what_came_before(
    logged: Logged, name: str, last: bytes, told: dict[str, int]
) -> None:
    """Metadata are there while the stream runs: usage exactly, events with less than a fifth missing."""
    events_sent = told["events"]
    with logged.bench.envoy.connect() as connection:
        connection.sendall(logged.bench.begin(name))
        _read_until(connection, lambda seen: seen.count(b"data:") == events_sent and last in seen)
    found = logged.told()
    assert events_sent * 4 / 5 <= found.pop("events") <= events_sent
    assert found == {name: value for name, value in told.items() if name != "events"}


def _read_until(connection: socket.socket, done: Any) -> bytes:
    seen = b""
    while not done(seen):
        more = connection.recv(65_536)
        assert more, seen
        seen += more
    return seen


def test_the_first_byte_is_not_held(logged: Logged) -> None:
    """Half an event, in which usage may yet come, is with the caller before the server sends the rest."""
    with logged.bench.envoy.connect() as connection:
        connection.sendall(logged.bench.begin("first"))
        _read_until(connection, lambda seen: b"data: {" in seen)
        LEFT.set()
        _read_until(connection, lambda seen: b"12}}" in seen)
    assert logged.told() == {"total": 12, "events": 1}


def test_traditional_calls_are_not_looked_at(logged: Logged) -> None:
    """The filter is off on their routes."""
    name = next(name for name, form in FORMS.items() if form.name == "openai chat")
    assert logged.bench.call(name, path=PLAIN).status == 200
    assert logged.told() == {}


def test_a_fault_in_the_script_harms_no_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Caught: it is told, and the answer is whole. Not caught: Envoy counts it, and the answer is whole too."""
    log = tmp_path / "usage.log"
    answers = {"json": whole(b'{"usage":{"total_tokens":12}}'), "events": events(sse(DELTA, LAST), piece=20)}
    caught = meter().replace("local numbers = {}", 'error("a fault")')
    thrown = meter().replace("local good = true", 'error("a fault")')
    for script, told in ((caught, {"fault": 1}), (thrown, {})):
        monkeypatch.setattr(
            "tests.e2e.proxy.bootstrap", lambda options, script=script: logging(bootstrap(options), log, script)
        )
        with meterbench(answers) as bench:
            logged = Logged(bench, log)
            assert bench.call("json").body == '{"usage":{"total_tokens":12}}'
            assert logged.told() == told
            assert bench.curl("events").stdout == sse(DELTA, LAST)
            assert {name: value for name, value in logged.told().items() if name != "events"} == told


def test_compressed_answers_are_whole(logged: Logged) -> None:
    """They are left alone."""
    packed = gzip.compress(json.dumps(LAST).encode())
    logged.bench.server.answers["gzip"] = whole(packed, "content-encoding: gzip", "content-type: application/json")
    assert logged.bench.curl("gzip").stdout == packed
    assert logged.told() == {}
