"""What Envoy's access log tells of a call that has ended, as it tells it: the facts on which the endings table rests.

docs/decisions/0016 draws the conclusions; what each ending costs is test_endings.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from gatebench import wait_until

from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.clusters import clusters
from publisher.envoy.files import Resources
from publisher.envoy.routes import routes
from publisher.plan import plan
from tests.e2e.meterbench import CLOSED, LOST, PATH, PLAIN, RESERVATION, Bench, as_json, meterbench, reserving
from tests.e2e.metered import Answer, document, events, hangs_up, never_answers, read_until_broken, sse
from tests.e2e.proxy import PATIENCE_S, Reply, denied

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
DELTA = {"choices": [{"delta": {"content": "x"}}], "usage": None}
STREAM = sse(DELTA, {"choices": [], "usage": USAGE})
SILENT = sse(DELTA, DELTA)
EVENT = sse(DELTA, done="")
DC = "downstream_connection_termination"
LARGE = 5 * 1024 * 1024
"""More than Envoy buffers of anything."""

BREAKS = threading.Event()

ANSWERS: dict[str, Answer] = {
    "json": document({"usage": USAGE}),
    "sse": events(STREAM),
    "silent": events(SILENT),
    "teapot": document({"error": "x"}, status=418),
    "error": document({"error": "x"}, status=500),
    "hangs-up": hangs_up,
    "breaks": events(SILENT, breaks=BREAKS),
    "large": document({"text": "x" * LARGE, "usage": USAGE}),
    "slow": events(EVENT * 400, piece=len(EVENT), rest_s=0.05),
    "never": never_answers,
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """One Envoy for all that leaves it as it was."""
    with meterbench(ANSWERS) as made:
        yield made


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """The same, with nothing remembered."""
    shared.gate.payloads.clear()
    shared.gate.endings.clear()
    yield shared
    shared.gate.answer = reserving


@pytest.mark.parametrize(
    ("name", "status", "flags", "details", "whole"),
    [
        ("json", "200", "-", "via_upstream", True),
        ("sse", "200", "-", "via_upstream", True),
        ("silent", "200", "-", "via_upstream", True),
        ("teapot", "418", "-", "via_upstream", True),
        ("error", "500", "-", "via_upstream", True),
        ("hangs-up", "503", "upstream_connection_termination", "upstream_reset_before_response_started", True),
        ("breaks", "200", "upstream_protocol_error", "upstream_reset_after_response_started", False),
        ("large", "200", "-", "via_upstream", True),
    ],
)
def test_each_ending_has_its_marks(bench: Bench, name: str, status: str, flags: str, details: str, whole: bool) -> None:  # noqa: FBT001
    """One entry a call: flags tell who broke it, the time of its last byte that it is whole."""
    bench.envoy.send(bench.begin(name)) if name != "breaks" else _read_what_comes(bench, name)
    told = bench.ended()
    assert (told["reservation"], told["publication"]) == (RESERVATION, "llm")
    assert (told["status"], told["flags"]) == (status, flags)
    assert told["details"].startswith(details)
    assert told["whole"].isdecimal() is whole
    assert told["duration"].isdecimal()
    assert told["total"] == ("12" if name in {"json", "sse", "large"} else "-")


def _read_what_comes(bench: Bench, name: str) -> bytes:
    with bench.envoy.connect() as connection:
        connection.sendall(bench.begin(name))
        return read_until_broken(connection, BREAKS)


def test_the_bytes_are_the_bodys(bench: Bench) -> None:
    """Without headers and without the framing of chunks."""
    bench.call("silent")
    assert bench.ended()["bytes"] == str(len(SILENT))


def test_a_server_that_is_not_there(bench: Bench) -> None:
    """Nobody listens at its address: told as 503."""
    assert bench.call("json", path=CLOSED).status == 503
    told = bench.ended()
    assert (told["status"], told["flags"], told["publication"]) == ("503", "upstream_connection_failure", "closed")


@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge"])
def test_who_leaves_in_the_middle(bench: Bench, http: str) -> None:
    """A caller that goes is flagged, over HTTP/2 too, and no end of the answer was sent."""
    assert bench.curl("slow", http, "--max-time", "1").returncode == 28
    told = bench.ended()
    assert (told["status"], told["flags"], told["whole"]) == ("200", DC, "-")
    assert len(EVENT) <= int(told["bytes"]) < 400 * len(EVENT)


def test_who_leaves_before_an_answer(bench: Bench) -> None:
    """Status 0: no header was sent."""
    bench.leave("never", b"")
    told = bench.ended()
    assert (told["status"], told["flags"], told["bytes"], told["whole"]) == ("0", DC, "0", "-")


def test_who_leaves_while_the_gate_decides(bench: Bench) -> None:
    """Is told by the cancelled question alone: the proxy never learnt of a reservation."""
    released, asked = threading.Event(), threading.Event()

    def late(request: CheckRequest) -> CheckResponse:
        asked.set()
        released.wait(PATIENCE_S)
        return reserving(request)

    bench.gate.answer = late
    with bench.envoy.connect() as connection:
        connection.sendall(bench.begin("json"))
        assert asked.wait(PATIENCE_S)
    wait_until(lambda: bench.envoy.stat("http.ingress.downstream_rq_active") == 0)
    bench.gate.answer = reserving
    released.set()
    assert bench.told_nobody()


def test_calls_without_a_reservation_are_told_to_nobody(bench: Bench) -> None:
    """Traditional ones, those without a body, refused ones, and those that find no route."""
    assert bench.call("json", path=PLAIN).status == 200
    assert bench.envoy.get(f"{PATH}/json").status == 200
    assert bench.call("json", path="/nowhere").status == 404
    bench.gate.answer = lambda _: denied(429)
    assert bench.call("json").status == 429
    bench.gate.answer = reserving
    assert bench.told_nobody()


def test_a_lost_cluster_is_told(bench: Bench) -> None:
    """Envoy has a route and no server for it: the call costs nothing, and that is known at once."""
    assert bench.call("json", path=LOST).json["error"]["code"] == "upstream_unavailable"
    told = bench.ended()
    assert (told["status"], told["flags"], told["publication"]) == ("503", "no_cluster_found", "lost")


def test_no_answer_is_held_back() -> None:
    """The caller sees each piece when it is sent, and not when the answer is whole."""
    seen = threading.Event()

    def in_two(kind: str) -> Answer:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 20\r\n\r\n".encode())
            writer.write(b"data: {}\n\n")
            await writer.drain()
            await asyncio.to_thread(seen.wait, PATIENCE_S)
            writer.write(b"data: {}\n\n")

        return answer

    answers = {"stream": in_two("text/event-stream"), "json": in_two("application/json")}
    with meterbench(answers) as bench:
        for name, path in (("stream", PATH), ("json", PATH), ("json", PLAIN)):
            seen.clear()
            with bench.envoy.connect() as connection:
                connection.sendall(bench.begin(name, path=path))
                text = b""
                while not text.endswith(b"data: {}\n\n"):
                    text += connection.recv(65_536)
                seen.set()
                assert connection.recv(65_536) == b"data: {}\n\n"


def test_a_call_that_is_cut_for_its_length() -> None:
    """Before a header it is a 504; in the middle nothing but the missing end tells it from a whole one."""
    with meterbench(ANSWERS, longest_s=1) as bench:
        assert bench.call("never").json["error"]["code"] == "upstream_timeout"
        told = bench.ended()
        assert (told["status"], told["details"]) == ("504", "max_duration_timeout")
        _read_what_comes(bench, "slow")
        told = bench.ended()
        assert (told["status"], told["flags"], told["whole"]) == ("200", "-", "-")


def test_a_stream_outlives_a_drain_and_its_servers_removal() -> None:
    """Both let running calls end as they would have, and they are told when they do."""
    with meterbench(ANSWERS, longest_s=3) as bench, bench.envoy.connect() as connection:
        connection.sendall(bench.begin("slow"))
        assert b"200 OK" in connection.recv(65_536)
        nothing = plan([])
        _rename(bench, ROUTES_FILE, routes(nothing))
        _rename(bench, CLUSTERS_FILE, clusters(nothing, upstream_ca=""))
        wait_until(lambda: "publication-llm::" not in bench.envoy.admin("/clusters"))
        assert bench.envoy.admin("/drain_listeners?graceful", "POST") == "OK\n"
        while connection.recv(65_536):
            pass
        told = bench.ended()
        assert int(told["bytes"]) > 20 * len(EVENT)
        assert (told["status"], told["flags"]) == ("200", "-")


def _rename(bench: Bench, name: str, resources: Resources) -> None:
    written = bench.envoy.folder / f".{name}"
    written.write_text(resources.text())
    written.rename(bench.envoy.folder / name)


def test_a_gate_that_does_not_hear_harms_no_caller() -> None:
    """Slow or gone: the answer is with the caller at once, and nothing is logged."""
    with meterbench(ANSWERS) as bench:
        released = threading.Event()
        bench.gate.on_ended = lambda: released.wait(PATIENCE_S)
        began = time.monotonic()
        assert bench.call("json").status == 200
        assert time.monotonic() - began < PATIENCE_S / 2
        released.set()
        assert bench.ended()["total"] == "12"
        with bench.envoy.connect() as connection:
            connection.sendall(bench.begin("slow"))
            assert b"200 OK" in connection.recv(65_536)
            bench.gate.stop()
            assert EVENT in connection.recv(65_536)
        assert not ordinary_lines(bench)


def test_ordinary_calls_leave_nothing_in_envoys_log(bench: Bench) -> None:
    """Not a line for any ending, with usage or without: a warning a call would bury the others."""
    before = ordinary_lines(bench)
    for name in ("json", "sse", "silent", "teapot", "error"):
        bench.call(name)
        bench.ended()
    bench.leave("slow", b"data:")
    bench.ended()
    assert ordinary_lines(bench) == before


def ordinary_lines(bench: Bench) -> list[str]:
    """Envoy's log without what it says once at its start of filters that are not finished."""
    return [line for line in bench.envoy.log.read_text().splitlines() if "work-in-progress" not in line]


def test_calls_routed_by_their_body_are_told_too(bench: Bench) -> None:
    """Their first route has no server; what counts is the route that Check chose."""

    def choosing(request: CheckRequest) -> CheckResponse:
        answer = reserving(request)
        option = answer.ok_response.headers.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.value = "x-tollkeeper-publication", "llm"
        return answer

    bench.gate.answer = choosing
    reply: Reply = bench.call("json", as_json(max_tokens=5), path="/v1/chat")
    assert (reply.status, bench.ended()["total"]) == (200, "12")
