"""How long a revoked key still passes: two gates under load, the admin's answer, and the last call that was admitted.

    python -m benchmarks.revocations [--trials 1000]

Two gates and the admin as processes on one Valkey. h2load keeps both gates busy with calls of another key. In a trial
two callers, one at each gate, ask with one key without a pause; once both have been admitted the key is revoked by the
admin's API (DELETE /api/keys/ID). Counted are calls that began after the admin had answered and were admitted all the
same: there must be none. Also told: how long before the answer the last admitted call began, and how long the admin
took.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import requests
from adminprocess import admin_process

from benchmarks.ground import gates, h2load
from benchmarks.ground.gates import CALLS, Catalog, gate_row, question
from benchmarks.ground.h2load import Target
from benchmarks.ground.processes import free_port, valkey
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from catalog.changes import Put
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import create_secrets
from catalog.records import KeyRecord, PublicationRecord
from extauth.edge import CHECK_PATH
from protos.external_auth_pb2 import CheckResponse

TENANT: Final = "bench"
PASSWORD: Final = "benchmark-password"  # noqa: S105  of an admin that lives for a minute
LOAD_CALLS: Final = 2_000
PATIENCE_S: Final = 20.0
_CHUNK: Final = 250


@dataclass
class Ground:
    """All that a trial needs."""

    ports: list[int]
    admin: requests.Session
    url: str
    keys: list[tuple[str, bytes]]  # its id, and a question with it

    def revoke(self, key: str) -> None:
        """Have the admin delete a key."""
        answer = self.admin.delete(f"{self.url}/api/keys/{key}", timeout=30)
        answer.raise_for_status()


@dataclass
class Asker:
    """Asks one gate with one key, over and over, until it is refused."""

    call: Any
    payload: bytes
    admitted: threading.Event = field(default_factory=threading.Event)
    last_s: float = 0.0  # when the last admitted call began

    def run(self) -> None:
        """Ask until refused."""
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            began_s = time.monotonic()
            answer = CheckResponse.FromString(self.call(self.payload, timeout=10))
            if answer.HasField("denied_response"):
                if answer.denied_response.status.code == 401:  # noqa: PLR2004
                    return
                continue  # busy: undecided
            self.last_s = began_s
            self.admitted.set()
        raise SystemExit("a revoked key was still admitted after 20 s")


@contextlib.contextmanager
def ground(trials: int) -> Iterator[Ground]:
    """Two gates, the admin, and as many keys as there are trials; one more for the load."""
    with valkey() as store, tempfile.TemporaryDirectory(prefix="tk-") as name, contextlib.ExitStack() as stack:
        file = Path(name) / "secrets.json"
        catalog = Catalog(store.url, create_secrets(file))
        catalog.tenant(TENANT)
        keys = write_keys(catalog, catalog.publication(TENANT, TENANT), trials + 1)
        ports = [free_port(), free_port()]
        for port in ports:
            words = ("--listen", f"127.0.0.1:{port}", *gates.PATIENT)
            stack.enter_context(gate_row(store.url, file, *words, module="benchmarks.ground.patient"))
        options = ("--redis-url", store.url, "--secrets-file", str(file), "--admin-password", PASSWORD)
        admin = stack.enter_context(admin_process(*options))
        session = stack.enter_context(requests.Session())
        login = {"username": "admin", "password": PASSWORD}
        token = session.post(f"{admin.url}/api/admin/login", json=login, timeout=30).json()["token"]
        session.headers["Authorization"] = f"Bearer {token}"
        yield Ground(ports, session, admin.url, keys)


def write_keys(catalog: Catalog, publication: PublicationRecord, count: int) -> list[tuple[str, bytes]]:
    """Keys of a publication, and a question with each."""
    made, secrets, records = [], catalog.secrets, []
    for _ in range(count):
        uid = new_id(shard_of(TENANT), os.urandom)
        text = mint(uid, secrets, os.urandom)
        records.append(KeyRecord(uid, TENANT, "key", (publication.uid,), hash_key(text, secrets), 0, 0, limits=CALLS))
        made.append((uid, question(key=text.reveal(), publication=publication).SerializeToString()))
    for at in range(0, count, _CHUNK):
        catalog.commit(*(Put(record, 0) for record in records[at : at + _CHUNK]))
    return made


def trial(at: Ground, calls: list[Any], key: str, payload: bytes, pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Revoke one key; when the last admitted call began and how long the admin took, in ms before and of its answer."""
    askers = [Asker(call, payload) for call in calls]
    running = [pool.submit(asker.run) for asker in askers]
    for asker in askers:
        asker.admitted.wait(PATIENCE_S)
    began_s = time.monotonic()
    at.revoke(key)
    answered_s = time.monotonic()
    for one in running:
        one.result()
    return (answered_s - max(asker.last_s for asker in askers)) * 1e3, (answered_s - began_s) * 1e3


@contextlib.contextmanager
def loaded(at: Ground) -> Iterator[None]:
    """Keep both gates busy."""
    stopping = threading.Event()

    def work(port: int) -> None:
        while not stopping.is_set():
            h2load.load(Target(port, CHECK_PATH, at.keys[-1][1]), LOAD_CALLS)

    threads = [threading.Thread(target=work, args=(port,)) for port in at.ports]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def main() -> None:
    """Run."""
    parser = parser_of(__doc__, rounds=1)
    parser.add_argument("--trials", type=int, default=1_000)
    options = parser.parse_args()
    h2load.require()
    with ground(options.trials) as at, loaded(at), ThreadPoolExecutor(2) as pool:
        calls = [grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(CHECK_PATH) for port in at.ports]
        told = [trial(at, calls, *key, pool) for key in itertools.islice(at.keys, options.trials)]
    before_ms, took_ms = (list(column) for column in zip(*told, strict=True))
    late = sum(ms < 0 for ms in before_ms)
    rounds = {"two gates": {"ms from the last admitted call's begin to the answer": before_ms, "admin's ms": took_ms}}
    notes = [f"{options.trials} trials"]
    save([tell(Row("revoked", Spread(late, late, late), rounds, notes))], options.json)


if __name__ == "__main__":
    main()
