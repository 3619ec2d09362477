"""Whom the command line talks to, and as whom: the file that ``tollkeeper login`` writes, or the environment.

The file is the user's alone (0600, in a folder of 0700) and is replaced in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

URL: Final = "TOLLKEEPER_URL"
TOKEN: Final = "TOLLKEEPER_TOKEN"  # noqa: S105  a variable's name  # nosec B105
CA: Final = "TOLLKEEPER_CA"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
"""What a header can carry after ``Bearer``."""


class SessionError(Exception):
    """There is no session to work with: one sentence that says what to do."""


class SessionEnded(SessionError):  # noqa: N818  what it says is the name
    """There was one, and its time is over."""


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """An address and who is logged in there. Never printed."""

    url: str  # origin, and a path where the API stands below one; without a slash at its end
    token: str
    username: str = ""  # "" where the token came from the environment
    expires_at: str = ""  # RFC 3339; "" where nobody said
    ca: str = ""  # a file of authorities; "": the system's

    def __repr__(self) -> str:
        return "Session(***)"


def address(text: str) -> str:
    """Check the address of an admin API and return it without a slash at its end; raises ``SessionError``."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_one = is_one and text.isprintable() and " " not in text
    except ValueError:  # brackets of no address, or a port that is none
        is_one = False
    if not is_one:
        raise SessionError(f"{text!r} is no address: give the admin API's, such as https://admin.example.com")
    if parts.username is not None or parts.query or parts.fragment:
        raise SessionError("the address has a scheme, a host and a port; no user, query or fragment")
    return text.rstrip("/")


def is_exposed(url: str) -> bool:
    """Whether a password or token would travel there unencrypted over a network."""
    return urlsplit(url).scheme == "http" and not is_here(url)


def is_here(url: str) -> bool:
    """Whether an address is this machine's own, by its name."""
    return urlsplit(url).hostname in _LOOPBACK


def path_of(environment: Mapping[str, str]) -> Path:
    """Where the session of this user is kept (XDG Base Directory Specification)."""
    base = environment.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
    return folder / "tollkeeper" / "session.json"


def current(environment: Mapping[str, str], now: datetime) -> Session:
    """Return the session to work with; raises ``SessionError`` where there is none, or its time is over."""
    url = environment.get(URL, "")
    if environment.get(TOKEN):
        return _of_environment(environment, url)
    stored = _read(path_of(environment))
    if stored is None:
        raise SessionError("you are not logged in: tollkeeper login URL")
    if url and address(url) != stored.url:
        raise SessionError(f"you are logged in at {stored.url}, not at {url}: tollkeeper login {url}")
    if stored.expires_at and datetime.fromisoformat(stored.expires_at) <= now:
        raise SessionEnded(f"the session ended at {stored.expires_at}: tollkeeper login {stored.url}")
    return stored


def _of_environment(environment: Mapping[str, str], url: str) -> Session:
    """The token of a variable, with its address, else with the stored session's, which is not read otherwise."""
    token = environment[TOKEN].strip()
    if not _TOKEN.fullmatch(token):
        raise SessionError(f"{TOKEN} is no token: it must be one word of ASCII characters")
    ca = environment.get(CA, "")
    if url:
        return Session(address(url), token, ca=ca)
    stored = _read(path_of(environment))
    if stored is None:
        raise SessionError(f"{TOKEN} is set and {URL} is not: set it to the admin API's address")
    return Session(stored.url, token, ca=ca or stored.ca)


def _read(path: Path) -> Session | None:
    """Return the stored session; None: there is none."""
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SessionError(f"{path} cannot be read: remove it and log in again") from error
    names = {one.name for one in fields(Session)}
    if (
        not isinstance(told, dict)
        or not {"url", "token"} <= told.keys()
        or not all(isinstance(value, str) for value in told.values())
    ):
        raise SessionError(f"{path} is no session: remove it and log in again")
    session = Session(**{name: value for name, value in told.items() if name in names})
    try:
        address(session.url)
        ends = datetime.fromisoformat(session.expires_at) if session.expires_at else datetime.now(UTC)
    except (ValueError, SessionError):
        ends = None
    if ends is None or ends.tzinfo is None or not _TOKEN.fullmatch(session.token):
        raise SessionError(f"{path} is no session: remove it and log in again")
    return session


def store(session: Session, path: Path) -> None:
    """Write the session, for its owner's eyes alone; raises ``SessionError``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(asdict(session), indent=1) + "\n")
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}") from error


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step, in place of what is there; raises ``OSError``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def forget(path: Path) -> bool:
    """Remove the stored session; whether there was one. Raises ``SessionError``."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SessionError(f"{path} cannot be removed: {error.strerror}") from error
    return True
