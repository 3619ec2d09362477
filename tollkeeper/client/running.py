"""What a verb does, whatever its noun: put the body together, ask, keep the key, show; or say what went wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import yaml

from tollkeeper.client import showing
from tollkeeper.client.calling import Api, ApiError, needed, place
from tollkeeper.client.fields import BadOption, Field, Kind, body_of, merged, named, options_of
from tollkeeper.client.nouns.verbs import Noun, Verb
from tollkeeper.client.problems import sentences
from tollkeeper.client.secret_files import SecretFile, can_be_asked, read_secret, text_of
from tollkeeper.client.session import SessionError, current
from tollkeeper.client.waiting import telling_of_a_wait

Given = Mapping[str, Any]
MOST_FILE: Final = 1 << 20  # the API takes no longer body
WAIT_S: Final = 30.0
LOOK_EVERY_S: Final = 0.2
_PENDING: Final = "pending"
_LIVE: Final = "live"
_NO_NAMES: Final = frozenset({"", ".", ".."})
"""Steps of a path, which HTTP clients take before they ask."""


class _Loader(yaml.SafeLoader):
    """Reads times as the words that they are, as JSON has them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def run_verb(noun: Noun, verb: Verb, given: Given) -> None:
    """Do it; ends with 1 and a sentence where the API refuses."""
    (_list if verb.is_list else _do)(noun, verb, given)


@contextmanager
def asking(options: Mapping[str, str], target: str = "") -> Iterator[Api]:
    """Yield the session's API; whatever it refuses ends the command, named by these options and this target."""
    try:
        with Api.of(current(os.environ, datetime.now(UTC))) as api, telling_of_a_wait():
            yield api
    except SessionError as error:
        fail(str(error))
    except ApiError as error:
        fail(sentences(error, options, target))


def fail(message: str) -> NoReturn:
    """End with 1. What a terminal would obey is taken out: some of it a server said."""
    raise click.ClickException("\n".join(map(showing.printable, message.splitlines())))


def _list(noun: Noun, verb: Verb, given: Given) -> None:
    query = _query(verb, given) | ({"usage": "true"} if given.get("usage") else {})
    most: int = given["limit"]
    with asking(_options(verb)) as api:
        items = list(api.pages(verb.path, query, most + 1))
    columns = (*(verb.columns or noun.columns), *(showing.USED if given.get("usage") else ()))
    showing.show_list(items[:most], columns, showing.Form(given["output"]), f"no {noun.name} here")
    if len(items) > most:
        click.echo(f"only the first {most:,} are shown: --limit shows more", err=True)


def _do(noun: Noun, verb: Verb, given: Given) -> None:
    target: str = given.get("target", "")
    if "{name}" in verb.path and target in _NO_NAMES:
        raise click.UsageError(f"{verb.argument}: must not be empty, . or ..")
    body = _body(verb, given, target)
    if verb.asks and not given["yes"]:
        _confirm(verb.asks.format(name=target))
    path: Path | None = given.get("secret_file")
    with SecretFile(path) if path else nullcontext() as file, asking(_options(verb), target) as api:
        answer = api.ask(verb.method, place(verb.path, name=target), body=body, query=_query(verb, given))
        is_kept = file is not None and _keep(file, answer, verb.shown_once)
        if given.get("wait"):
            answer = _settled(api, verb, given, answer)
        if verb.is_usage:
            for series in ("budgets", "hours", "days"):
                needed(answer, series, list)
    if verb.done:
        click.echo(verb.done.format(name=target))
        return
    form = showing.Form(given["output"])
    if verb.is_usage:
        showing.show_usage(answer, form)
        return
    showing.show_one(answer, form, noun.columns)
    _tell_warnings(answer)
    if verb.shown_once and not is_kept:
        click.echo(f"{verb.shown_once} is shown this once: keep it now.", err=True)
    if given.get("wait") and answer["status"] != _LIVE:
        fail(f"{target} is not live: {answer['statusReason'] or answer['status']}")


def _settled(api: Api, verb: Verb, given: Given, answer: dict[str, Any]) -> dict[str, Any]:
    """Wait until something is pending no more, or ``WAIT_S`` are over; a key that was just made stays in the answer."""
    until_s = time.monotonic() + WAIT_S
    while answer["status"] == _PENDING and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)  # the API has no event for it
        path = place(verb.path, name=given["target"])
        answer = api.ask("GET", path, query=_query(verb, given)) | {"apiKey": answer["apiKey"]}
    return answer


def _keep(file: SecretFile, answer: dict[str, Any], name: str) -> bool:
    """Write the key to its file, in the answer's stead; where that fails it is shown, since it cannot be had again."""
    try:
        file.write(needed(answer, name, str))
    except OSError as error:
        click.echo(f"{file.path} cannot be written: {error.strerror}; it is shown here instead", err=True)
        return False
    answer[name] = f"in {file.path}"
    return True


def _confirm(question: str) -> None:
    if not can_be_asked():
        fail(f"{question} Say --yes where nobody can be asked.")
    click.confirm(question, abort=True, err=True)


def _tell_warnings(answer: Mapping[str, Any]) -> None:
    for warning in answer.get("warnings") or ():
        where = showing.printable(f"{warning.get('field', '')}: ".removeprefix(": "))
        click.echo(f"warning: {where}{showing.printable(str(warning.get('message', '')))}", err=True)


def _options(verb: Verb) -> dict[str, str]:
    options = {".".join((*verb.below, dotted)): option for dotted, option in options_of(verb.fields).items()}
    if verb.argument_field:
        options[verb.argument_field] = verb.argument
    return options | {parameter: option for option, parameter in verb.query.items()}


def _query(verb: Verb, given: Given) -> dict[str, str]:
    told = {parameter: given.get(named(option)) for option, parameter in verb.query.items()}
    return {parameter: value for parameter, value in told.items() if value is not None}


def _body(verb: Verb, given: Given, target: str) -> dict[str, Any] | None:
    """Put the body together; None where the call has none."""
    if verb.method not in {"POST", "PUT", "PATCH"}:
        return None
    told = {field.name: _told(field, given) for field in verb.fields}
    try:
        body = merged(_unwrapped(_from_file(given.get("file")), verb.below), body_of(verb.fields, told))
    except BadOption as error:
        raise click.UsageError(str(error)) from error
    if verb.argument_field:
        body[verb.argument_field] = target
    if missing := [field.option for field in verb.fields if field.required and not _has(body, field.path)]:
        raise click.UsageError(f"missing {', '.join(missing)}")
    body |= verb.constant
    for outer in reversed(verb.below):
        body = {outer: body}
    return body


def _unwrapped(body: dict[str, Any], below: tuple[str, ...]) -> dict[str, Any]:
    """Take the whole body of the API too, ``{"config": {…}}``."""
    for outer in below:
        if body.keys() == {outer} and isinstance(body[outer], dict):
            body = body[outer]
    return body


def _told(field: Field, given: Given) -> Any:
    value = given.get(field.name)
    if field.kind is not Kind.PASSWORD or value is None:
        return value
    return read_secret(value, field.option)


def _has(body: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    found: Any = body
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return True


def _from_file(source: str | None) -> dict[str, Any]:
    """Read a body; JSON is YAML too."""
    if source is None:
        return {}
    text = text_of(source, f"--file: {source}", lambda file: file.read(MOST_FILE + 1))
    if len(text) > MOST_FILE:
        raise click.UsageError(f"--file: {source} is longer than {MOST_FILE:,} characters")
    try:
        read = yaml.load(text, _Loader)  # noqa: S506  # nosec B506  a safe loader, without times
        json.dumps(read, allow_nan=False)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number that is none
        problem = str(error).partition("\n")[0]
        raise click.UsageError(f"--file: {source} is neither JSON nor YAML: {problem}") from error
    except TypeError as error:
        raise click.UsageError(f"--file: {source} has what JSON cannot say: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(name, str) for name in read):
        raise click.UsageError(f"--file: {source} must be an object of fields")
    return read
