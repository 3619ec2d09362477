"""The command line: processes, work on a deployment, and the admin API's client.

Each process is imported only when it is run. What the operator can mend is one sentence on stderr, never a traceback.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from runtime import log
from runtime.lifecycle import CannotStart
from runtime.version import VERSION, is_compiled
from tollkeeper.client import entering
from tollkeeper.client.commands import add_commands
from tollkeeper.client.nouns.table import NOUNS
from tollkeeper.processes import BUDGET_COMMANDS, CELL_COMMANDS, PROCESSES, SECRET_COMMANDS, Process, all_settings
from tollkeeper.secrets.command import add_mac_key, add_pepper, init

if TYPE_CHECKING:
    from runtime.settings import Settings

_KEY_TEXT: Final = re.compile(r"tk_[0-9a-z]{19}_[0-9A-Za-z]+|tka_[A-Za-z0-9][A-Za-z0-9._@-]{0,62}_[0-9A-Za-z]{20,}")
"""The whole text of a key, or of a service account's token; the log masks it should one ever slip in."""


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
        with formatter.section("Commands"):
            formatter.write_dl([*self._process_rows(), *self._rows(self.commands)])

    def _process_rows(self) -> list[tuple[str, str]]:
        return [(name, process.summary) for name, process in self._processes.items()]

    def _rows(self, names: Iterable[str]) -> list[tuple[str, str]]:
        return [(name, self.commands[name].get_short_help_str(limit=100)) for name in names]


class _Main(_Commands):
    """All of it, by what it is for. An error that quotes a word of the command line quotes no key."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            masked = _KEY_TEXT.sub("(a key)", error.message)
            if masked == error.message:
                raise
            if isinstance(error, click.UsageError):
                raise click.UsageError(masked, error.ctx) from None
            raise click.ClickException(masked) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Work with it, over the admin API"):
            formatter.write_dl(self._rows(CLIENT))
        with formatter.section("Run it"):
            formatter.write_dl(self._process_rows())
        with formatter.section("Look after a deployment"):
            formatter.write_dl(self._rows(DEPLOYMENT))


class _MovedCommands(_Commands):
    """Commands that have another group now: they still work here, say so, and are not listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return click.Group.list_commands(self, ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := self.commands.get(cmd_name)) is not None:
            return command
        if cmd_name in self._processes:
            click.echo(f"`tollkeeper keys {cmd_name}` is `tollkeeper secrets {cmd_name}` now", err=True)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        click.Group.format_commands(self, ctx, formatter)


CLIENT: Final = (
    *("login", "logout", "whoami", "password"),
    *(noun.name for noun in NOUNS),
    "completion",
)
DEPLOYMENT: Final = ("secrets", "cells", "budgets")


@click.group(cls=_Main, processes=PROCESSES, context_settings={"max_content_width": 110})
@click.version_option(f"{VERSION}, compiled" if is_compiled() else VERSION, prog_name="tollkeeper")
def main() -> None:
    """An API-key gateway for AI/ML models on Envoy."""


@main.group("keys", cls=_MovedCommands, processes=SECRET_COMMANDS)
def keys_command() -> None:
    """Keys: make, find, rotate, disable, revoke."""


@main.group("secrets", cls=_Commands, processes=SECRET_COMMANDS)
def secrets_command() -> None:
    """Make and extend the file of secrets that gate and admin share, and give a deployment that runs new ones."""


@main.group("cells", cls=_Commands, processes=CELL_COMMANDS)
def cells_command() -> None:
    """Change into how many cells budgets are split, and which tenants are in which."""


@main.group("budgets", cls=_Commands, processes=BUDGET_COMMANDS)
def budgets_command() -> None:
    """Bring stored budgets into another format."""


for _one in (init, add_pepper, add_mac_key):
    secrets_command.add_command(_one)
for _one in (entering.login, entering.logout, entering.whoami, entering.password):
    main.add_command(_one)
add_commands(main)
main.add_command(entering.completion)
keys_command.add_command(entering.find)


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
