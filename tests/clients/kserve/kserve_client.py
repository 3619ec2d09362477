"""KServe's own client, in both protocols, on the host by the model's name and below a publication's own path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from steps import GATEWAY, HEADERS, HOST, WRONG, tell


def by(protocol: str, ask: Callable[[InferenceRESTClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol=protocol, timeout=20)) as client:
            return await ask(client)

    return asyncio.run(run())


def request(*, binary: bool) -> InferRequest:
    tensor = InferInput("x", [2], "FP32")
    tensor.set_data_from_numpy(np.array([1.5, 2.5], dtype=np.float32), binary_data=binary)
    return InferRequest("digits", [tensor])


async def inferred(client: InferenceRESTClient, base: str, name: str, *, binary: bool = False) -> Any:
    answer = await client.infer(base, request(binary=binary), model_name=name, headers=dict(HEADERS))
    return [answer.model_name, answer.outputs[0].data]


ROWS = {"instances": [[1, 2, 3]]}
IRIS, DIGITS = f"{GATEWAY}/models/iris", f"{GATEWAY}/models/digits"
REFUSED = {"Host": HOST, "X-API-Key": WRONG}
tell(
    {
        **{
            f"v1 {where}": lambda base=base: by(
                "v1", lambda one: one.infer(base, ROWS, model_name="iris", headers=dict(HEADERS))
            )
            for where, base in (("host", GATEWAY), ("path", IRIS))
        },
        **{
            f"v1 {what} {where}": lambda base=base, what=what: by(
                "v1",
                lambda one: (
                    one.is_server_live(base, headers=HEADERS)
                    if what == "live"
                    else one.is_model_ready(base, "iris", headers=HEADERS)
                ),
            )
            for where, base in (("host", GATEWAY), ("path", IRIS))
            for what in ("live", "model")
        },
        "v1 explain": lambda: by("v1", lambda one: one.explain(GATEWAY, "flowers", ROWS, headers=HEADERS)),
        "v2 host": lambda: by("v2", lambda one: inferred(one, GATEWAY, "digits")),
        "v2 binary": lambda: by("v2", lambda one: inferred(one, GATEWAY, "digits-v7", binary=True)),
        "v2 path": lambda: by("v2", lambda one: inferred(one, DIGITS, "digits")),
        **{
            f"v2 {what} {where}": lambda base=base, what=what: by(
                "v2",
                lambda one: {
                    "live": lambda: one.is_server_live(base, headers=HEADERS),
                    "ready": lambda: one.is_server_ready(base, headers=HEADERS),
                    "model": lambda: one.is_model_ready(base, "digits", headers=HEADERS),
                }[what](),
            )
            for where, base in (("host", GATEWAY), ("path", DIGITS))
            for what in ("live", "ready", "model")
        },
        "unknown model": lambda: by("v2", lambda one: one.is_model_ready(GATEWAY, "nobody", headers=HEADERS)),
        "unknown": lambda: by("v1", lambda one: one.infer(GATEWAY, ROWS, model_name="nobody", headers=dict(HEADERS))),
        "refused": lambda: by("v1", lambda one: one.infer(GATEWAY, ROWS, model_name="iris", headers=dict(REFUSED))),
    }
)
