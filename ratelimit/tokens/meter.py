"""What stands where in Envoy's dynamic metadata of a call: whose it is, and what its answer cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

CHECK_NAMESPACE: Final = "envoy.filters.http.ext_authz"
"""What Check said of the call: its ``reservation`` and ``publication``."""
USAGE_NAMESPACE: Final = "tollkeeper.usage"
"""What our filter noted of the answer: ``total``, ``prompt``, ``completion`` and the parts below."""
FAULT: Final = "fault"
"""Noted where it failed to read an answer; what it had found before stands beside."""
ID: Final = "id"
"""The id that the answer itself has, where it was found: a text."""
PARTS: Final = ("cached", "cache_written", "reasoning", "events", "apart")
"""What it notes besides. ``apart``: prompt tokens that ``prompt`` leaves out (Anthropic's of its cache)."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A namespace, and in it the names of the three counts."""

    namespace: str = USAGE_NAMESPACE
    total: str = "total"
    prompt: str = "prompt"
    completion: str = "completion"

    names: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """What stands for what: ``{"total": "llm_total_token"}``."""

    def __post_init__(self) -> None:
        """Note the names; the parts are noted by our own filter alone."""
        parts = {part: part for part in PARTS} if self.namespace == USAGE_NAMESPACE else {}
        names = {"total": self.total, "prompt": self.prompt, "completion": self.completion, **parts}
        object.__setattr__(self, "names", names)

    def __str__(self) -> str:
        """As settings write it: ``NAMESPACE:TOTAL,PROMPT,COMPLETION``."""
        return f"{self.namespace}:{self.total},{self.prompt},{self.completion}"


OWN_METER: Final = Meter()
