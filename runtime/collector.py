"""How Python's garbage collector is set in a process that answers within milliseconds.

A full collection walks everything that lives, and no other thread runs meanwhile. What a process has built when it
begins to serve lives as long as the process: it is taken out of the collector's sight (``gc.freeze``), the tables that
grow later included. What comes later is collected as ever: mostly by counting references, cycles while they are young,
and old cycles now and then.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (5_000, 20, 20)
"""A young collection each 5,000 objects more, an old one each 400 of them at the earliest."""


def spare_what_lives() -> None:
    """Leave what is alive now out of every later collection. To be called once, when the process begins to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
