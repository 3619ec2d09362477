"""How settings are found, refused and kept secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import ValidationError

from runtime.addresses import TcpAddress, UnixAddress, is_loopback, parse_address
from runtime.options import command_from
from runtime.settings import (
    BadSettings,
    ListenAddress,
    Port,
    Secret,
    Settings,
    StoreUrl,
    Words,
    read,
    unknown_variables,
)


class Sample(Settings):
    """One field of each type."""

    redis_url: StoreUrl
    """Where the store is."""

    listen: ListenAddress = TcpAddress("127.0.0.1", 9000)
    """Where to listen."""

    gateway_port: Port = 8080
    """Port of the gateway."""

    admin_password: Secret | None = None
    """Password of the first admin."""

    probe_allow: Words = ()
    """Addresses that may be probed."""

    insecure_plaintext: bool = False
    """Listen beyond this machine without TLS."""

    secrets_file: Path | None = None
    """The secrets."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A rule over two fields."""
        if not is_loopback(self.listen) and not self.insecure_plaintext:
            yield "listen", "needs --insecure-plaintext beyond this machine"


def run(*arguments: str, **environment: str) -> tuple[Result, list[Sample]]:
    """Run the sample's command; the settings it built, if any."""
    built: list[Sample] = []
    command = command_from(Sample, built.append, name="sample", all_settings=lambda: [Sample])
    return CliRunner(env=environment).invoke(command, arguments), built


FORMS = [
    (["--listen", "unix:/run/x.sock"], "listen", UnixAddress(Path("/run/x.sock"))),
    (["--listen=127.0.0.1:0"], "listen", TcpAddress("127.0.0.1", 0)),
    (["--listen", "[::1]:80"], "listen", TcpAddress("::1", 80)),
    (["--gateway-port", "0"], "gateway_port", 0),
    (["--probe-allow", "127.0.0.0/8, models.example"], "probe_allow", ("127.0.0.0/8", "models.example")),
    (["--insecure-plaintext"], "insecure_plaintext", True),
    (["--no-insecure-plaintext"], "insecure_plaintext", False),
    (["--secrets-file", "s.json"], "secrets_file", Path("s.json")),
    (["--log-format", "json"], "log_format", "json"),
]


@pytest.mark.parametrize(("arguments", "field", "value"), FORMS)
def test_each_form_of_value_is_read(arguments: list[str], field: str, value: Any) -> None:
    """A value's text on the command line becomes the field's type."""
    result, [built] = run("--redis-url", "redis://r", *arguments)
    assert result.exit_code == 0
    assert getattr(built, field) == value


def test_command_line_beats_environment_beats_default() -> None:
    """Each source gives way to the one before it."""
    _, [default] = run("--redis-url", "redis://r")
    _, [environment] = run(TOLLKEEPER_REDIS_URL="unix://v", TOLLKEEPER_GATEWAY_PORT="1")
    _, [both] = run("--redis-url", "redis://r", "--gateway-port", "2", TOLLKEEPER_GATEWAY_PORT="1")
    assert [default.gateway_port, environment.gateway_port, both.gateway_port] == [8080, 1, 2]


def test_an_empty_variable_is_not_set() -> None:
    """Compose files pass unset variables as empty ones; the default stays."""
    _, [built] = run("--redis-url", "redis://r", TOLLKEEPER_GATEWAY_PORT="")
    assert built.gateway_port == 8080


def test_all_mistakes_come_in_one_message() -> None:
    """Each mistake names option, variable and rule, from whichever source it came."""
    result, built = run("--gateway-port", "70000", "--listne", "x:1", TOLLKEEPER_LOG_LEVEL="loud")
    assert (result.exit_code, built) == (2, [])
    for part in (
        "--redis-url (TOLLKEEPER_REDIS_URL): is required",
        "--gateway-port (TOLLKEEPER_GATEWAY_PORT): must be less than or equal to 65535",
        "--log-level (TOLLKEEPER_LOG_LEVEL): must be 'debug', 'info', 'warning' or 'error'",
        "--listne: no such option; did you mean --listen?",
    ):
        assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_a_rule_over_several_fields_is_told_with_the_rest() -> None:
    """A conflict names its option like any other mistake."""
    result, _ = run("--redis-url", "redis://r", "--listen", "0.0.0.0:1", "--nonsense")
    assert "--listen (TOLLKEEPER_LISTEN): needs --insecure-plaintext" in result.stderr
    assert "--nonsense: no such option" in result.stderr


def test_a_stray_argument_is_refused() -> None:
    """A word without an option is a mistake, not ignored."""
    result, built = run("--redis-url", "redis://r", "stray")
    assert (result.exit_code, built) == (2, [])
    assert "stray" in result.stderr


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    """A typing mistake in a variable is seen, and does not stop the start."""
    result, built = run("--redis-url", "redis://r", TOLLKEEPER_GATEWAY_PROT="1")
    assert len(built) == 1
    assert "TOLLKEEPER_GATEWAY_PROT: no setting has this name" in result.stderr
    assert "did you mean TOLLKEEPER_GATEWAY_PORT?" in result.stderr


def test_another_processs_variable_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment may hold the settings of all processes."""

    class Other(Settings):
        state: str = ""
        """A folder."""

    monkeypatch.setenv("TOLLKEEPER_STATE", "x")
    assert unknown_variables([Sample])
    assert not unknown_variables([Sample, Other])


def test_secrets_never_print() -> None:
    """Neither a secret nor a store's password is in any printed form of the settings."""
    built = read(Sample, {"redis_url": "redis://:hidden-a@r", "admin_password": "hidden-b"})
    printed = f"{built!r} {built} {built.admin_password!r} {built.admin_password} {built.model_dump_json()}"
    assert "hidden-b" not in printed
    assert "hidden-a" not in f"{built!r} {built}"
    assert "admin_password=***" in repr(built)
    assert built.admin_password is not None
    assert built.admin_password.get_secret_value() == "hidden-b"


def test_no_message_holds_a_value() -> None:
    """A mistake is told without what was typed, which may be a secret."""
    with pytest.raises(BadSettings) as caught:
        read(Sample, {"redis_url": "hidden", "admin_password": b"\xff hidden", "gateway_port": "hidden"})
    assert len(caught.value.mistakes) == 3
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValidationError) as raw:
        Sample(redis_url="hidden")
    assert "hidden" not in str(raw.value)


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after the start."""
    built = read(Sample, {"redis_url": "redis://r"})
    with pytest.raises(ValidationError):
        built.gateway_port = 1  # type: ignore[misc]


def test_a_field_without_a_doc_line_is_refused() -> None:
    """An undocumented setting cannot be declared."""
    with pytest.raises(TypeError, match="no doc line under bare"):

        class Undocumented(Settings):
            bare: int = 1


def test_help_names_variable_default_and_form() -> None:
    """``--help`` is enough to set an option."""
    result, _ = run("--help")
    assert "--listen unix:PATH|HOST:PORT" in result.stdout
    assert "[TOLLKEEPER_GATEWAY_PORT; default 8080]" in " ".join(result.stdout.split())
    assert "--admin-password SECRET" in result.stdout


@pytest.mark.parametrize("text", ["", "unix:", "host", "host:", ":80", "h:65536", "h:-1", "::1:80", "[h]:1", "h:¹"])
def test_a_bad_address_is_refused(text: str) -> None:
    """Only the two written forms are addresses."""
    with pytest.raises(ValueError, match="must be unix:PATH or HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("text", ["unix:/a/b", "127.0.0.1:0", "[::1]:8080", "gate.example:443"])
def test_an_address_reads_back_as_it_was_written(text: str) -> None:
    """``str`` and ``parse_address`` are inverse."""
    assert str(parse_address(text)) == text
