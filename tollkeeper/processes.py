"""The processes there are, each named with its module; nothing of a process is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Process:
    """One process: the module that wires it, its settings class there, and what it is for."""

    module: str  # has the settings class and `async def serve(settings)`
    settings_name: str
    summary: str

    def settings(self) -> type[Settings]:
        """Import the process and return its settings class."""
        found: type[Settings] = getattr(importlib.import_module(self.module), self.settings_name)
        return found

    def serve(self) -> Callable[[Any], Awaitable[None]]:
        """Import the process and return what runs it."""
        found: Callable[[Any], Awaitable[None]] = importlib.import_module(self.module).serve
        return found


PROCESSES: Final = {
    "gate": Process("tollkeeper.gate", "GateSettings", "Decide calls for Envoy: keys, permissions, budgets."),
    "admin": Process("tollkeeper.admin", "AdminSettings", "Serve the admin API and publish to Envoy."),
    "up": Process("tollkeeper.up.app", "UpSettings", "Run everything on this machine, with two sample models."),
}


def all_settings() -> list[type[Settings]]:
    """Return the settings class of every process; imports them all."""
    return [process.settings() for process in PROCESSES.values()]
