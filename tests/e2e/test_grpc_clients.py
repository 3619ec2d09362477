"""Triton's and KServe's own clients by gRPC against the whole machine, as they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clients import Family, client_family
from upclient import Operator
from upmachine import UpMachine

from tests.support.inference.ground import IRIS, PATIENCE_S, Ground, infer
from tests.support.inference.server import InferenceServer, inference_server

pytestmark = pytest.mark.timeout(180)

BAD = "tk_0000000000000000000_wrong"


@pytest.fixture(scope="module")
def family() -> Family:
    """Both are in KServe's environment; each has a process of its own, since both register the protocol's messages."""
    return client_family("kserve")


@pytest.fixture(scope="module")
def server() -> Iterator[InferenceServer]:
    """Knows ``iris``."""
    with inference_server() as made:
        yield made


@pytest.fixture(scope="module")
def ground(up: UpMachine, server: InferenceServer) -> Iterator[Ground]:
    """Published models."""
    made = Ground(up, Operator(up), server)
    try:
        made.build()
        yield made
    finally:
        made.clear()


def run(family: Family, ground: Ground, script: str, **more: str) -> Any:
    """What a script tells."""
    said = {"WHERE": ground.where, "HOST": ground.host, "KEY": ground.key(), "MODEL": IRIS, "BAD": BAD}
    return family.run(script, **said, **more)


def test_tritons_client_works_as_it_is(family: Family, ground: Ground, server: InferenceServer) -> None:
    """Readiness, metadata, calls of both kinds, packed ones, streams; what it may not do is refused in its words."""
    told = run(family, ground, "triton_grpc.py")
    assert (told["live"], told["ready"], told["model"], told["server"]) == (True, True, True, "stub")
    assert (told["inputs"], told["id"], told["echo"]) == (["input-0"], "7", [0.0, 1.0, 2.0, 3.0])
    assert (told["stream"], told["asyncio"]) == (["0", "1", "2"], "aio")
    assert told["bad_key"]["status"] == "StatusCode.UNAUTHENTICATED"
    assert "No valid API key" in told["bad_key"]["message"]
    assert told["no_model"]["status"] == "StatusCode.NOT_FOUND"
    assert {told["index"]["status"], told["memory"]["status"]} == {"StatusCode.UNIMPLEMENTED"}
    assert {one.method for one in server.asked} & {"RepositoryIndex"} == set()


def test_kserves_client_works_as_it_is(family: Family, ground: Ground, server: InferenceServer) -> None:
    """A full budget is no status that it tries again."""
    full = ground.key(requestsPerMinute=1)
    with ground.dial() as stub:
        stub.ModelInfer(infer(), metadata=(("x-api-key", full), ("x-model", IRIS)), timeout=PATIENCE_S)
    told = run(family, ground, "kserve_grpc.py", FULL=full)
    assert (told["live"], told["ready"], told["model"], told["id"]) == (True, True, True, "7")
    assert told["bad_key"]["status"] == "StatusCode.UNAUTHENTICATED"
    assert told["limited"]["status"] == "StatusCode.RESOURCE_EXHAUSTED"
    assert "retry in" in told["limited"]["message"]
    assert server.last.model == "iris"
