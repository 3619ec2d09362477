"""How many examples slow properties try: few in ``make test``, ten times as many in ``make fuzz``."""

from __future__ import annotations

import os
from typing import Final

_TIMES: Final = int(os.environ.get("TOLLKEEPER_TEST_EXAMPLES_TIMES", "1"))


def examples(few: int) -> int:
    """So many, or as many times so many as is asked."""
    return few * _TIMES
