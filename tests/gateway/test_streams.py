"""Long answers through the real Envoy Gateway: not cut by its default time limit, nor by a listener that changes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from gatewayground import Ground
from gatewaystack import LIVE_S
from upmachine import until

from publisher.plan import LONGEST_S
from tests.e2e.metered import Answer, sse
from tests.e2e.proxy import PATIENCE_S

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(180)]

EVENT = sse({"choices": [{"delta": {"content": "x"}}], "usage": None}, done="")
LAST = sse({"choices": [], "usage": {"total_tokens": 12}})
LONG_S = 17
"""Longer than Envoy's default limit of 15."""

CHANGES = "listener_manager.listener_modified$"

OPERATORS = [
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "status-page", "namespace": "envoy-gateway-system"},
        "spec": {
            "parentRefs": [{"name": "tollkeeper"}],
            "hostnames": ["status.example.test"],
            "rules": [{"backendRefs": [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "nobody"}]}],
        },
    },
    {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": "status-page", "namespace": "envoy-gateway-system"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "status-page"}],
            "faultInjection": {"abort": {"httpStatus": 500, "percentage": 1}},
        },
    },
]
"""A route of the operator's own, whose policy adds a filter to the listener."""


@dataclass
class Stream:
    """A call whose answer goes on until it is told to end."""

    enough: threading.Event
    begun_s: float
    read: list[bytes]  # the pieces that have arrived
    ended: threading.Event

    def whole(self) -> bytes:
        """The answer, which is told to end once it has lasted long enough."""
        until(lambda: time.monotonic() - self.begun_s > LONG_S, 2 * LONG_S)
        assert not self.ended.is_set(), "it was not cut before"
        self.enough.set()
        assert self.ended.wait(PATIENCE_S)
        return b"".join(self.read)


def going_on(enough: threading.Event) -> Answer:
    """Events until there were enough, then the usage."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while not enough.is_set():
            writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LAST), LAST))

    return answer


@pytest.fixture
def stream(ground: Ground) -> Iterator[Stream]:
    """A call that has begun to stream."""
    made = Stream(threading.Event(), time.monotonic(), [], threading.Event())
    ground.raw.answers["long"] = going_on(made.enough)
    rig = ground.metered()
    rig.settled()

    def follow() -> None:
        with ground.machine.connect() as connection:
            connection.sendall(rig.begin("long"))
            while (more := connection.recv(65_536)) and not more.endswith(b"0\r\n\r\n"):
                made.read.append(more)
            made.read.append(more)
        made.ended.set()

    reader = threading.Thread(target=follow, name="stream-reader")
    reader.start()
    assert until(lambda: any(b"data:" in one for one in made.read), PATIENCE_S)
    yield made
    made.enough.set()
    reader.join(PATIENCE_S)


@pytest.fixture
def operators_file(ground: Ground) -> Iterator[None]:
    """The operator adds a file of their own beside ours; it is gone at the end."""
    file = ground.machine.gateway.manifests / "operators.yaml"
    hidden = file.with_name(".operators.yaml")
    hidden.write_text(yaml.safe_dump_all(OPERATORS))
    hidden.rename(file)
    yield
    file.unlink()


def test_a_stream_outlives_the_default_limit_and_a_listener_that_changes(
    ground: Ground, stream: Stream, request: pytest.FixtureRequest
) -> None:
    """A listener changes in the middle: the answer is whole and settled, and new calls are as closed as before."""
    rig = ground.metered()
    during, changes = rig.used(), ground.machine.gateway.stat(CHANGES)
    request.getfixturevalue("operators_file")
    assert until(lambda: ground.machine.gateway.stat(CHANGES) > changes, LIVE_S, every_s=0.2)
    assert ground.machine.get("/models/iris").status == 401
    assert ground.machine.get("/models/iris", ground.with_key).upstream == "iris"
    whole = stream.whole()
    assert whole.count(EVENT.strip()) > LONG_S
    assert whole.endswith(b"0\r\n\r\n")
    assert rig.settled() == during - len(rig.body()) - 100 + 12, "what it held is given back, but for what it used"


def test_listeners_drain_as_long_as_the_longest_call(ground: Ground) -> None:
    """What a changed listener still carries is not cut before any call would have ended by itself."""
    options = json.loads(ground.machine.gateway.envoy("/server_info"))["command_line_options"]
    assert int(options["drain_time"].removesuffix("s")) >= LONGEST_S
