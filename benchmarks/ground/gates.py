"""Tollkeeper's gate as a contender: a process with a Valkey of its own, records as the admin writes them."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from gatebench import Catalog, question, with_body
from gaterow import GateRow, gate_row

from benchmarks.ground import forms, limits
from benchmarks.ground.contenders import REFUSED, Contender
from benchmarks.ground.h2load import Target
from benchmarks.ground.processes import await_that, free_port, valkey
from benchmarks.ground.ratelimit import PATH as RATE_LIMIT_PATH
from benchmarks.ground.store import Store
from catalog.keys.secrets import create_secrets
from catalog.records import Limits, ModelType, Protocol, TokenPolicy
from extauth.edge import CHECK_PATH
from gate.formats import NEWEST, QUIET_MS
from protos.external_auth_pb2 import CheckRequest, CheckResponse

CALLS: Final = Limits(per_minute=limits.PLENTY, per_hour=limits.PLENTY)
NEWEST_S: Final = QUIET_MS / 1000 + 60
"""A gate of several workers is the product's own: it looks about for a minute first."""
PATIENT: Final = ("--store-wait-ms", "1000")
"""A busy machine must not turn answers into 503s."""


@dataclass(frozen=True)
class Ours:
    """A gate that runs, and what it decides about."""

    row: GateRow
    store: Store
    catalog: Catalog
    ports: tuple[int, ...]  # of each worker

    @property
    def parts(self) -> dict[str, list[int]]:
        """The processes that count: the parent of workers too."""
        workers = self.row.pids() if len(self.ports) > 1 else []
        return {"server": sorted({self.row.process.pid, *workers}), "store": [self.store.pid]}

    def check(self, name: str, request: CheckRequest) -> Contender:
        """It under calls of Check."""
        payload = request.SerializeToString()
        call = grpc.insecure_channel(f"127.0.0.1:{self.ports[0]}").unary_unary(CHECK_PATH)
        target = Target(self.ports[0], CHECK_PATH, payload)
        return Contender(name, target, self.parts, lambda: remaining(call(payload, timeout=10)))

    def limits(self, name: str, *keys: str) -> Contender:
        """It under calls of RateLimitService with these descriptors."""
        payload = limits.question(*keys)
        call = grpc.insecure_channel(f"127.0.0.1:{self.ports[0]}").unary_unary(RATE_LIMIT_PATH)
        target = Target(self.ports[0], RATE_LIMIT_PATH, payload)
        return Contender(name, target, self.parts, lambda: limits.remaining(call(payload, timeout=10)))


def remaining(answer: bytes) -> int:
    """The calls that an admitted Check says are left, or REFUSED."""
    response = CheckResponse.FromString(answer)
    if response.HasField("denied_response"):
        if response.denied_response.status.code != 429:  # noqa: PLR2004  nothing else is expected here
            raise SystemExit(f"a Check was refused: {response}")
        return REFUSED
    told = {one.header.key: one.header.value for one in response.ok_response.response_headers_to_add}
    return int(told["x-ratelimit-remaining"])


@contextlib.contextmanager
def gate(*options: str, workers: int = 1, listen: str = "", form: str = "") -> Iterator[Ours]:
    """Run one with a Valkey of its own, and the same limits by descriptors as its peers; on loopback unless told.

    ``form``: sources or compiled (``forms``); "": what is usual.
    """
    with (
        valkey() as store,
        tempfile.TemporaryDirectory(prefix="tk-") as name,
        forms.environment(form or forms.usual()) as environment,
    ):
        folder = Path(name)
        (folder / "descriptors.yaml").write_text(limits.DESCRIPTORS, encoding="utf-8")
        secrets = create_secrets(folder / "secrets.json")
        first = _free_ports(workers)
        words = ["--listen", listen or f"127.0.0.1:{first}", "--workers", str(workers), *PATIENT]
        words += ["--descriptors", str(folder / "descriptors.yaml"), *options]
        module = "benchmarks.ground.patient"
        with gate_row(store.url, folder / "secrets.json", *words, module=module, environment=environment) as row:
            await_that(lambda: writes_newest(row.ready()), "a gate that writes the newest format", NEWEST_S)
            yield Ours(row, store, Catalog(store.url, secrets), tuple(range(first, first + workers)))


def writes_newest(ready: dict[str, Any]) -> bool:
    """Whether a gate, each of its workers, has found that the newest format of stored values may be written."""
    return all(one["storeFormat"] == NEWEST for one in ready.get("workers", [ready]))


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError):
            for port in range(first, first + count):
                _bind(port)
            return first


def _bind(port: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


# What is asked, each with records of its own. Limits of the key are the least, so that they are what is told.

Maker = Callable[[Catalog, str], CheckRequest]


def three_budgets(catalog: Catalog, name: str) -> CheckRequest:
    """A key with three windows; nothing else is limited."""
    catalog.tenant(name)
    publication = catalog.publication(name, name)
    own = Limits(burst=limits.PLENTY, per_minute=limits.PLENTY, per_hour=limits.HOUR)
    return question(key=catalog.key(publication, tenant=name, limits=own)[1], publication=publication)


def six_budgets(catalog: Catalog, name: str) -> CheckRequest:
    """Two windows each of the key, its tenant and the publication."""
    catalog.tenant(name, limits=CALLS)
    publication = catalog.publication(name, name, limits=CALLS)
    own = Limits(per_minute=limits.PLENTY, per_hour=limits.HOUR)
    return question(key=catalog.key(publication, tenant=name, limits=own)[1], publication=publication)


def openai(catalog: Catalog, name: str, *, body_bytes: int = 2_048) -> CheckRequest:
    """A chat: three windows of the key, two of its tenant, two of the publication; tokens are held for it."""
    catalog.tenant(name, limits=CALLS)
    publication = catalog.publication(
        name,
        name,
        type=ModelType.OPENAI,
        protocol=Protocol.OPENAI,
        limits=Limits(per_minute=limits.PLENTY, tokens_per_hour=10**9),
        tokens=TokenPolicy(context_tokens=8_192),
    )
    own = Limits(per_minute=limits.PLENTY, per_hour=limits.HOUR, tokens_per_hour=10**9)
    key = catalog.key(publication, tenant=name, limits=own)[1]
    text = "Tell me of the sea and of those who sail it. " * (body_bytes // 50)
    messages = [{"role": "user", "content": text}]
    asked = question(key=key, publication=publication)
    return with_body(asked, body_bytes, model=name, messages=messages, max_tokens=64)


def spent(catalog: Catalog, name: str) -> CheckRequest:
    """A key whose one call an hour has been made."""
    catalog.tenant(name)
    publication = catalog.publication(name, name)
    own = Limits(per_minute=limits.PLENTY, per_hour=1)
    return question(key=catalog.key(publication, tenant=name, limits=own)[1], publication=publication)
