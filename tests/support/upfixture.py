"""One whole machine for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from upmachine import UpMachine, up_machine

from tests.e2e.proxy import short_folder

PAGE = "https://app.example"
"""The origin of the one page that may call from a browser."""


@pytest.fixture(scope="session")
def up() -> Iterator[UpMachine]:
    """``tollkeeper up`` with the guide's password, free ports and one page that may call; ``up.json`` is ``up.up``.

    Tests share it: each uses names of its own and leaves the samples as they are.
    """
    settings = {"TOLLKEEPER_ADMIN_PASSWORD": "password", "TOLLKEEPER_CORS_ORIGINS": PAGE}
    with short_folder() as folder, up_machine(folder / "state", **settings) as machine:
        yield machine
