"""Write down what the chart renders now for each set of values: ``make helm-golden``, then read the difference."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

from helmchart import GOLDEN, SETS, as_golden, rendered  # noqa: E402  found by the line above
from kubeapi import programs  # noqa: E402  same

if __name__ == "__main__":
    for name in SETS:
        (GOLDEN / f"{name}.yaml").write_text(as_golden(rendered(programs() / "helm", name)))
