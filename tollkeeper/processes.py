"""The processes there are, each named with its module; nothing of a process is imported before it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.lifecycle import NOTIFY, CannotStart
from tollkeeper.start import rooms

if TYPE_CHECKING:
    from runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Process:
    """One process, or one piece of work: the module that wires it, its settings class there, and what it is for."""

    module: str  # has the coroutine function that takes the settings
    settings_name: str
    summary: str
    serve_name: str = "serve"
    settings_module: str = ""  # where the settings class is, if not there
    argument: str = ""  # the setting that is given by its place on the command line, without an option's name
    argument_shown: str = "N"
    extra: str = ""  # what its packages are called in pyproject.toml, if an image may lack them

    def settings(self) -> type[Settings]:
        """Import the settings class and return it."""
        module = importlib.import_module(self.settings_module or self.module)
        found: type[Settings] = getattr(module, self.settings_name)
        return found

    def serve(self) -> Callable[[Any], Awaitable[None]]:
        """Import the process and return what runs it; raises ``CannotStart`` where its packages are not installed."""
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if not self.extra:
                raise
            raise CannotStart(
                f"needs the packages of the extra '{self.extra}', which no image has: pip install '.[{self.extra}]'"
            ) from error
        found: Callable[[Any], Awaitable[None]] = getattr(module, self.serve_name)
        return found


PROCESSES: Final = {
    "gate": Process("tollkeeper.gate.app", "GateSettings", "Decide calls for Envoy: keys, permissions, budgets."),
    "admin": Process("tollkeeper.admin.app", "AdminSettings", "Serve the admin API and publish to Envoy."),
    "publish": Process(
        "tollkeeper.publishing.command",
        "PublishSettings",
        "Bring publications into force once: in Envoy Gateway's folder, or in a cluster.",
    ),
    "up": Process(
        "tollkeeper.up.app",
        "UpSettings",
        "Run everything on this machine, with two sample models.",
        settings_module="tollkeeper.up.settings",
        extra="up",
    ),
    "probe": Process("tollkeeper.probe", "ProbeSettings", "Ask a process of this machine how it is."),
}

_ROTATION: Final = "tollkeeper.secrets.rotation"
SECRET_COMMANDS: Final = {
    "rotate-pepper": Process(
        _ROTATION, "RotatePepperSettings", "Put every stored credential under a new pepper.", "rotate_pepper"
    ),
    "rotate-mac": Process(_ROTATION, "RotateMacSettings", "Have new key texts checked by a new MAC key.", "rotate_mac"),
    "retire-pepper": Process(
        _ROTATION, "RetirePepperSettings", "Take out a pepper that no credential is under.", "retire_pepper"
    ),
    "retire-mac-key": Process(
        _ROTATION, "RetireMacKeySettings", "Take out a MAC key; texts that it checks die.", "retire_mac_key"
    ),
}
"""``tollkeeper secrets …``: work on the secrets of a deployment that runs, and on what is stored under them."""


CELL_COMMANDS: Final = {
    "set": Process(
        "tollkeeper.agreeing",
        "SetCellsSettings",
        "Change the number of cells for all processes, which then have to be started with it.",
        "set_number",
        argument="cells",
    ),
    "move": Process(
        "tollkeeper.moving",
        "MoveTenantsSettings",
        "Move tenants to another cell together, while calls go on.",
        "move",
        argument="tenants",
        argument_shown="TENANT[,TENANT…]",
    ),
}
"""``tollkeeper cells …``: into how many parts budgets are split."""


BUDGET_COMMANDS: Final = {
    "format": Process(
        "tollkeeper.budgets",
        "BudgetsFormatSettings",
        "Bring stored budgets back to the format that the release before reads, for a rollback.",
        "bring_to_format",
        argument="format",
    ),
}
"""``tollkeeper budgets …``: what is stored of them."""

GROUPS: Final = {"secrets": SECRET_COMMANDS, "cells": CELL_COMMANDS, "budgets": BUDGET_COMMANDS}
"""The commands that have commands of their own."""


def child_environment() -> dict[str, str]:
    """Return what a child process of ours is given: no settings, and the way to this very code from any folder."""
    from runtime.settings import environment_without_settings  # noqa: PLC0415  who starts children has read settings

    environment = environment_without_settings()
    environment.pop(NOTIFY, None)  # whoever started us waits for us
    inherited = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(rooms()), inherited)))
    return environment


def all_settings() -> list[type[Settings]]:
    """Return the settings class of every process and command; imports them all."""
    from tollkeeper.client.variables import ClientSettings  # noqa: PLC0415  the settings' library

    grouped = (process for commands in GROUPS.values() for process in commands.values())
    return [*(process.settings() for process in (*PROCESSES.values(), *grouped)), ClientSettings]
