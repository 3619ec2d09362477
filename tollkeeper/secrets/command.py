"""``tollkeeper secrets init | add-…``: makes the file of secrets that gate and admin share, and adds to it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from catalog.keys.secrets import SecretsError, change_secrets, create_secrets
from catalog.keys.versions import Family, added, newest


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path))
def init(file: Path) -> None:
    """Make FILE with fresh secrets, mode 0600; a file that exists is never overwritten."""
    try:
        create_secrets(file)
    except SecretsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {file} (mode 0600); give it to every gate and admin as --secrets-file")


@click.command("add-pepper")
@click.argument("file", type=click.Path(path_type=Path))
def add_pepper(file: Path) -> None:
    """Add a pepper to FILE, unused until `secrets rotate-pepper`: give every process the file in between."""
    _add(file, Family.PEPPER)


@click.command("add-mac-key")
@click.argument("file", type=click.Path(path_type=Path))
def add_mac_key(file: Path) -> None:
    """Add a MAC key to FILE, unused until `secrets rotate-mac`: give every process the file in between."""
    _add(file, Family.MAC_KEY)


def _add(file: Path, family: Family) -> None:
    try:
        secrets = change_secrets(file, lambda known: added(known, family, os.urandom))
    except SecretsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"added {family.words} {newest(secrets, family)} to {file}; nothing uses it yet")
