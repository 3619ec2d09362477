"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from upmachine import UpMachine

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_openais_client_is_used_as_shown(up: UpMachine) -> None:
    """But for the port and the key, which are this machine's."""
    (shown,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    mine = shown.replace("http://localhost:8080", up.up["gateway_url"])
    mine = mine.replace("tk_…", up.up["sample"]["openai"]["api_key"])
    done = subprocess.run([sys.executable, "-"], input=mine, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
