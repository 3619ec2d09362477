"""What lives when a process begins to serve is not walked by later collections."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, time
from runtime.collector import THRESHOLDS, spare_what_lives

table = [[number] for number in range(300_000)]  # lives as long as the process
before = time.perf_counter()
gc.collect()
walked_s = time.perf_counter() - before
spare_what_lives()
table.append([])  # grows later: still out of sight
before = time.perf_counter()
gc.collect()
spared_s = time.perf_counter() - before
assert gc.get_threshold() == THRESHOLDS, gc.get_threshold()
assert gc.get_freeze_count() > 300_000, gc.get_freeze_count()
assert len(gc.get_objects()) < 1_000, len(gc.get_objects())
assert gc.isenabled()
print(walked_s, spared_s)
assert spared_s < walked_s
"""


def test_a_full_collection_does_not_walk_what_was_there_before() -> None:
    """The objects of a process's start are out of the collector's sight, and young ones are still collected."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
