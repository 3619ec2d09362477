"""KServe's client by gRPC, which tries UNAVAILABLE again by itself: readiness, a call, refusals."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

WHERE, KEY, MODEL, BAD = (os.environ[name] for name in ("WHERE", "KEY", "MODEL", "BAD"))
HEADERS = (("x-api-key", KEY), ("x-model", MODEL))


def request() -> InferRequest:
    made = InferInput("input-0", [1, 4], "FP32")
    made.set_data_from_numpy(np.arange(4, dtype=np.float32).reshape(1, 4))
    return InferRequest(model_name="iris", infer_inputs=[made], request_id="7")


async def refusal(call: Awaitable[object]) -> dict[str, str] | None:
    try:
        await call
    except grpc.RpcError as error:
        return {"status": str(error.code()), "message": error.details()}
    return None


async def main() -> dict[str, Any]:
    options = [("grpc.default_authority", os.environ["HOST"])]
    async with InferenceGRPCClient(WHERE, channel_args=options) as client:
        return {
            "live": await client.is_server_live(headers=HEADERS),
            "ready": await client.is_server_ready(headers=HEADERS),
            "model": await client.is_model_ready("iris", headers=HEADERS),
            "id": (await client.infer(request(), headers=HEADERS)).id,
            "bad_key": await refusal(client.infer(request(), headers=(("x-api-key", BAD), ("x-model", MODEL)))),
            "limited": await refusal(
                client.infer(request(), headers=(("x-api-key", os.environ["FULL"]), ("x-model", MODEL)))
            ),
        }


sys.stdout.write(f"{json.dumps(asyncio.run(main()))}\n")
