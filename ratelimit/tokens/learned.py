"""What a publication's calls turned out to cost: pure values, learnt in ``ratelimit.tokens.learning``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.estimates import Ratios


@dataclass(frozen=True, slots=True)
class Learned:
    """95th percentiles of a publication's calls; ``None`` before 200 calls told."""

    prompt_tokens_per_byte: float | None = None
    completion_share: float | None = None  # completion tokens / most asked for, 0..1, of calls that name a most
    completion_tokens_per_byte: float | None = None  # of a JSON answer as sent
    unbounded_completion: float | None = None  # completion tokens of an answer whose call names no most
    tokens_per_event: float | None = None  # of a stream
    tokens_per_stream_byte: float | None = None  # of a stream as sent, framing and all
    tokens_per_second: float | None = None  # from a call's first byte to its answer's last

    @property
    def ratios(self) -> Ratios:
        """What answers that do not tell are estimated by."""
        return Ratios(self.completion_tokens_per_byte, self.tokens_per_stream_byte, self.tokens_per_event)


UNLEARNED: Final = Learned()
