"""A model server that speaks the Open Inference Protocol by gRPC, and remembers what it was asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from catalog.inference import METHODS
from tests.support.inference.protocol import messages, services

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass
class Asked:
    """One call."""

    method: str
    metadata: dict[str, str | bytes]
    model: str
    left_s: float | None  # of its deadline, as the server knows it


@dataclass
class InferenceServer:
    """Knows ``models``. Of the model ``slow`` it answers when ``go_on`` is set, of ``bad`` INVALID_ARGUMENT."""

    models: tuple[str, ...] = ("iris",)
    wants: tuple[str, str] | None = None  # metadata without which it answers UNAUTHENTICATED
    ready: bool = True
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)  # a slow call is
    go_on: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)  # a running call was given up

    @property
    def last(self) -> Asked:
        """The call of now."""
        return self.asked[-1]

    def note(self, method: str, context: Any, model: str = "") -> None:
        """Remember a call, and refuse one that lacks what is wanted."""
        metadata = dict(context.invocation_metadata())
        self.asked.append(Asked(method, metadata, model, context.time_remaining()))
        if self.wants is not None and metadata.get(self.wants[0]) != self.wants[1]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a key of this server's own is wanted")

    def infer(self, request: Any, context: Any) -> Any:
        """Answer with what was sent."""
        if request.model_name == "bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the model says no: ä")
        if request.model_name == "slow":
            context.add_callback(lambda: None if self.go_on.is_set() else self.cancelled.set())
            self.running.set()
            self.go_on.wait(30)
        answer = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
        answer.raw_output_contents.extend(request.raw_input_contents)
        for one in request.inputs:
            answer.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        return answer


class _Acts:
    """What the service does, by methods whose names are its own in our spelling."""

    def __init__(self, server: InferenceServer) -> None:
        self._server = server

    def server_live(self, _request: Any, context: Any) -> Any:
        self._server.note("ServerLive", context)
        return messages.ServerLiveResponse(live=True)

    def server_ready(self, _request: Any, context: Any) -> Any:
        self._server.note("ServerReady", context)
        return messages.ServerReadyResponse(ready=self._server.ready)

    def model_ready(self, request: Any, context: Any) -> Any:
        self._server.note("ModelReady", context, request.name)
        if request.name not in self._server.models:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return messages.ModelReadyResponse(ready=self._server.ready)

    def server_metadata(self, _request: Any, context: Any) -> Any:
        self._server.note("ServerMetadata", context)
        return messages.ServerMetadataResponse(name="stub", version="1")

    def model_metadata(self, request: Any, context: Any) -> Any:
        self._server.note("ModelMetadata", context, request.name)
        tensor = messages.ModelMetadataResponse.TensorMetadata(name="input-0", datatype="FP32", shape=[-1, 4])
        return messages.ModelMetadataResponse(name=request.name, versions=["1"], platform="stub", inputs=[tensor])

    def model_infer(self, request: Any, context: Any) -> Any:
        self._server.note("ModelInfer", context, request.model_name)
        return self._server.infer(request, context)

    def model_stream_infer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self._server.note("ModelStreamInfer", context)
        context.add_callback(self._server.cancelled.set)
        self._server.running.set()
        for request in requests:
            yield messages.ModelStreamInferResponse(infer_response=self._server.infer(request, context))

    def repository_index(self, _request: Any, context: Any) -> Any:
        self._server.note("RepositoryIndex", context)
        return messages.RepositoryIndexResponse()


def _servicer(acts: _Acts) -> SimpleNamespace:
    spelt = {name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in (*METHODS, "RepositoryIndex")}
    return SimpleNamespace(**{name: getattr(acts, own) for name, own in spelt.items()})


@contextmanager
def inference_server(
    *models: str, certificate: tuple[Path, Path] | None = None, wants: tuple[str, str] | None = None
) -> Iterator[InferenceServer]:
    """A running one, over TLS with a certificate and its key."""
    made = InferenceServer(models or ("iris", "slow", "bad"), wants=wants)
    server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix="inference"), options=UNLIMITED)
    services.add_GRPCInferenceServiceServicer_to_server(_servicer(_Acts(made)), server)
    if certificate is None:
        port, scheme = server.add_insecure_port("127.0.0.1:0"), "http"
    else:
        chain, key = (file.read_bytes() for file in certificate)
        port, scheme = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)])), "https"
    made.url = f"{scheme}://127.0.0.1:{port}"
    server.start()
    try:
        yield made
    finally:
        made.go_on.set()
        server.stop(0).wait(10)
