"""The admission log: one JSON line per admitted call, timed by the store's clock in the very reply that admitted it.

For proving that no window ever held more than its limit; not for production traffic.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ratelimit.windows.budgets import Answer, Draw, Taken


class AdmissionLog:
    """Appends to a file; every batch is flushed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, draws: Sequence[Draw], taken: Taken) -> None:
        """Write the admitted calls of one reply."""
        for draw, grant in zip(draws, taken.grants, strict=False):  # no grants where the fence refused all
            if grant.answer is Answer.ADMITTED:
                line = {
                    "now_ms": taken.now_ms,
                    "cost": draw.hits,
                    "tokens": draw.tokens,  # held back
                    "subjects": [subject.name for subject in draw.charge.subjects],
                }
                self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
