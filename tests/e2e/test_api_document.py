"""docs/api.md: its commands, pasted in order into one shell on a whole machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from upmachine import UpMachine

from tests.e2e.guide.reader import need

DOCUMENT = Path(__file__).parents[2] / "docs/api.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HELD_TO = """set -euo pipefail
curl() { command curl --fail-with-body --noproxy '*' "$@"; }
"""
TELL = "\nprintf '\\n%s' \"$KEY\""

pytestmark = pytest.mark.timeout(90)


def test_the_documents_commands_work(up: UpMachine) -> None:
    """Every command of the page ends well, none is answered 4xx or 5xx, and the call gets the model's answer."""
    need("curl", "jq")
    blocks = BLOCK.findall(DOCUMENT.read_text())
    assert len(blocks) == DOCUMENT.read_text().count("```bash\n")
    done = up.shell(HELD_TO + "\n".join(blocks) + TELL, UP=str(up.state / "up.json"))
    assert done.returncode == 0, done
    assert '{"predictions": [0.450166]}' in done.stdout.replace('":[', '": [')
    assert '"valid":true' in done.stdout
    key = done.stdout.rpartition("\n")[2]
    after = up.shell(
        HELD_TO + f"curl -s -H 'Content-Type: application/json' -d '{{\"apiKey\": \"{key}\"}}' "
        f"{up.up['admin_url']}/api/validate-api-key"
    )
    assert json.loads(after.stdout)["valid"] is False
