"""The variables of the environment that the client reads, as settings: so that they are known, and documented."""

from __future__ import annotations

from pathlib import Path

from runtime.settings import Secret, Settings


class ClientSettings(Settings):
    """Commands that ask the admin API (`login`, `keys` and so on) read these variables; they are no options."""

    url: str | None = None
    """The admin API's address, instead of the session's."""

    token: Secret | None = None
    """A token, instead of the session's: for cron and CI, where nobody logs in."""

    ca: Path | None = None
    """A file of authorities by which the API's certificate is checked, beside `token`."""
