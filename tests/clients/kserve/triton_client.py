"""Triton's client over HTTP: binary and JSON tensors, versions, metadata, readiness, by host and by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from steps import GATEWAY, HEADERS, HOST, WRONG, tell

DIGITS = "/models/digits"


def by(ask: Callable[[triton.InferenceServerClient], Any], path: str = "") -> Any:
    client = triton.InferenceServerClient(GATEWAY.removeprefix("http://") + path)
    try:
        return ask(client)
    finally:
        client.close()


def inferred(client: triton.InferenceServerClient, name: str, *, binary: bool, version: str = "") -> Any:
    tensor = triton.InferInput("x", [2], "FP32")
    tensor.set_data_from_numpy(np.array([1.5, 2.5], dtype=np.float32), binary_data=binary)
    wanted = [triton.InferRequestedOutput("x", binary_data=False)]
    answer = client.infer(name, [tensor], model_version=version, outputs=wanted, headers=HEADERS)
    return [answer.get_response()["model_version"], answer.as_numpy("x").tolist()]


tell(
    {
        "host": lambda: by(lambda one: inferred(one, "digits", binary=True)),
        "path": lambda: by(lambda one: inferred(one, "digits", binary=False), DIGITS),
        "version": lambda: by(lambda one: inferred(one, "digits-v7", binary=True, version="2")),
        "live": lambda: by(lambda one: one.is_server_live(headers=HEADERS)),
        "ready": lambda: by(lambda one: one.is_server_ready(headers=HEADERS), DIGITS),
        "model": lambda: by(lambda one: one.is_model_ready("digits", headers=HEADERS)),
        "server": lambda: by(lambda one: one.get_server_metadata(headers=HEADERS)["name"]),
        "metadata": lambda: by(lambda one: one.get_model_metadata("digits", headers=HEADERS)["versions"]),
        "unknown": lambda: by(lambda one: inferred(one, "nobody", binary=True)),
        "config": lambda: by(lambda one: one.get_model_config("digits", headers=HEADERS)),
        "refused": lambda: by(lambda one: one.get_model_metadata("digits", headers={"Host": HOST, "X-API-Key": WRONG})),
    }
)
