"""``tollkeeper login``, ``logout``, ``whoami``, ``completion`` and ``keys find``: the verbs that are like no other."""

from __future__ import annotations

from typing import Final

import click

from tollkeeper.client.commands import output_option

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("login")
@click.argument("url")
@click.option("-u", "--username", default=None, metavar="NAME", help="Who logs in; asked for unless given.")
@click.option("--password-file", metavar="FILE", help="File whose first line is the password; - is standard input.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="Authorities that the API's certificate is checked by.",
)
@click.option("--insecure-plaintext", is_flag=True, help="Send the password over http to another machine.")
def login(
    url: str, *, username: str | None, password_file: str | None, ca: str | None, insecure_plaintext: bool
) -> None:
    """Log in at an admin API; the session is kept in your configuration folder (mode 0600)."""
    from tollkeeper.client import logging_in  # noqa: PLC0415  the HTTP client

    logging_in.log_in(url, username, password_file, ca or "", is_plaintext_meant=insecure_plaintext)


@click.command("logout")
def logout() -> None:
    """Log out: every token of yours ends, on every machine."""
    from tollkeeper.client import logging_in  # noqa: PLC0415

    logging_in.log_out()


@click.command("whoami", params=[output_option()])
def whoami(output: str) -> None:
    """Show who is logged in, and where."""
    from tollkeeper.client import logging_in  # noqa: PLC0415

    logging_in.show_me(output)


@click.command("password")
@click.option(
    "--current-file", metavar="FILE", help="File whose first line is the password of now; asked for unless given."
)
@click.option("--new-file", metavar="FILE", help="File whose first line is the new one; asked for unless given.")
def password(current_file: str | None, new_file: str | None) -> None:
    """Change your own password; every session of yours ends, but this one goes on."""
    from tollkeeper.client import logging_in  # noqa: PLC0415

    logging_in.change_password(current_file, new_file)


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that makes a shell complete commands and names: eval "$(tollkeeper completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from tollkeeper.cli import main  # noqa: PLC0415  which has all commands

    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"click has no completion for {shell}")
    click.echo(made(main, {}, "tollkeeper", "_TOLLKEEPER_COMPLETE").source())


@click.command("find", params=[output_option()], context_settings={"allow_extra_args": True})
@click.option(
    "--text-file", metavar="FILE", help="File whose first line is the key; - is standard input; asked for unless given."
)
@click.pass_context
def find(ctx: click.Context, text_file: str | None, output: str) -> None:
    """Say whose a key is, by its text or the beginning of it. The text is never an argument: those are written down."""
    from tollkeeper.client import logging_in  # noqa: PLC0415

    if ctx.args:
        raise click.UsageError("a key is no argument, because those are written down: --text-file FILE, or - by a pipe")
    logging_in.find_key(text_file, output)
