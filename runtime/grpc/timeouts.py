"""What the header ``grpc-timeout`` says, in milliseconds. Pure.

Up to eight digits and a unit (grpc's PROTOCOL-HTTP2, "Timeout").
"""

from __future__ import annotations

import re
from typing import Final

TIMEOUT_HEADER: Final = "grpc-timeout"
MAX_REMEMBERED: Final = 1_000
"""Most texts whose meaning is kept: a proxy sends one and the same."""

_TEXT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_MS: Final = {b"H": 3_600_000.0, b"M": 60_000.0, b"S": 1_000.0, b"m": 1.0, b"u": 0.001, b"n": 0.000_001}
_NEVER: Final = float("inf")


def read_timeout_ms(text: bytes) -> float:
    """How long the client waits; infinite where it says nothing that can be read."""
    found = _TEXT.fullmatch(text)
    return int(found[1]) * _UNIT_MS[found[2]] if found else _NEVER


class Timeouts:
    """Reads them, each text once. For one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes | str | None, float] = {}

    def ms(self, text: bytes | str | None) -> float:
        """How long the client waits; infinite where it did not say: what is no bytes is its address instead."""
        known = self._known.get(text)
        return self._learn(text) if known is None else known

    def _learn(self, text: bytes | str | None) -> float:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[text] = timeout_ms = read_timeout_ms(text) if isinstance(text, bytes) else _NEVER
        return timeout_ms
