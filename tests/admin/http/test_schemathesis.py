"""The API's document against the API: schemathesis makes calls of /openapi.json, one by one and in chains.

Examples, coverage, fuzzing and chains of calls, whose links it finds in the document by itself. Every answer must be
one that the document tells, never a 5xx, and nothing may be had without a login. ``TOLLKEEPER_TEST_EXAMPLES`` is how
many calls are made up for each operation (``make fuzz`` asks for more than the suite).
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

EXAMPLES: Final = os.environ.get("TOLLKEEPER_TEST_EXAMPLES", "3")
NOT_CHECKED: Final = (
    "positive_data_acceptance",  # a body of the right form may still name a tenant or a model that is not there
    "allow_header_conformance",  # /api/users/me answers 405 with the methods of /api/users/{u}, whose form it has
)
ENDS_THE_LOGIN: Final = r"^/api/(admin/logout|users/me/password)$"


async def run(url: str, token: str, folder: Path, *options: str) -> str:
    """Run it to its end; its report, which the test fails with where anything was found."""
    config = folder / "schemathesis.toml"
    config.touch()  # of its own: none that lies about on this machine
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"),
        *(f"{url}/openapi.json", "--header", f"Authorization: Bearer {token}", "--no-color", "--seed", "1"),
        *("--exclude-checks", ",".join(NOT_CHECKED), "--continue-on-failure", "--exclude-path-regex", ENDS_THE_LOGIN),
        *("--generation-database", "none", *options),
    )
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        report = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, report
    return report


def operations_called(report: str) -> int:
    """How many operations were called."""
    found = re.search(r"Tested: (\d+)", report)
    return int(found[1]) if found else 0


PHASES: Final = {"admin": "examples,coverage,fuzzing", "operator": "fuzzing"}


@pytest.mark.parametrize("role", PHASES)
async def test_each_call_does_what_the_document_says(api: Any, kserve: str, tmp_path: Path, role: str) -> None:
    """For an admin and for one tenant's operator: no 5xx, no undocumented answer, nothing without a login."""
    await api.model("my-model", kserve)
    assert (await api.publish("my-model")).status == 201
    token = api.token if role == "admin" else await operator(api)
    report = await run(api.url, token, tmp_path, "--phases", PHASES[role], "--max-examples", EXAMPLES)
    assert operations_called(report) >= 33, report
    assert "401 Unauthorized" not in report, "the login was lost on the way: little was tested"


async def test_chains_of_calls_do_too(api: Any, kserve: str, tmp_path: Path) -> None:
    """What one call made is shown, changed and removed by the next ones; what is gone stays gone."""
    await api.model("my-model", kserve)
    report = await run(api.url, api.token, tmp_path, "--phases", "stateful", "--max-examples", str(10 * int(EXAMPLES)))
    followed = re.search(r"API Links: +(\d+) covered", report)
    assert followed, report
    assert int(followed[1]) >= 5, report


async def operator(api: Any) -> str:
    """The token of a new operator of tenant-a."""
    user = {"name": "ann", "password": "a long enough password", "role": "operator", "tenants": ["tenant-a"]}
    made = await api.ask("POST", "/api/users", user)
    assert made.status == 201, made.text
    return str((await api.login("ann", user["password"])).body["token"])
