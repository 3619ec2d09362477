"""The file of ordinary descriptors in force: read again when it has changed.

A file that is not good changes nothing: it is counted, told in ``troubles`` and looked at again when it changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ratelimit.descriptors.file import Descriptors
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.reading import DescriptorsError, parse
from ratelimit.descriptors.troubles import DESCRIPTORS_REFUSED
from runtime.files import Mark, mark_of
from runtime.readiness import Trouble

LOOK_S: Final = 1.0
"""How often the file is looked at: one stat."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""A larger file is refused."""

_log: Final = logging.getLogger(__name__)


def read_descriptors(path: Path) -> Descriptors:
    """Read a file; raises ``DescriptorsError`` with its name, the line and the rule."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        return parse(_of_good_size(text).decode())
    except (OSError, UnicodeDecodeError, DescriptorsError) as error:
        raise DescriptorsError(f"{path}: {error}") from error


def _of_good_size(text: bytes) -> bytes:
    if len(text) > MAX_BYTES:
        raise DescriptorsError(f"the file is larger than {MAX_BYTES} bytes")
    return text


class DescriptorFile:
    """``current`` is what to decide by now; ``keep`` is the task that follows the file."""

    def __init__(self, path: Path, metrics: OrdinaryMetrics) -> None:
        """Read the file; raises ``DescriptorsError`` when it is not good."""
        self._path = path
        self._metrics = metrics
        self._mark = mark_of(path)
        self._trouble = ""
        self.current = read_descriptors(path)
        metrics.loads.labels("loaded").inc()
        self._warn()

    def troubles(self) -> tuple[Trouble, ...]:
        """Tell whether the file is not the one in force."""
        return (DESCRIPTORS_REFUSED.found(self._trouble),) if self._trouble else ()

    async def keep(self, use: Callable[[Descriptors], None]) -> None:
        """Look at the file until cancelled; ``use`` is called with whatever comes into force."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                use(self.current)

    def look(self) -> bool:
        """Read the file if it has changed; says whether other limits are in force now."""
        mark = mark_of(self._path)
        if mark == self._mark:
            return False
        try:
            self.current = read_descriptors(self._path)
        except DescriptorsError as error:
            self._refuse(mark, str(error))
            return False
        self._mark, self._trouble = mark, ""
        self._metrics.loads.labels("loaded").inc()
        _log.info("the file of descriptors has changed and is in force: %s", self._path)
        self._warn()
        return True

    def _warn(self) -> None:
        for warning in self.current.warnings:
            _log.warning("the file of descriptors %s, %s", self._path, warning)

    def _refuse(self, mark: Mark | None, trouble: str) -> None:
        self._mark, self._trouble = mark, trouble
        self._metrics.loads.labels("refused").inc()
        _log.error("the file of descriptors has changed and is refused, the one before stays in force: %s", trouble)
