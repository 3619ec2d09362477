"""A process's own pages, served without a framework: what is answered, and that nothing is held for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests

from runtime.addresses import TcpAddress, UnixAddress
from runtime.http import face
from runtime.http.face import ProcessFace, facing, new_registry
from runtime.lifecycle import CannotStart
from runtime.readiness import Ailment, Readiness

HERE = TcpAddress("127.0.0.1", 0)


@pytest.fixture
async def reached() -> AsyncIterator[str]:
    """Where a ready process shows its face."""
    async with facing(
        ProcessFace(lambda: Readiness((), (), {"a": "b"}), new_registry()), HERE, option="--o"
    ) as address:
        yield address


async def _asked(address: str, raw: bytes) -> bytes:
    """Everything that comes back for these bytes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


async def test_the_three_pages_are_what_they_were(reached: str) -> None:
    """Their status, type and content, and the fixed headers; a HEAD has no body."""
    for path, content_type in {
        "/healthz": "application/json",
        "/readyz": "application/json",
        "/metrics": "text/plain",
    }.items():
        answer = await asyncio.to_thread(requests.get, f"http://{reached}{path}", timeout=10)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(content_type)
        assert (answer.headers["server"], answer.headers["x-content-type-options"]) == ("tollkeeper", "nosniff")
        assert int(answer.headers["content-length"]) == len(answer.content) > 0
        head = await asyncio.to_thread(requests.head, f"http://{reached}{path}?x=1", timeout=10)
        assert (head.status_code, head.content) == (200, b"")
    metrics = await asyncio.to_thread(requests.get, f"http://{reached}/metrics", timeout=10)
    assert "process_start_time_seconds" in metrics.text


async def test_what_is_not_ready_says_503() -> None:
    """With the same document as ever."""
    trouble = Ailment("some_code", "do this").found("that")
    state = Readiness((trouble,), (), {})
    async with facing(ProcessFace(lambda: state, new_registry()), HERE, option="--o") as address:
        answer = await asyncio.to_thread(requests.get, f"http://{address}/readyz", timeout=10)
    assert answer.status_code == 503
    assert answer.json() == json.loads(json.dumps(state.document()))


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz SPDY/3\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_other_requests_are_refused(reached: str, raw: bytes, status: bytes) -> None:
    """By a status, and the connection ends."""
    answer = await _asked(reached, raw)
    assert answer.split(b" ")[1] == status


async def test_who_says_nothing_is_not_waited_for(reached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a whole request is closed after a while, and others are answered meanwhile."""
    monkeypatch.setattr(face, "REQUEST_S", 0.2)
    silent = [asyncio.create_task(_asked(reached, b"GET /hea")) for _ in range(5)]
    assert (await _asked(reached, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert await asyncio.gather(*silent) == [b""] * 5


async def test_an_answer_is_whole_for_who_reads_it_late(tmp_path: Path) -> None:
    """Of every size: also where the kernel takes all of it but a few kilobytes."""
    made = ProcessFace(lambda: Readiness((), (), {"a": "b" * size}), new_registry())
    async with facing(made, UnixAddress(tmp_path / "face.sock"), option="--o") as address:
        for size in range(150_000, 350_000, 25_000):  # a Unix socket of Linux holds 212,992
            reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=1024)
            writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            assert len(json.loads(await reader.read())["a"]) == size
            writer.close()


async def test_connections_are_bounded(reached: str) -> None:
    """Beyond the bound they are closed at once; when the others have gone, all is as before."""
    host, _, port = reached.rpartition(":")
    held: list[Any] = [await asyncio.open_connection(host, int(port)) for _ in range(face.MAX_CONNECTIONS)]
    assert await _asked(reached, b"") == b""
    for _, writer in held:
        writer.close()
    for _ in range(500):
        if await _asked(reached, b"GET /healthz HTTP/1.1\r\n\r\n"):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("still refused")


async def test_a_face_that_goes_waits_for_nobody() -> None:
    """Open connections do not hold up the end of a process."""
    async with facing(ProcessFace(lambda: Readiness((), (), {}), new_registry()), HERE, option="--o") as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET ")
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_an_address_that_is_taken_is_one_sentence(reached: str, tmp_path: Path) -> None:
    """It names the option; a Unix socket is served too."""
    host, _, port = reached.rpartition(":")
    made = ProcessFace(lambda: Readiness((), (), {}), new_registry())
    with pytest.raises(CannotStart, match=r"^--metrics 127.0.0.1:\d+: cannot be bound: "):
        async with facing(made, TcpAddress(host, int(port)), option="--metrics"):
            pass
    async with facing(made, UnixAddress(tmp_path / "face.sock"), option="--metrics") as address:
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b'{"status": "alive"}')
        writer.close()
