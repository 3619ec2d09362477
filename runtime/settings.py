"""Settings: read once, frozen, checked together; the only reader of the environment.

Owns how a process's settings are declared (a frozen class with a doc line under each field), found (command line,
then ``TOLLKEEPER_…`` variables, then defaults) and refused (every mistake in one message, never a value).
Must not know any process; ``runtime/options.py`` turns a class into command-line options.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.addresses import Address, parse_address
from runtime.store.urls import check_budgets_url, check_store_url

PREFIX: Final = "TOLLKEEPER_"
"""Every option ``--kebab-name`` is also the variable ``TOLLKEEPER_KEBAB_NAME``."""

S = TypeVar("S", bound="Settings")


class Secret(SecretStr):
    """A setting that cannot print itself; ``get_secret_value()`` gives the text."""

    def __repr__(self) -> str:
        """Never the value."""
        return "***"

    def _display(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class Metavar:
    """What stands for a field's value in ``--help``: ``HOST:PORT``."""

    text: str


def _words(value: object) -> object:
    return tuple(filter(None, value.replace(",", " ").split())) if isinstance(value, str) else value


def _other_store_url(value: str | None) -> str | None:
    return None if value is None else check_store_url(value)


def _other_budgets_url(value: str | None) -> str | None:
    return None if value is None else check_budgets_url(value)


Words = Annotated[tuple[str, ...], BeforeValidator(_words), Metavar("A,B…")]
"""Several words, written with commas: ``127.0.0.0/8,models.example``."""

ListenAddress = Annotated[Address, BeforeValidator(parse_address), Metavar("unix:PATH|HOST:PORT")]
"""Where to listen: ``unix:/run/gate.sock``, ``127.0.0.1:9090``, ``[::1]:0`` (port 0: any free one)."""

StoreUrl = Annotated[str, AfterValidator(check_store_url), Field(repr=False), Metavar("URL")]
"""A store's URL: of one server, or a master behind Sentinels. A settings object does not print it or its password."""

OtherStoreUrl = Annotated[str | None, AfterValidator(_other_store_url), Field(repr=False), Metavar("URL")]
"""A store's URL, or nothing where another setting names the store."""

OtherBudgetsUrl = Annotated[str | None, AfterValidator(_other_budgets_url), Field(repr=False), Metavar("URL")]
"""The same for a store that may also be a Cluster."""

Port = Annotated[int, Field(ge=0, le=65535), Metavar("PORT")]
"""A TCP port; 0 means any free one."""


class Settings(BaseSettings):
    """The base of every process's settings. Each field has a doc line: purpose, unit, why this default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        defer_build=True,  # of the classes that one inherits, none is ever read
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe event that is logged."""

    log_format: Literal["text", "json"] = "text"
    """How a log line is written on stderr: `text` for people, `json` (one object a line) for machines."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line beats environment beats default; there are no other sources."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a field without a doc line."""
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__name__}: no doc line under {', '.join(bare)}")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for each rule over several fields that is broken; asked once each field is good."""
        yield from ()


class BadSettings(ValueError):  # noqa: N818  what it says to the operator is the name
    """Every mistake of one command's settings; ``str()`` is the whole message."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"  {mistake}" for mistake in self.mistakes))


def option_of(field: str) -> str:
    """``redis_url`` is given as ``--redis-url``."""
    return "--" + field.replace("_", "-")


def variable_of(field: str) -> str:
    """``redis_url`` is given as ``TOLLKEEPER_REDIS_URL``."""
    return PREFIX + field.upper()


def read(settings: type[S], given: Mapping[str, Any], unknown_options: Sequence[str] = ()) -> S:
    """Build the settings from ``given`` (field -> value of the command line) and the environment.

    Raises ``BadSettings`` naming option, variable and rule of every mistake, and the nearest name of each
    unknown option; no message holds a value.
    """
    mistakes = [_unknown_option(settings, option) for option in unknown_options]
    try:
        built = settings(**given)
    except ValidationError as error:
        mistakes += [_mistake(str(one["loc"][0]), _rule(one["type"], one["msg"])) for one in error.errors()]
    else:
        mistakes += [_mistake(field, rule) for field, rule in built.conflicts()]
        if not mistakes:
            return built
    raise BadSettings(mistakes)


def as_text(settings: Settings) -> dict[str, str]:
    """Return every field that has a value as the command line would give it: ``read`` of it gives the same settings.

    Secrets are in it: it is for another process of ours, never to be shown.
    """
    values = {field: getattr(settings, field) for field in type(settings).model_fields}
    return {field: _text(value) for field, value in values.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _mistake(field: str, rule: str) -> str:
    return f"{option_of(field)} ({variable_of(field)}): {rule}"


def _rule(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Input should", "must")


def _unknown_option(settings: type[Settings], option: str) -> str:
    return f"{option}: no such option" + _nearest(option, map(option_of, settings.model_fields))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def unknown_variables(known: Iterable[type[Settings]]) -> list[str]:
    """Return one warning for each ``TOLLKEEPER_…`` variable that no class in ``known`` has, with the nearest."""
    names = {variable_of(field) for settings in known for field in settings.model_fields}
    found = {name.upper(): name for name in os.environ if name.upper().startswith(PREFIX)}
    return [f"{found[name]}: no setting has this name" + _nearest(name, names) for name in sorted(found.keys() - names)]


def environment_without_settings() -> dict[str, str]:
    """Return this process's environment less every ``TOLLKEEPER_…`` variable: what a child process is given."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
