"""Where the command line keeps who is logged in, and what it makes of a damaged or ended session."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollkeeper.client.session import Session, SessionError, address, current, forget, is_exposed, path_of, store

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SESSION = Session("https://admin.example.com", "secret-token", "ann", "2026-12-01T20:00:00Z")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a configuration folder of its own."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_a_session_is_its_owners_alone(environment: dict[str, str]) -> None:
    """0600 in a folder of 0700, also where it replaces another."""
    path = path_of(environment)
    for session in (SESSION, SESSION):
        store(session, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [one.name for one in path.parent.iterdir()] == ["session.json"]
    assert current(environment, NOW) == SESSION


def test_a_session_does_not_print_its_token() -> None:
    """Neither whole nor in an error."""
    assert "secret-token" not in f"{SESSION} {SESSION!r}"


@pytest.mark.parametrize(
    ("home", "base", "expected"),
    [
        ("/home/ann", "", "/home/ann/.config/tollkeeper/session.json"),
        ("/home/ann", "/etc/ann", "/etc/ann/tollkeeper/session.json"),
        ("/home/ann", "relative", "/home/ann/.config/tollkeeper/session.json"),  # the specification: ignore it
    ],
)
def test_the_folder_is_that_of_the_xdg_specification(home: str, base: str, expected: str) -> None:
    """Absolute paths count alone."""
    assert str(path_of({"HOME": home, "XDG_CONFIG_HOME": base})) == expected


def test_nobody_is_logged_in_at_first(environment: dict[str, str]) -> None:
    """The sentence says what to do."""
    with pytest.raises(SessionError, match="tollkeeper login URL"):
        current(environment, NOW)


def test_an_ended_session_is_told_before_anything_is_asked(environment: dict[str, str]) -> None:
    """At its very end too."""
    store(SESSION, path_of(environment))
    with pytest.raises(SessionError, match=r"ended at .*: tollkeeper login https://admin\.example\.com"):
        current(environment, datetime(2026, 12, 1, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"url": 1, "token": "t"}',
        '{"url": "http://x", "token": "t", "expires_at": "tomorrow"}',
        '{"url": "x", "token": "t"}',
        '{"url": "http://x", "token": "t\\r"}',
        '{"url": "http://x", "token": "t", "expires_at": "2026-12-01T00:00:00"}',
        "\x00",
    ],
)
def test_a_damaged_session_is_told_and_nothing_else(environment: dict[str, str], text: str) -> None:
    """The sentence names the file, which may be removed."""
    path = path_of(environment)
    store(SESSION, path)
    path.write_text(text)
    with pytest.raises(SessionError, match=r"session\.json .* log in again"):
        current(environment, NOW)


def test_what_a_later_version_adds_is_read_past(environment: dict[str, str]) -> None:
    """Two versions of the command may share a home."""
    path = path_of(environment)
    store(SESSION, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "color": "blue"}))
    assert current(environment, NOW) == SESSION


def test_the_environment_beats_the_file(environment: dict[str, str]) -> None:
    """A token of a variable is used with the variable's address, else with the session's."""
    token = {"TOLLKEEPER_TOKEN": "t"}
    with pytest.raises(SessionError, match="TOLLKEEPER_URL is not"):
        current(environment | token, NOW)
    asked = current(environment | token | {"TOLLKEEPER_URL": "http://127.0.0.1:1/"}, NOW)
    assert (asked.url, asked.token) == ("http://127.0.0.1:1", "t")
    store(SESSION, path_of(environment))
    assert current(environment | token, NOW).url == SESSION.url


def test_cron_needs_no_home(environment: dict[str, str]) -> None:
    """With a token and an address, the session's file is not looked at, nor its authorities."""
    path = path_of(environment)
    store(replace(SESSION, ca="/old/ca.pem"), path)
    variables = {"TOLLKEEPER_TOKEN": "t", "TOLLKEEPER_URL": "https://other.example.com"}
    assert current(environment | variables, NOW).ca == ""
    path.write_text("no json")
    assert current(environment | variables, NOW).token == "t"


@pytest.mark.parametrize("token", ["tka_a\rb", "tka_\u00e9", "two words", " ", "\n"])
def test_a_token_that_no_header_can_carry_is_not_printed(environment: dict[str, str], token: str) -> None:
    """HTTP libraries quote what they refuse, and so would print it; a line's end around a token is taken off."""
    variables = {"TOLLKEEPER_URL": "http://127.0.0.1:1", "TOLLKEEPER_TOKEN": token}
    with pytest.raises(SessionError, match="TOLLKEEPER_TOKEN is no token") as caught:
        current(environment | variables, NOW)
    assert token.strip() not in str(caught.value) or not token.strip()
    assert current(environment | variables | {"TOLLKEEPER_TOKEN": "tka_a\r\n"}, NOW).token == "tka_a"


def test_a_session_is_never_sent_elsewhere(environment: dict[str, str]) -> None:
    """An address of the environment alone does not get the session's token."""
    store(SESSION, path_of(environment))
    with pytest.raises(SessionError, match="logged in at"):
        current(environment | {"TOLLKEEPER_URL": "https://other.example.com"}, NOW)


@pytest.mark.parametrize(
    "text",
    [
        *("", "admin.example.com", "ftp://x", "http://", "http://x:port", "http://x:99999"),
        *("http://ann@x", "http://x?a", "http://x#a", "http://[::1", "http://a b", "http://a\x1b[31m"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Whatever it is, by a sentence."""
    with pytest.raises(SessionError):
        address(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8085", False),
        ("http://localhost", False),
        ("http://[::1]:8085", False),
        ("https://10.0.0.1", False),
        ("http://10.0.0.1", True),
        ("http://localhost.example.com", True),
    ],
)
def test_plaintext_is_for_this_machine(url: str, *, expected: bool) -> None:
    """A name that only begins like ours is elsewhere."""
    assert is_exposed(address(url)) is expected


def test_forgetting_twice_is_no_error(environment: dict[str, str]) -> None:
    """It says whether there was one."""
    store(SESSION, path_of(environment))
    assert forget(path_of(environment))
    assert not forget(path_of(environment))
