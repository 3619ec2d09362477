"""One whole machine for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from upmachine import UpMachine, up_machine

from tests.e2e.proxy import short_folder


@pytest.fixture(scope="session")
def up() -> Iterator[UpMachine]:
    """``tollkeeper up`` with the guide's password and free ports; its ``up.json`` is ``up.up``.

    Tests share it: each uses names of its own and leaves the samples as they are.
    """
    with short_folder() as folder, up_machine(folder / "state", TOLLKEEPER_ADMIN_PASSWORD="password") as machine:
        yield machine
