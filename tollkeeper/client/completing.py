"""Names for the shell to complete: those that the API lists for who is logged in, asked within a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import click

from tollkeeper.client.nouns.verbs import Noun, Verb

SHOWN: Final = 100

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names_of(noun: Noun, verb: Verb) -> Complete | None:
    """Return what completes a verb's argument; None where it names something that is not there yet."""
    if verb.argument_field or not noun.identity:
        return None

    def complete(_context: click.Context, _param: click.Parameter, begun: str) -> list[str]:
        try:
            return [name for name in _listed(noun) if name.startswith(begun)]
        except Exception:  # noqa: BLE001  whatever it was: a shell that completes must not print
            return []

    return complete


def _listed(noun: Noun) -> list[str]:
    from tollkeeper.client.calling import Api  # noqa: PLC0415  the HTTP client
    from tollkeeper.client.session import current  # noqa: PLC0415

    with Api.of(current(os.environ, datetime.now(UTC)), patience_s=1.0) as api:
        return [
            str(item[noun.identity]) for item in api.pages(noun.verbs["list"].path, {}, SHOWN) if noun.identity in item
        ]
