"""Secrets in and out of the command line: passwords from a file or a prompt, new keys into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, TextIO

import click

STDIN: Final = "-"
MOST: Final = 8_192


def can_be_asked() -> bool:
    """Whether somebody sits at a terminal who can answer."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def read_secret(source: str | None, prompt: str, *, confirm: bool = False) -> str:
    """Return the first line of a file (``-``: of standard input); asked for at the terminal where none is named."""
    if source is None:
        if not can_be_asked():
            raise click.UsageError(f"{prompt} is asked for at a terminal; name a file instead, or - for standard input")
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))
    line = text_of(source, source, lambda file: file.readline(MOST + 1)).rstrip("\r\n")
    if not line or len(line) > MOST:
        raise click.UsageError(f"{'standard input' if source == STDIN else source} has no such line")
    return line


def text_of(source: str, said: str, read: Callable[[TextIO], str]) -> str:
    """Return what is read of a file, or of standard input (``-``); raises a usage error that calls it ``said``."""
    try:
        if source == STDIN:
            return read(_standard_input())
        with Path(source).open() as file:
            return read(file)
    except OSError as error:
        raise click.UsageError(f"{said} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{said} is no text") from error


def _standard_input() -> TextIO:
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return sys.stdin


class SecretFile:
    """A new file of mode 0600 for a key: it is made before the key, so that no key is made that could not be kept.

    A context manager; a file that got no whole key is removed at its end.
    """

    def __init__(self, path: Path) -> None:
        """Make the file; raises a usage error where it cannot be, or is there already."""
        self.path = path
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise click.UsageError(f"{path} exists already; a key is never written over a file") from error
        except OSError as error:
            raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
        self._is_whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        if not self._is_whole:
            self.path.unlink(missing_ok=True)

    def write(self, key: str) -> None:
        """Write the key's text; raises ``OSError``."""
        left = f"{key}\n".encode()
        while left:
            left = left[os.write(self._handle, left) :]
        os.fsync(self._handle)
        self._is_whole = True
