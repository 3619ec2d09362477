"""What a call may cost in tokens before it runs, and what it did cost when it has ended. Pure: no I/O, no clock.

Before: ``terms_of`` says how much must be held back (reserved). After: ``charge_of`` says what the ending costs.
Between them the terms lie in the store beside the reservation, as bytes (``Terms.pack``), because any gate may be the
one that hears how the call ended. The ledger itself is ``ratelimit.ledger``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

MAX_TOKENS: Final = 10**9
"""Most tokens of one call, and of one budget."""


class MissingUsage(enum.StrEnum):
    """What an answer costs that did not say its usage."""

    ESTIMATE = "estimate"  # from the bytes that went both ways
    RESERVATION = "reservation"  # all that was held back
    FREE = "free"  # nothing; a call that was cut off is never free


@dataclass(frozen=True, slots=True)
class Policy:
    """How a publication's tokens are held back."""

    context_tokens: int = 8_192  # most tokens of prompt and one completion together: no call can cost more per choice
    adaptive: bool = False  # hold back what calls like it turned out to cost, not the most that it could
    missing_usage: MissingUsage = MissingUsage.ESTIMATE
    timeout_ms: int = 600_000  # a call that has not been settled for so long is presumed to have ended


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call says of itself."""

    prompt_bytes: int  # of the whole body
    max_tokens: int | None = None  # the largest of the fields given; None: it names no bound
    choices: int = 1  # `n`: 1..16


@dataclass(frozen=True, slots=True)
class Learned:
    """What a publication's calls turned out to cost: 95th percentiles; ``None`` before 200 calls told."""

    prompt_tokens_per_byte: float | None = None
    completion_share: float | None = None  # completion tokens / max tokens asked x choices, 0..1
    completion_tokens_per_byte: float | None = None  # of the answer's bytes as sent


UNLEARNED: Final = Learned()


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known of a call when it is admitted; what it is charged in the end follows from this and its ending."""

    reserved: int  # tokens held back
    ceiling: int  # no ending is charged more: a context's tokens x choices
    prompt_estimate: int  # what the prompt alone probably costs
    presumed: int  # what it is charged if nobody ever tells how it ended
    missing_usage: MissingUsage
    asked: Asked


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended, as the proxy tells it when the stream is done."""

    status: int  # HTTP status sent to the caller; 0: none was sent
    bytes_sent: int = 0  # of the answer, to the caller
    total: int | None = None  # tokens, as the answer's usage told; None: it did not tell
    prompt: int | None = None
    completion: int | None = None
    aborted: bool | None = None  # whether the caller left before the end; None: the proxy cannot tell
    duration_ms: int | None = None


class Ending(enum.StrEnum):
    """The row of the endings table that a call falls into; also a metric's label."""

    USAGE = "usage"  # the answer told
    NO_USAGE = "no_usage"  # a whole answer that did not tell
    FAILED = "failed"  # 4xx or 5xx: nothing was generated
    NO_ANSWER = "no_answer"  # a timeout, or the caller left before the first header
    ABORTED = "aborted"  # the caller left while the answer came


@dataclass(frozen=True, slots=True)
class Cost:
    """What an ending costs."""

    ending: Ending
    tokens: int  # 0..terms.ceiling
    clamped: bool = False  # the answer told more than the ceiling: its server is not to be believed
