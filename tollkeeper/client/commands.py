"""Click's commands, made of the table of nouns: which words each takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from tollkeeper.client.completing import names_of
from tollkeeper.client.fields import Field, Kind, named
from tollkeeper.client.nouns.table import NOUNS
from tollkeeper.client.nouns.verbs import Noun, Verb

LISTED: Final = 500
"""Items of a list that are shown unless more are asked for."""
FORMS: Final = ("table", "json", "yaml", "csv")

_QUERY_HELP: Final = {
    "--tenant": "Only this tenant's; of two models of one name, this tenant's.",
    "--model": "Only those that may call this published model: NAME, or TENANT/NAME.",
    "--name": "Only those of this name.",
    "--label-selector": "Only those with such labels: team=red,env in (dev, test),!old.",
    "--actor": "Only what this user did.",
    "--action": "Only acts of this name: key.rotate.",
    "--since": "From this time on, RFC 3339: 2026-01-31T12:00:00Z.",
    "--until": "Before this time.",
}
_MANY: Final = frozenset({Kind.WORDS, Kind.PAIRS, Kind.SERVERS})
_FILE_HELP: Final = "JSON or YAML with fields as the API has them; options are laid over it. - is standard input."
_SECRET_FILES: Final = {"apiKey": "key", "token": "token"}  # nosec B105  names of fields and options
_USAGE_HELP: Final = "Say how much each was used too."
_WAIT_HELP: Final = "Wait until calls reach it so, for 30 seconds at most; ends with 1 where they do not."


def output_option() -> click.Option:
    """``-o``."""
    help_text = "How the answer is shown."
    return click.Option(
        ["-o", "--output"], type=click.Choice(FORMS), default="table", show_default=True, help=help_text
    )


def add_commands(main: click.Group) -> None:
    """Add every noun's verbs to its group, which is made where there is none."""
    for noun in NOUNS:
        group = main.commands.get(noun.name)
        if not isinstance(group, click.Group):
            group = click.Group(noun.name, help=noun.help)
            main.add_command(group)
        for name, verb in noun.verbs.items():
            params = list(_params(noun, verb))
            group.add_command(click.Command(name, params=params, callback=_callback(noun, verb), help=verb.help))


def _callback(noun: Noun, verb: Verb) -> Callable[..., None]:
    def run(**given: Any) -> None:
        from tollkeeper.client.running import run_verb  # noqa: PLC0415  loads the HTTP client

        run_verb(noun, verb, given)

    return run


def _params(noun: Noun, verb: Verb) -> Iterator[click.Parameter]:
    if verb.argument:
        yield click.Argument(["target"], metavar=verb.argument, shell_complete=names_of(noun, verb))
    yield from map(_option, verb.fields)
    for option in verb.query:
        yield click.Option([option], metavar="TEXT", help=_QUERY_HELP[option])
    if verb.fields:
        yield click.Option(["-f", "--file"], metavar="FILE", help=_FILE_HELP)
    if verb.shown_once:
        kept = _SECRET_FILES[verb.shown_once]
        help_text = f"Write the {kept} to this new file (mode 0600) instead of showing it."
        yield click.Option(
            [f"--{kept}-file", "secret_file"], type=click.Path(path_type=Path), metavar="FILE", help=help_text
        )
    if verb.asks:
        yield click.Option(["-y", "--yes"], is_flag=True, help="Do not ask.")
    if verb.is_list:
        most = click.IntRange(1)
        yield click.Option(["--limit"], type=most, default=LISTED, show_default=True, help="Most items that are shown.")
    if verb.has_usage:
        yield click.Option(["--usage"], is_flag=True, help=_USAGE_HELP)
    if verb.may_wait:
        yield click.Option(["--wait"], is_flag=True, help=_WAIT_HELP)
    if not verb.done:
        yield output_option()


def _option(field: Field) -> click.Option:
    if field.kind is Kind.SWITCH:
        return click.Option([field.option, named(field.option)], default=None, help=field.help)
    is_many = field.kind in _MANY
    notes = (" Repeatable." if is_many else "") + ("  [required]" if field.required else "")
    return click.Option([field.option], metavar=field.kind.value, multiple=is_many, help=field.help + notes)
