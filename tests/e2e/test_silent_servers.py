"""A model that thinks long before it says a word: it may, as long as its publication lets a call take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from catalog.records import TokenPolicy
from publisher.envoy.bootstrap import BootstrapOptions, bootstrap
from tests.e2e.metered import RawServer, document
from tests.e2e.proxy import HOST, Envoy, Gate, openai, options_for, short_folder

PATH = "/v1/models/llm"
SILENCE_S = 2.5
IDLE = "1s"
"""What connections may be silent in this test, so that it need not last as long as in the product."""
ANSWER = {"usage": {"total_tokens": 12}}


async def late(writer: asyncio.StreamWriter) -> None:
    """Answer after a while."""
    await asyncio.sleep(SILENCE_S)
    await document(ANSWER)(writer)


def impatient(options: BootstrapOptions) -> dict[str, Any]:
    """The product's Envoy, that bears less silence."""
    made = bootstrap(options)
    for listener in made["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stream_idle_timeout"] = IDLE
        manager["common_http_protocol_options"]["idle_timeout"] = IDLE
    return made


@pytest.mark.parametrize("path", [f"{PATH}/late", "/v1/late"], ids=["the model's own URL", "the host's"])
@pytest.mark.parametrize(("longest_s", "status"), [(10, 200), (2, 504)])
def test_silence_may_last_as_long_as_the_call(path: str, longest_s: int, status: int) -> None:
    """``reservationTimeoutSeconds`` is what bounds it, and not the silence of connections."""
    with short_folder() as folder, Gate(folder) as gate, RawServer() as server:
        gate.models[HOST, "llm"] = "llm"
        server.answers = {"late": late}
        options = options_for(folder, gate.target)
        envoy = Envoy(options, impatient(options))
        envoy.publish([openai("llm", PATH, server.url, tokens=TokenPolicy(reservation_timeout_s=longest_s))])
        with envoy:
            reply = envoy.post(path, b'{"model":"llm"}')
        assert reply.status == status
        assert reply.json == ANSWER if status == 200 else reply.json["error"]["code"] == "upstream_timeout"
