"""Triton's client by gRPC: what it says a server and a model are, a call, a stream, asyncio's, and a refusal."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

WHERE, KEY, MODEL, BAD = (os.environ[name] for name in ("WHERE", "KEY", "MODEL", "BAD"))
ARGUMENTS = [("grpc.default_authority", os.environ["HOST"])]
HEADERS = {"x-api-key": KEY, "x-model": MODEL}
DATA = np.arange(4, dtype=np.float32).reshape(1, 4)


def inputs(module: Any) -> list[Any]:
    made = module.InferInput("input-0", [1, 4], "FP32")
    made.set_data_from_numpy(DATA)
    return [made]


def refusal(call: Callable[[], object]) -> dict[str, Any] | None:
    try:
        call()
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return None


def streamed(client: Any) -> list[str]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)), headers=HEADERS)
    for number in range(3):
        client.async_stream_infer("iris", inputs(triton), request_id=str(number))
    told = [answers.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    return [str(error) if error else result.get_response().id for result, error in told]


async def by_asyncio() -> str:
    async with triton_aio.InferenceServerClient(WHERE, channel_args=ARGUMENTS) as client:
        result = await client.infer("iris", inputs(triton_aio), request_id="aio", headers=HEADERS)
        return result.get_response().id


with triton.InferenceServerClient(WHERE, channel_args=ARGUMENTS) as client:
    result = client.infer("iris", inputs(triton), request_id="7", headers=HEADERS)
    told = {
        "live": client.is_server_live(headers=HEADERS),
        "ready": client.is_server_ready(headers=HEADERS),
        "model": client.is_model_ready("iris", headers=HEADERS),
        "inputs": [one.name for one in client.get_model_metadata("iris", headers=HEADERS).inputs],
        "server": client.get_server_metadata(headers=HEADERS).name,
        "id": result.get_response().id,
        "echo": np.frombuffer(result.get_response().raw_output_contents[0], np.float32).tolist(),
        "stream": streamed(client),
        "bad_key": refusal(lambda: client.infer("iris", inputs(triton), headers=HEADERS | {"x-api-key": BAD})),
        "no_model": refusal(
            lambda: client.infer("iris", inputs(triton), headers={"x-api-key": KEY, "x-model": "none"})
        ),
        "index": refusal(lambda: client.get_model_repository_index(headers=HEADERS)),
        "memory": refusal(lambda: client.register_system_shared_memory("a", "/a", 8, headers=HEADERS)),
        "packed": client.infer("iris", inputs(triton), headers=HEADERS, compression_algorithm="gzip").get_response().id,
    }
told["asyncio"] = asyncio.run(by_asyncio())
sys.stdout.write(f"{json.dumps(told)}\n")
