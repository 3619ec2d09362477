"""``tollkeeper secrets init FILE``: makes the file of secrets that gate and admin share."""

from __future__ import annotations

from pathlib import Path

import click

from catalog.secrets import SecretsError, create_secrets


@click.group("secrets")
def secrets_command() -> None:
    """Make the file of secrets that gate and admin share."""


@secrets_command.command("init")
@click.argument("file", type=click.Path(path_type=Path))
def init(file: Path) -> None:
    """Make FILE with fresh secrets, mode 0600; a file that exists is never overwritten."""
    try:
        create_secrets(file)
    except SecretsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {file} (mode 0600); give it to every gate and admin as --secrets-file")
