"""The example for automated rotation, run as cron would run it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from upclient import Operator
from upmachine import UpMachine, until

SCRIPT = Path(__file__).parents[2] / "config" / "cron" / "rotate-key"
TENANT, HOST, MODEL = "cron-tenant", "cron.example.com", "my-model"
BODY = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}


@pytest.fixture
def published(up: UpMachine) -> Iterator[dict[str, Any]]:
    """A publication of the test's own, live."""
    operator = Operator(up)
    server = operator.must("GET", f"/api/models/{MODEL}?tenantId=tenant-a")["url"]
    operator.ask("POST", "/api/tenants", {"tenantId": TENANT})
    operator.ask("POST", "/api/models", {"name": MODEL, "tenantId": TENANT, "url": server})
    place = f"/api/models/{MODEL}/publish?tenantId={TENANT}"
    config = {"tenantId": TENANT, "publicHostname": HOST, "externalPath": "/models/cron"}
    made = operator.must("POST", f"/api/models/{MODEL}/publish", {"config": config})
    assert until(lambda: operator.must("GET", place)["status"] == "live", 30)
    yield made
    operator.must("DELETE", place)
    operator.must(
        "DELETE", f"/api/models/{MODEL}?tenantId={TENANT}"
    )  # a second model of its name would make others ambiguous


def _call(up: UpMachine, key: str) -> int:
    headers = {"Host": HOST, "X-API-Key": key}
    url = f"{up.up['gateway_url']}/models/cron/predict"
    return requests.post(url, json=BODY, headers=headers, timeout=20).status_code


def _rotate(variables: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but its variables, as cron does."""
    environment = {"PATH": os.environ["PATH"], **variables, **more}
    return subprocess.run(["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_new_key_is_where_its_consumer_reads_it(up: UpMachine, published: dict[str, Any], tmp_path: Path) -> None:
    """Both texts work in the grace, the file is private and whole, nothing is told; a failure changes nothing."""
    old = published["apiKey"]
    token_file, key_file = tmp_path / "token", tmp_path / "consumer" / "api-key"
    account = {"name": "rotation", "role": "operator", "tenants": [TENANT]}
    token = Operator(up).must("POST", "/api/service-accounts", account)["token"]
    token_file.write_text(f"{token}\n")
    key_file.parent.mkdir()
    key_file.write_text(old)
    variables = {
        "TOLLKEEPER_ROTATE_ADMIN": up.up["admin_url"],
        "TOLLKEEPER_ROTATE_TOKEN": str(token_file),
        "TOLLKEEPER_ROTATE_MODEL": MODEL,
        "TOLLKEEPER_ROTATE_TENANT": TENANT,
        "TOLLKEEPER_ROTATE_KEY_FILE": str(key_file),
    }
    rotated = _rotate(variables)
    assert rotated.returncode == 0, rotated.stderr
    new = key_file.read_text().strip()
    assert new != old
    assert [_call(up, key) for key in (old, new)] == [200, 200]
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert not {old, new, token} & set((rotated.stdout + rotated.stderr).split())

    refused = _rotate(variables, TOLLKEEPER_ROTATE_MODEL="no-such-model")
    assert refused.returncode == 1
    assert "not rotated: MODEL_NOT_FOUND" in refused.stderr
    away = _rotate(variables, TOLLKEEPER_ROTATE_ADMIN="http://127.0.0.1:1")
    assert away.returncode != 0
    assert key_file.read_text().strip() == new
    Operator(up).must("DELETE", "/api/service-accounts/rotation")
    ended = _rotate(variables)
    assert ended.returncode == 1
    assert "not rotated: UNAUTHENTICATED" in ended.stderr
    assert key_file.read_text().strip() == new
    assert [path.name for path in key_file.parent.iterdir()] == ["api-key"]
