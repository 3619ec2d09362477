"""What can be wrong with the limiter's own files, each with what its operator can do. Constants only."""

from __future__ import annotations

from typing import Final

from runtime.readiness import Ailment

DESCRIPTORS_REFUSED: Final = Ailment(
    "descriptors_refused",
    "Mend the file of descriptors at the line named: the one read before stays in force, but a restart would fail.",
)
