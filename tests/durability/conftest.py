"""What the durability tests share: the library that notes syncs, compiled once a session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.disk import build_shim


@pytest.fixture(scope="session")
def power_cut_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library, or skip (fail in CI) where there is no compiler."""
    if not (shutil.which("cc") or os.environ.get("CI")):
        pytest.skip("there is no C compiler")
    return build_shim(Path(tmp_path_factory.mktemp("shim")))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="tk-") as name:
        yield Path(name)
