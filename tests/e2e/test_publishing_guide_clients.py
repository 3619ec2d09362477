"""The publishing guide's client classes run as they stand: in Python with requests, in node with its own fetch."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection
from upmachine import UpMachine

from tests.e2e.guide.reader import PREDICTIONS, PUBLISH, following_the_guide, need

GUIDE = Path(__file__).parent / "guide"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def key(up: UpMachine) -> Iterator[str]:
    """The key of my-model, published as the guide does and live."""
    with following_the_guide(up) as reader:
        made = reader.takes_key(reader.types(PUBLISH))
        reader.awaits("my-model")
        yield made


def https_gateway(machine: UpMachine) -> tuple[str, int]:
    """Where curl is sent for port 443 of any host."""
    host, port = re.findall(r':443:([\d.]+):(\d+)"', (machine.state / "curl/.curlrc").read_text())[0]
    return host, int(port)


def test_the_guides_python_client(up: UpMachine, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class and its usage run as they stand, but for the key; only the way to port 443 is the machine's."""
    connect = urllib3.util.connection.create_connection

    def connect_to(address: tuple[str, int], *arguments: Any, **options: Any) -> Any:
        assert address == ("api.router.inference-in-a-box", 443)
        return connect(https_gateway(up), *arguments, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect_to)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(up.state / "tls/ca.pem"))
    monkeypatch.setenv("NO_PROXY", "*")
    names: dict[str, Any] = {}
    exec((GUIDE / "model_client_python.txt").read_text().replace("your-api-key", key), names)  # noqa: S102
    assert names["result"] == PREDICTIONS


def test_the_guides_javascript_client(up: UpMachine, key: str, tmp_path: Path) -> None:
    """The same in node, with its own fetch."""
    need("node")
    script = tmp_path / "client.mjs"
    text = (GUIDE / "model_client_javascript.txt").read_text().replace("your-api-key", key)
    script.write_text(text + "console.log(JSON.stringify(result));\n")
    host, port = https_gateway(up)
    own = {"HTTPS_GATEWAY": f"{host}:{port}", "NODE_EXTRA_CA_CERTS": str(up.state / "tls/ca.pem")}
    command = ["node", "--require", str(GUIDE / "connect_to.cjs"), str(script)]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == PREDICTIONS
