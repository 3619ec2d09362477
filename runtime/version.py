"""The product's version: what ``--version`` says and the API's document; and whether it is compiled."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final

VERSION: Final = "0.1.0"
"""As in pyproject.toml, which an image has not."""

_HOT: Final = "runtime.tallies"
"""One of the modules that are compiled together (pyproject.toml)."""


def is_compiled() -> bool:
    """Whether the hot modules are machine code here (``hatch_build.py``), or Python as everything else."""
    found = find_spec(_HOT)
    return found is not None and (found.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
