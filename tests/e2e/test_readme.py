"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from upclient import Operator
from upmachine import UpMachine

from tests.e2e.guide.reader import need

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_openais_client_is_used_as_shown(up: UpMachine) -> None:
    """But for the port and the key, which are this machine's."""
    (shown,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    mine = shown.replace("http://localhost:8080", up.up["gateway_url"])
    mine = mine.replace("tk_…", up.up["sample"]["openai"]["api_key"])
    done = subprocess.run([sys.executable, "-"], input=mine, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_model_is_published_called_and_limited_as_shown(up: UpMachine) -> None:
    """But for the folder. Pasted once more it says why there is no key, and calls nothing."""
    need("curl", "jq")
    (shown,) = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    mine = shown.replace(".tollkeeper/", f"{up.state}/")
    try:
        first, again = up.shell(mine), up.shell(mine)
    finally:
        Operator(up).ask("DELETE", "/api/models/my-model/publish?tenantId=tenant-a")
    assert re.findall(r"^\d{3}$", first.stdout, re.MULTILINE) == ["200", "200", "200", "429"], first
    assert "The publication's minute budget is used up; retry in " in first.stdout
    assert first.stderr == again.stdout == ""
    assert "already" in again.stderr


def test_the_process_to_stop_is_where_it_says(up: UpMachine) -> None:
    """The lock of the folder has its id."""
    assert "`kill $(cat .tollkeeper/lock)`" in README
    assert int((up.state / "lock").read_text()) == up.process.pid
