"""Where every command begins: the rooms that the product is made of are put on the path, then the command line runs.

In the source tree the rooms (``admin``, ``gate``, ``runtime`` …) stand beside this package. Installed from a wheel they
stand inside it, in ``rooms``, so that nobody's site-packages gets a package of those names; PyPI has another
``ratelimit``. See docs/decisions/0025-the-house.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

_INSIDE = Path(__file__).with_name("rooms")


def rooms() -> Path:
    """The folder whose packages the rooms are."""
    return _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[1]


def main() -> None:
    """Run the command ``tollkeeper``."""
    sys.path.insert(0, str(rooms()))
    from tollkeeper.cli import main as command  # noqa: PLC0415  the rooms have to be found first

    command(prog_name="tollkeeper")
