"""A settings class as a command: one option a field, values taken as text and checked by the class itself.

Click only splits the command line here; so unknown options, bad values and broken rules come in one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from runtime.settings import (
    BadSettings,
    Metavar,
    S,
    Secret,
    Settings,
    option_of,
    read,
    unknown_variables,
    variable_of,
)


def command_from(
    settings: type[S],
    run: Callable[[S], None],
    *,
    name: str,
    all_settings: Callable[[], Iterable[type[Settings]]],
) -> click.Command:
    """Make the command ``name`` that reads ``settings`` and calls ``run`` with them.

    ``all_settings`` gives the classes of every process: a variable that any of them has is not unknown.
    """

    @click.pass_context
    def callback(context: click.Context, /, **options: object) -> None:
        built = _read_or_refuse(context, settings, options)
        _warn_of_unknown_variables(settings, all_settings)
        run(built)

    return click.Command(
        name,
        callback=callback,
        params=[_option(field, info) for field, info in settings.model_fields.items()],
        help=settings.__doc__,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "max_content_width": 110},
    )


def _read_or_refuse(context: click.Context, settings: type[S], options: dict[str, object]) -> S:
    given = {field: value for field, value in options.items() if value is not None}
    try:
        return read(settings, given, _unknown_options(context.args))
    except BadSettings as error:
        message = f"{context.command_path}: these settings are wrong:\n{error}"
    click.echo(message, err=True)
    raise click.exceptions.Exit(2)


def _unknown_options(arguments: Sequence[str]) -> list[str]:
    """Return what is left of a command line that knows options only; the value after an unknown one is its own."""
    unknown = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    return unknown or list(arguments)


def _warn_of_unknown_variables(settings: type[Settings], all_settings: Callable[[], Iterable[type[Settings]]]) -> None:
    if unknown_variables([settings]):  # only then is it worth importing the other processes
        for warning in unknown_variables(all_settings()):
            click.echo(f"warning: {warning}", err=True)


def _option(field: str, info: FieldInfo) -> click.Option:
    help_text = f"{plain(info.description or '')} [{variable_of(field)}; {default_of(info)}]"
    if info.annotation is bool:
        return click.Option([f"{option_of(field)}/{option_of('no_' + field)}", field], default=None, help=help_text)
    return click.Option([option_of(field), field], default=None, metavar=metavar_of(info), help=help_text)


def plain(description: str) -> str:
    """Return a doc line as one line without code marks."""
    return " ".join(description.replace("`", "").split())


def default_of(info: FieldInfo) -> str:
    """Say what a field is when it is not given: ``default 8080``, ``required``, ``not set``."""
    if info.is_required():
        return "required"
    default = info.default
    if default is None:
        return "default: none"
    if isinstance(default, tuple):
        return "default " + (",".join(default) or "empty")
    return "default " + (str(default).lower() if isinstance(default, bool) else str(default))


def metavar_of(info: FieldInfo) -> str:
    """Say what a field's value looks like: its ``Metavar``, its choices, or its type."""
    for mark in info.metadata:
        if isinstance(mark, Metavar):
            return mark.text
    return _metavar_of_type(info.annotation)


def _metavar_of_type(annotation: object) -> str:
    inner = [part for part in getattr(annotation, "__args__", ()) if part is not type(None)]
    if inner and all(isinstance(part, str) for part in inner):
        return "|".join(inner)
    for part in (annotation, *inner):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Metavar):
                return mark.text
    kinds = {int: "NUMBER", float: "NUMBER", Path: "PATH", Secret: "SECRET"}
    scalar = inner[0] if len(inner) == 1 else annotation
    return kinds.get(scalar, "TEXT") if isinstance(scalar, type) else "TEXT"
