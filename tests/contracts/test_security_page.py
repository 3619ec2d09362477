"""docs/security.md names a test for each promise: the tests are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<test>\w+)`")


@cache
def _tests_of(file: str) -> frozenset[str]:
    path = _ROOT / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_named_test_exists() -> None:
    """A test that is renamed or removed takes its promise along, or the page is changed."""
    named = [(match["file"], match["test"]) for match in _NAMED.finditer(_PAGE)]
    assert len(named) > 50
    assert [f"{file}::{test}" for file, test in named if test not in _tests_of(file)] == []


def test_every_promise_names_its_proof() -> None:
    """No row of a table of promises is without a test, or a measurement that can be made again."""
    tables = _PAGE.partition("## What is promised")[2].partition("## What is not defended")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 30
    assert [row for row in rows if not _NAMED.search(row) and "`make " not in row] == []
