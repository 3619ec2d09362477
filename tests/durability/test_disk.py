"""The instrument itself: a small program loses its power, and the folder holds what the model says."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability.disk import Cut, Disk


@pytest.fixture
def disk(power_cut_library: Path, tmp_path: Path) -> Disk:
    """An empty folder."""
    (tmp_path / "root").mkdir()
    return Disk(tmp_path / "root", power_cut_library, tmp_path / "notes")


def run(disk: Disk, program: str) -> None:
    """Run lines of Python in the folder, then kill it without a word."""
    disk.arm()
    lines = f"import os\nfrom pathlib import Path\n{program}\nos.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", lines], cwd=disk.root, env=dict(disk.environment), check=False)
    assert disk.journal().loaded == 1


def held(disk: Disk) -> dict[str, str]:
    """Every file with its content."""
    return {str(one.relative_to(disk.root)): one.read_text() for one in disk.root.rglob("*") if one.is_file()}


WRITE = """
file = os.open("a", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.write(file, b"synced ")
os.{sync}(file)
os.write(file, b"not synced")
"""


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_what_was_not_synced_is_lost(disk: Disk, sync: str) -> None:
    """The worst cut leaves what a file held at its last sync."""
    run(disk, WRITE.format(sync=sync))
    assert held(disk) == {"a": "synced not synced"}
    assert disk.cut() == Cut(lost_bytes=10, lost_names=0)
    assert held(disk) == {"a": "synced "}


def test_a_random_cut_leaves_a_beginning(disk: Disk) -> None:
    """Whatever is left begins with what was synced."""
    run(disk, WRITE.format(sync="fsync"))
    disk.cut(random.Random(7))
    assert "synced not synced".startswith(held(disk)["a"])
    assert held(disk)["a"].startswith("synced ")


def test_a_file_without_a_sync_is_not_there(disk: Disk) -> None:
    """Neither its name nor its content."""
    run(disk, 'Path("a").write_text("gone")')
    assert disk.cut().lost_names == 1
    assert held(disk) == {}


def test_names_come_with_any_later_sync_and_content_with_its_own(disk: Disk) -> None:
    """A rename before another file's sync is on the disk; what its file held is not."""
    run(
        disk,
        """
Path("old").write_text("old")
file = os.open("old", os.O_RDONLY)
os.fsync(file)
Path("new").write_text("new")
os.rename("new", "old")
os.mkdir("folder")
file = os.open("folder/other", os.O_CREAT | os.O_WRONLY)
os.fsync(file)
os.rename("folder/other", "late")
""",
    )
    assert disk.cut().lost_names == 1
    assert held(disk) == {"old": "", "folder/other": ""}


def test_a_rename_without_a_sync_is_undone(disk: Disk) -> None:
    """The file that it replaced is back, as it was synced; so is one that was removed."""
    (disk.root / "before").write_text("from the last life")
    run(
        disk,
        """
for name in ("a", "b"):
    file = os.open(name, os.O_CREAT | os.O_WRONLY)
    os.write(file, name.encode())
    os.fsync(file)
os.rename("b", "a")
os.unlink("before")
""",
    )
    assert held(disk) == {"a": "b"}
    disk.cut()
    assert held(disk) == {"a": "a", "b": "b", "before": "from the last life"}


def test_what_was_cut_off_stays_off(disk: Disk) -> None:
    """A file that was made shorter is not longer after the cut."""
    (disk.root / "a").write_text("123456")
    run(disk, 'os.truncate("a", 3)\nfile = os.open("a", os.O_WRONLY | os.O_APPEND)\nos.write(file, b"789")')
    disk.cut()
    assert held(disk) == {"a": "123"}
