"""How long Envoy Gateway takes for a change of what is published, by the number of publications: a folder's.

    tests/gateway/build.sh
    tests/gateway/alone.sh .venv/bin/python -m benchmarks.gateway_publishing [--publications 50 150 450]

The real Envoy Gateway reads a folder; the product's own sink writes its file there. Each number of publications is
brought into force from nothing but the fixed objects, then one publication is added: the time until Envoy Gateway's
Envoy has the new generation of routes, and the processor time of Envoy Gateway meanwhile. One third of the publications
are traditional, the rest openai, all on one host and of one server.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from envoygateway import ENVOY_VERSION, EnvoyGateway

from benchmarks.ground.processes import cpu_us
from benchmarks.many_publications import catalog
from catalog.records import PublicationRecord
from publisher.gateway.folder.file import rendered
from publisher.gateway.folder.sink import FolderSink
from publisher.gateway.options import GatewayOptions, HostInfrastructure
from publisher.gateway.resources.manifests import fitting
from publisher.plan import plan

OPTIONS: Final = GatewayOptions(
    gate=("unix:/run/tollkeeper/gate.sock",),
    endings=("unix:/run/tollkeeper/endings.sock",),
    host=HostInfrastructure(envoy_version=ENVOY_VERSION, http_port=18_080),
    from_files=True,
)
LONGEST_S: Final = 600
_VERSIONS: Final = "/stats?type=TextReadouts&filter=rds"
_ROUTES: Final = "/config_dump?resource=dynamic_route_configs"


class Measured:
    """A folder, its gateway, and what they take."""

    def __init__(self, folder: Path) -> None:
        self._gateway = EnvoyGateway(folder)
        self._sink = FolderSink(self._gateway.manifests, OPTIONS, None)

    def start(self) -> None:
        """Have it serve nothing."""
        asyncio.run(self._sink.apply(plan([])))
        self._gateway.start()

    def stop(self) -> None:
        """End it."""
        self._gateway.stop()

    def change(self, records: list[PublicationRecord]) -> tuple[float, float, int]:
        """Bring these into force: seconds, processor seconds of Envoy Gateway, and objects of the file."""
        wanted = plan(records)
        file = rendered(fitting(wanted, OPTIONS), OPTIONS)
        pid = self._gateway._process.pid  # type: ignore[union-attr]  # noqa: SLF001  a test's own
        begun_s, spent_us = time.monotonic(), cpu_us([pid])
        asyncio.run(self._sink.apply(wanted))
        seen = ""
        while (now := self._gateway.envoy(_VERSIONS)) == seen or file.generation not in self._gateway.envoy(_ROUTES):
            seen = now  # all of the routes is asked for only when something has changed: it keeps Envoy busy
            if time.monotonic() > begun_s + LONGEST_S:
                raise SystemExit(f"{len(records)} publications are not in force after {LONGEST_S} s")
            time.sleep(0.2)
        return time.monotonic() - begun_s, (cpu_us([pid]) - spent_us) / 1e6, file.objects


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publications", type=int, nargs="+", default=[50, 150, 450])
    options = parser.parse_args()
    print("| publications | objects | all at once, s | one more, s | its CPU, s |\n|---|---|---|---|---|")
    for count in options.publications:
        with tempfile.TemporaryDirectory(prefix="tk-") as folder:
            measured = Measured(Path(folder))
            measured.start()
            try:
                records = catalog(count + 1, "http://127.0.0.1:9")
                at_once_s, _, objects = measured.change(records[:-1])
                one_s, cpu_s, _ = measured.change(records)
            finally:
                measured.stop()
        print(f"| {count:,} | {objects} | {at_once_s:.1f} | {one_s:.1f} | {cpu_s:.1f} |", flush=True)


if __name__ == "__main__":
    main()
