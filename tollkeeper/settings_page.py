"""docs/settings.md, made of the settings classes: ``python -m tollkeeper.settings_page docs/settings.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from runtime.options import default_of, metavar_of
from runtime.settings import Settings, option_of, variable_of
from tollkeeper.client.variables import ClientSettings
from tollkeeper.processes import GROUPS, PROCESSES, Process

_HEAD = """\
# Settings

Made by `make settings` from the settings classes; do not edit. Each setting is an option of the command and an
environment variable. The command line beats the environment, the environment beats the default; an empty variable is
not set. All mistakes are told in one message. Secrets print `***`; give them as variables, so that they do not
show in the list of processes.
"""


def page() -> str:
    """Return the page: a section a command, an entry a setting."""
    grouped = ((f"{group} {name}", one) for group, commands in GROUPS.items() for name, one in commands.items())
    commands = PROCESSES | dict(grouped)
    sections = (_section(name, process) for name, process in commands.items())
    return "\n".join([_HEAD, *(line for section in sections for line in section), *_client()])


def _client() -> Iterator[str]:
    yield "## The admin API's client"
    yield ""
    yield f"{ClientSettings.__doc__}"
    yield ""
    for field, info in ClientSettings.model_fields.items():
        if field not in Settings.model_fields:
            yield f"- `{variable_of(field)}` · {' '.join((info.description or '').split())}"
    yield ""


def _section(name: str, process: Process) -> Iterator[str]:
    settings = process.settings()
    yield f"## `tollkeeper {name}{f' {process.argument_shown}' if process.argument else ''}`"
    yield ""
    yield f"{settings.__doc__}"
    yield ""
    own = {field: info for field, info in settings.model_fields.items() if field not in Settings.model_fields}
    for field, info in (own | Settings.model_fields).items():
        if field != process.argument:
            yield _entry(field, info)
    yield ""


def _entry(field: str, info: FieldInfo) -> str:
    form = "" if info.annotation is bool else f" {metavar_of(info)}"
    text = " ".join((info.description or "").split())
    return f"- `{option_of(field)}{form}` · `{variable_of(field)}` · {default_of(info)}<br>{text}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
