"""How many calls were refused because the secrets file lacks a pepper: of the file in use alone. Thread-safe."""

from __future__ import annotations

from collections.abc import Callable


class _Count:
    """Calls that were refused under one state of the secrets file; added to by the thread that decides."""

    def __init__(self) -> None:
        self.calls = 0

    def add(self, calls: int) -> None:
        self.calls += calls


class UnknownPeppers:
    """Counts by the secrets that a batch was decided with: one begun before a new file must not blame the new one."""

    def __init__(self) -> None:
        self._count = _Count()

    @property
    def calls(self) -> int:
        """Calls refused since the secrets in use came."""
        return self._count.calls

    def counter(self) -> Callable[[int], None]:
        """Give what counts for a batch; to be asked for before it is decided."""
        return self._count.add

    def renew(self) -> None:
        """Begin anew; to be called when new secrets are in use."""
        self._count = _Count()
