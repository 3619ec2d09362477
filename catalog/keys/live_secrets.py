"""The secrets in force in a process that runs: read again when their file has changed.

A file that is not good changes nothing: it is counted, told in ``troubles`` and looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from catalog.keys.metrics import SecretsMetrics
from catalog.keys.secrets import Secrets, SecretsError, load_secrets
from catalog.troubles import SECRETS_REFUSED
from runtime.files import Mark, mark_of
from runtime.readiness import Trouble

LOOK_S: Final = 1.0
"""How often the file is looked at: one stat. Whoever waits a few of these after a change is known everywhere."""

_log: Final = logging.getLogger(__name__)


class LiveSecrets:
    """``current()`` is what to use now; ``keep`` is the task that follows the file."""

    def __init__(self, path: Path, metrics: SecretsMetrics) -> None:
        """Read the file; raises ``SecretsError`` when it is not good."""
        self._path = path
        self._metrics = metrics
        self._mark = mark_of(path)
        self._secrets = load_secrets(path)
        self._trouble = ""
        metrics.loaded(self._secrets)

    def current(self) -> Secrets:
        """Return the secrets in force."""
        return self._secrets

    def troubles(self) -> tuple[Trouble, ...]:
        """Tell whether the file is not the one in force."""
        return (SECRETS_REFUSED.found(self._trouble),) if self._trouble else ()

    async def keep(self, use: Callable[[Secrets], None] = lambda _secrets: None) -> None:
        """Look at the file until cancelled; ``use`` is called with whatever comes into force."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                use(self._secrets)

    def look(self) -> bool:
        """Read the file if it has changed; says whether other secrets are in force now."""
        mark = mark_of(self._path)
        if mark == self._mark:
            return False
        try:
            secrets = load_secrets(self._path)
        except SecretsError as error:
            self._refuse(mark, str(error))
            return False
        self._mark, self._secrets, self._trouble = mark, secrets, ""
        self._metrics.loaded(secrets)
        _log.info("the secrets file has changed and is in force: %s", self._path)
        return True

    def _refuse(self, mark: Mark | None, trouble: str) -> None:
        self._mark, self._trouble = mark, trouble
        self._metrics.refused()
        _log.error("the secrets file has changed and is refused, the one before stays in force: %s", trouble)
