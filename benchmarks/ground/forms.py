"""The two forms of the product: its sources, and its hot modules compiled, as the image has them (hatch_build.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from benchmarks import ROOT

SOURCES: Final = "sources"
COMPILED: Final = "compiled"
CHOSEN_BY: Final = "TOLLKEEPER_BENCH_FORM"


def usual() -> str:
    """What is measured where nothing is said: the sources, or what the environment names."""
    return os.environ.get(CHOSEN_BY) or SOURCES


@contextlib.contextmanager
def environment(form: str) -> Iterator[dict[str, str]]:
    """The environment of a process of this form, and the folder that it needs while the body runs."""
    if form == SOURCES:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        subprocess.run([sys.executable, str(ROOT / "hatch_build.py"), "rooms", folder], check=True)
        paths = os.pathsep.join([folder, str(ROOT), str(ROOT / "tests" / "support")])
        yield {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": paths}
