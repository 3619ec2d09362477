"""Secrets in and out of the command line: passwords from a file or a prompt, new keys into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from tollkeeper.client.session import write_private

STDIN: Final = "-"
MOST: Final = 8_192


def read_secret(source: str | None, prompt: str, *, confirm: bool = False) -> str:
    """Return the first line of a file (``-``: of standard input); asked for at the terminal where none is named."""
    if source is None:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{prompt} is asked for at a terminal; name a file instead, or - for standard input")
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm))
    try:
        text = sys.stdin.readline(MOST + 1) if source == STDIN else _first_line(Path(source))
    except OSError as error:
        raise click.UsageError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{source} is no text") from error
    line = text.rstrip("\r\n")
    if not line or len(line) > MOST:
        raise click.UsageError(f"{'standard input' if source == STDIN else source} has no such line")
    return line


def _first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline(MOST + 1)


def reserve_file(path: Path) -> None:
    """See that a file can be made there before a key is: raises a usage error, so that no key is lost."""
    if path.exists():
        raise click.UsageError(f"{path} exists already; a key is never written over a file")
    try:
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error


def write_key(path: Path, text: str) -> None:
    """Write a key's text to its file, mode 0600."""
    write_private(path, f"{text}\n")


def drop_reserved(path: Path) -> None:
    """Remove a file that was made for a key which was not."""
    if path.exists() and path.stat().st_size == 0:
        path.unlink()
