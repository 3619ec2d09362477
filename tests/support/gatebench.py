"""A catalog writer, a gRPC client that asks as Envoy does, and gates: for tests of the gate."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from catalog.actors import Recordless
from catalog.changes import Audit, Change, Delete, Put
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import (
    UNLIMITED,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    Record,
    RouteRecord,
    ServerRecord,
    TenantRecord,
    server_of,
    sole_caller,
)
from catalog.routes import route_id
from catalog.store.announcing import Announcer
from catalog.store.store import CatalogStore
from extauth.edge import CHECK_PATH
from extauth.records.allowances import ALLOWED, Allowances
from gate.assembly import SERVICES, Gate, limiter_of
from gate.bounded import BoundedPolicy
from gate.endings import ReceiverFactory
from gate.formats import NEWEST
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from runtime.clock import SystemClock
from runtime.grpc.front import GrpcFront, QueueLimits
from runtime.grpc.grpcio import GrpcioFront
from runtime.grpc.native import NativeFront
from runtime.grpc.receiver import ReceiverLimits, StreamReceiver
from runtime.store.clients import client_of

HOST = "api.router.inference-in-a-box"


class Catalog:
    """Writes records as the admin does; synchronous for tests."""

    def __init__(self, url: str, secrets: Secrets, stores: StoreUrls | None = None) -> None:
        self._url = url
        self._stores = stores or StoreUrls(url, url)
        self.secrets = secrets
        self.default_url = "http://127.0.0.1:1"
        self.default_host = HOST

    def commit(self, *changes: Change) -> None:
        """Write changes in one atomic act."""

        async def work() -> None:
            async with (
                client_of(self._url, connect_s=5, answer_s=5) as client,
                client_of(self._stores.budgets, connect_s=5, answer_s=5) as budgets,
            ):
                audit = Audit(Recordless.START, "test", "target", "tenant-a", "request-1")
                announcer = None if self._stores.are_one else Announcer(budgets, self._stores.cells, owes=False)
                await CatalogStore(client, announcer=announcer).commit(changes, audit=audit)

        asyncio.run(work())

    def add(self, *records: Record) -> None:
        """Write new records."""
        self.commit(*(Put(record, 0) for record in records))

    def change(self, record: Record, **fields: Any) -> Any:
        """Write a changed copy of a record and return it."""
        changed = structs.replace(record, **fields)
        self.commit(Put(changed, record.version))
        return structs.replace(changed, version=record.version + 1)

    def remove(self, kind: Kind, record: Any) -> None:
        """Delete a record."""
        self.commit(Delete(kind, record.id, record.version))

    # Ready-made records

    def tenant(self, name: str = "tenant-a", **fields: Any) -> TenantRecord:
        """Add a tenant."""
        record = TenantRecord(name, shard_of(name), 0, 0, **fields)
        self.add(record)
        return record

    def publication(self, tenant: str = "tenant-a", model: str = "my-model", **fields: Any) -> PublicationRecord:
        """Add a publication; traditional and unlimited unless told otherwise."""
        facts: dict[str, Any] = {
            "uid": new_id(shard_of(tenant), os.urandom),
            "tenant": tenant,
            "model": model,
            "url": self.default_url,
            "type": ModelType.TRADITIONAL,
            "protocol": Protocol.KSERVE_V1,
            "host": self.default_host,
            "path": f"/models/{model}",
            "limits": Limits(),
            "require_api_key": True,
            "allowed_tenants": (tenant,),
            "key_id": "",
            "created_at_ms": 0,
            "updated_at_ms": 0,
        }
        record = PublicationRecord(**(facts | fields))
        self.add(record)
        return record

    def key(self, *publications: PublicationRecord, tenant: str = "tenant-a", **fields: Any) -> tuple[KeyRecord, str]:
        """Add a key for these publications; the record and its text."""
        key_id = new_id(shard_of(tenant), os.urandom)
        text = mint(key_id, self.secrets, os.urandom)
        uids = tuple(publication.uid for publication in publications)
        facts = {"current": hash_key(text, self.secrets), "created_at_ms": 0, "updated_at_ms": 0}
        record = KeyRecord(key_id, tenant, "test", uids, **(facts | fields))
        self.add(record)
        return record, text.reveal()

    def callable_publication(self, limits: Limits = UNLIMITED) -> tuple[PublicationRecord, CheckRequest]:
        """Add a tenant with a publication and a key for it; the publication and a question that is admitted."""
        self.tenant()
        publication = self.publication(limits=limits)
        _, text = self.key(publication)
        return publication, question(key=text, publication=publication)

    def host(self, *publications: PublicationRecord, closed: bool = False) -> HostRecord:
        """Add the table of the host's openai models; ``closed``: their routes in its place."""
        models = {f"{one.tenant}/{name}": one.uid for one in publications for name in one.names}
        record = HostRecord(HOST, {one.path: one.uid for one in publications}, models)
        if closed:
            record = HostRecord(HOST, None, None)
            self.add(*(RouteRecord(route_id(HOST, *name.split("/", 1)), uid) for name, uid in models.items()))
        self.add(record)
        return record

    def server(self, *publications: PublicationRecord) -> ServerRecord:
        """Add the record of the server that these publications lead to."""
        callers = {one.uid: sole_caller(one) for one in publications}
        record = ServerRecord(server_of(publications[0].url), callers)
        self.add(record)
        return record


class Asker:
    """Asks a gate's Check over gRPC."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
        self._check = self._channel.unary_unary(CHECK_PATH)

    def ask_many(self, requests: Sequence[CheckRequest], timeout_s: float = 5) -> list[CheckResponse]:
        """Send all at once and await every answer."""
        calls = [self._check.future(request.SerializeToString(), timeout=timeout_s) for request in requests]
        return [CheckResponse.FromString(call.result()) for call in calls]

    def ask(self, request: CheckRequest, timeout_s: float = 5) -> CheckResponse:
        """Send one and await its answer."""
        return self.ask_many([request], timeout_s)[0]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def status(answer: CheckResponse) -> int:
    """The HTTP status of an answer; 200 stands for admitted."""
    return answer.denied_response.status.code if answer.HasField("denied_response") else 200


def question(
    *,
    key: str | None = None,
    publication: PublicationRecord | None = None,
    openai_host: str = "",
    model: Any = None,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> CheckRequest:
    """Make a CheckRequest as Envoy sends it for a route of this publication, or of this host's models."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method = method
    http.path = (publication.path if publication is not None else "/v1") + "/chat/completions"
    http.headers.update({"content-type": "application/json"} | (headers or {}))
    if key is not None:
        http.headers["x-api-key"] = key
    route = request.attributes.route_metadata_context.filter_metadata
    if publication is not None:
        route["tollkeeper"].update({"publication": publication.uid})
    if openai_host:
        route["tollkeeper"].update({"openai_host": openai_host})
    if model is not None:
        with_body(request, model=model)
    return request


def with_body(request: CheckRequest, size: int = 0, **body: Any) -> CheckRequest:
    """Give a question a JSON body, of so many bytes where it would be shorter."""
    raw = json.dumps(body).encode()
    http = request.attributes.request.http
    http.raw_body = raw if len(raw) >= size else raw[:-1] + b" " * (size - len(raw)) + b"}"
    http.size = len(http.raw_body)
    return request


PATIENT = QueueLimits(answer_ms=2_000, wait_ms=2_000)
"""For tests of what is decided: a busy machine must not turn a 200 into a 503."""


@dataclass(frozen=True)
class Wire:
    """How a gate and its clients talk."""

    front: Callable[..., GrpcFront]  # NativeFront, GrpcioFront
    is_tcp: bool

    def target(self, folder: Path | str, name: str = "gate") -> str:
        """Where a gate may listen; a TCP port is chosen at the start."""
        return "127.0.0.1:0" if self.is_tcp else f"unix:{folder}/{name}.sock"


NATIVE_UNIX = Wire(NativeFront, is_tcp=False)
GRPCIO_TCP = Wire(GrpcioFront, is_tcp=True)
WIRES = {
    "native-unix": NATIVE_UNIX,
    "native-tcp": Wire(NativeFront, is_tcp=True),
    "grpcio-unix": Wire(GrpcioFront, is_tcp=False),
    "grpcio-tcp": GRPCIO_TCP,
}


def make_gate(
    target: str,
    url: str | StoreUrls,
    secrets: Secrets,
    registry: CollectorRegistry,
    limits: QueueLimits = PATIENT,
    wire: Wire = NATIVE_UNIX,
    bounded: BoundedPolicy | None = None,
    serves: Collection[str] = tuple(SERVICES),
    gateway_namespace: str = "",
    endings: str = "",
    newest_format: int = NEWEST,
    allowances: Allowances = ALLOWED,
    **of_front: Any,
) -> Gate:
    """Put a gate together, not started; ``url`` names one store for all, ``of_front`` is for the transport alone.

    ``endings``: where it hears them; "" nowhere.
    """

    def on_fault() -> None:
        pytest.fail("the batch loop ended by a fault")

    clock = SystemClock()
    return Gate(
        front=partial(wire.front, target=target, clock=clock, on_fault=on_fault, limits=limits, **of_front),
        stores=url if isinstance(url, StoreUrls) else StoreUrls(url, url, wait_ms=limits.answer_ms),
        secrets=secrets,
        clock=clock,
        registry=registry,
        on_fault=on_fault,
        bounded=bounded,
        newest_format=newest_format,
        allowances=allowances,
        serves=serves,
        gateway_namespace=gateway_namespace,
        endings=_receiver(endings, on_fault) if endings else None,
    )


def _receiver(target: str, on_fault: Callable[[], None]) -> ReceiverFactory:
    limits = ReceiverLimits()
    return lambda methods, health, on_end: StreamReceiver(
        methods, health, target=target, on_end=on_end, on_fault=on_fault, limits=limits
    )


TAKE_SHA = str(limiter_of(0).question([], epoch="").command[1]).encode()
"""How the store names the script that takes and looks."""


def is_take(command: Sequence[bytes]) -> bool:
    """Whether this EVALSHA is of the script that takes, and not only looks (the keeper's)."""
    first = 3 + int(command[2])
    return command[1] == TAKE_SHA and command[first + 1][:1] == b"\0"


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for a condition that has no event to await; fails the test after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail("the condition did not come true in time")
        time.sleep(0.005)
