"""Runs what a client does, step by step, and prints a line of JSON: what each returned, or which error it met."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

GATEWAY, HOST, KEY, WRONG = (os.environ[name] for name in ("GATEWAY", "HOST", "KEY", "WRONG"))
HEADERS = {"Host": HOST, "X-API-Key": KEY}


def tell(steps: dict[str, Callable[[], Any]]) -> None:
    """Run all of them, in this order."""
    sys.stdout.write(json.dumps({name: told(step) for name, step in steps.items()}) + "\n")


def told(step: Callable[[], Any]) -> Any:
    """What a step returned, or its error: its class and what it says."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001  it is what is asked for
        return {"error": type(error).__name__, "text": str(error)}
