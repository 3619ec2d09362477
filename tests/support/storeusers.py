"""The store's users as helm/files/store-users.yaml has them, as the words of ``ACL SETUSER``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "helm" / "files" / "store-users.yaml"
USERS: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())


def rules(name: str) -> list[str]:
    """What stands after the user's name and password."""
    user = USERS[name]
    commands = [f"+{command}" for command in user["commands"]]
    keys = [f"~{pattern}" for pattern in user["keys"]] + [f"%R~{pattern}" for pattern in user["reads"]]
    scripts = " ".join(f"~{pattern}" for pattern in user["scripts"])
    return ["resetchannels", "-@all", *commands, *keys, f"({scripts} -@all +eval +evalsha)"]
