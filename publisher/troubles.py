"""What can keep publications from being served, each with what its operator can do. Constants only."""

from __future__ import annotations

from typing import Final

from runtime.readiness import Ailment

BEHIND: Final = Ailment(
    "publisher_behind",
    "See that the proxy runs and answers (--envoy-admin-socket, --probe-url), that the folder or the cluster "
    "(--publish-to) can be written, and that the store answers. What was live stays live; it is tried again by itself.",
)
REFUSED: Final = Ailment(
    "publications_refused",
    "GET each publication whose status is failed: its reason says what the proxy refused, or what a probe call found "
    "at its path. Others are not touched by it, and it is tried again by itself.",
)
