"""The command line: ``tollkeeper gate | admin | publish | up | keys … | cells … | budgets … | secrets …``.

Each process is imported only when it is run. What the operator can mend is one sentence on stderr, never a traceback.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from runtime import log
from runtime.lifecycle import CannotStart
from runtime.version import VERSION
from tollkeeper.processes import BUDGET_COMMANDS, CELL_COMMANDS, KEY_COMMANDS, PROCESSES, Process, all_settings
from tollkeeper.secrets.command import secrets_command

if TYPE_CHECKING:
    from runtime.settings import Settings

_KEY_TEXT: Final = re.compile(r"tk_[0-9a-z]{19}_[0-9A-Za-z]+")
"""The whole text of a key; the log masks it should one ever slip in."""


class _Commands(click.Group):
    """Processes, imported at need, and commands that are here already."""

    def __init__(self, *args: Any, processes: Mapping[str, Process], **options: Any) -> None:
        super().__init__(*args, **options)
        self._processes = processes

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._processes, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        process = self._processes.get(cmd_name)
        if process is None:
            return super().get_command(ctx, cmd_name)
        return _command(cmd_name, process, _said(ctx, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        rows = [(name, process.summary) for name, process in self._processes.items()]
        rows += [(name, command.get_short_help_str(limit=80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, processes=PROCESSES)
@click.version_option(VERSION, prog_name="tollkeeper")
def main() -> None:
    """An API-key gateway for AI/ML models on Envoy."""


@main.group("keys", cls=_Commands, processes=KEY_COMMANDS)
def keys_command() -> None:
    """Give a deployment that runs new peppers and MAC keys."""


@main.group("cells", cls=_Commands, processes=CELL_COMMANDS)
def cells_command() -> None:
    """Change into how many cells budgets are split, and which tenants are in which."""


@main.group("budgets", cls=_Commands, processes=BUDGET_COMMANDS)
def budgets_command() -> None:
    """Bring stored budgets into another format."""


main.add_command(secrets_command)


def log_as_asked(settings: Settings, process: str = "") -> None:
    """Begin to log, as the settings say; ``process`` names one of several."""
    log.configure(settings.log_level, settings.log_format, masked=_KEY_TEXT, process=process)


def _said(group: click.Context, name: str) -> str:
    """The command as it is typed, however the program was started: ``tollkeeper cells move``."""
    groups = [] if group.parent is None else [group.info_name or ""]
    return " ".join(["tollkeeper", *groups, name])


def _command(name: str, process: Process, said: str) -> click.Command:
    from runtime.options import command_from  # noqa: PLC0415  the settings' library; not for --version and --help

    def run(settings: Settings) -> None:
        log_as_asked(settings)
        try:
            asyncio.run(_serve(process, settings))
        except (Exception, asyncio.CancelledError) as error:
            if (sentence := _sentence(error)) is None:
                raise
            raise click.ClickException(f"{said}: {sentence}") from error

    command = command_from(process.settings(), run, name=name, all_settings=all_settings)
    command.params = [
        click.Argument([str(param.name)], metavar=process.argument_shown) if param.name == process.argument else param
        for param in command.params
    ]
    return command


async def _serve(process: Process, settings: Settings) -> None:
    await process.serve()(settings)


def _sentence(error: BaseException) -> str | None:
    """Return what the operator is told of an error that is his to mend; None for a fault of ours."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_sentence, error.exceptions)), None)
    return str(error) if isinstance(error, CannotStart) else None
