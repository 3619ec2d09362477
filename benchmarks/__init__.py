"""What Tollkeeper costs, and beside whom: `make bench`. Every module is a command, `python -m benchmarks.NAME`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests" / "support")) if path not in sys.path]
