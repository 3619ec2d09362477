"""No room is a heap: few files on one level, each package with a word on what it is."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 15
"""Most modules on one level of a room."""


def packages() -> list[Path]:
    """Every package of the product."""
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    return sorted(init.parent for room in rooms for init in (ROOT / room).rglob("__init__.py"))


def test_no_level_has_more_files_than_can_be_taken_in() -> None:
    """What grows beyond it is divided."""
    files = {package: len([one for one in package.glob("*.py") if one.name != "__init__.py"]) for package in packages()}
    assert {str(package.relative_to(ROOT)): count for package, count in files.items() if count > MOST} == {}


def test_every_folder_with_code_is_a_package() -> None:
    """A folder without ``__init__.py`` is found by nobody who looks at packages."""
    known = set(packages())
    strays = {file.parent for top in known for file in top.glob("*/*.py")} - known
    assert strays == set()


def test_an_init_says_what_the_room_is_and_nothing_else() -> None:
    """A docstring alone: re-exports would make cycles, and work at import would be hidden there."""
    for package in packages():
        (only,) = ast.parse((package / "__init__.py").read_text()).body
        assert isinstance(only, ast.Expr)
        assert isinstance(only.value, ast.Constant)
