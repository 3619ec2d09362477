"""What a call may cost in tokens before it runs, and what it did cost when it has ended. Pure: no I/O, no clock.

Before: ``terms_of`` says how much must be held back (reserved). After: ``charge_of`` says what the ending costs.
Between them the terms lie in the store beside the reservation, as bytes (``Terms.pack``), because any gate may be the
one that hears how the call ended. The ledger itself is ``ratelimit.tokens.ledger``.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass
from typing import Final

MAX_TOKENS: Final = 10**9
"""Most tokens of one call, and of one budget."""
BOUND_TOKENS_PER_BYTE: Final = 1
"""No tokenizer that works on bytes makes more tokens than there are bytes; what is held back goes by that."""
USUAL_BYTES_PER_TOKEN: Final = 4
"""Of English text, about; what an unlearned prompt or answer is charged by where nobody counted."""
TIMED_OUT: Final = frozenset({408, 504})
"""HTTP statuses of a call that was cut off by time: the prompt was read, whatever came of it."""


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
    choices: int = 1  # `n`: 1..16; 0: nothing is generated, the call costs its prompt (embeddings)


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

    def pack(self) -> bytes:
        """Write the terms in 34 bytes."""
        missing, asked = _MISSING.index(self.missing_usage), self.asked
        max_tokens = _NO_BOUND if asked.max_tokens is None else asked.max_tokens
        fixed = (self.reserved, self.ceiling, self.prompt_estimate, self.presumed, missing)
        return _TERMS.pack(_VERSION, *fixed, asked.prompt_bytes, max_tokens, asked.choices)

    @classmethod
    def unpack(cls, raw: bytes) -> Terms:
        """Read what ``pack`` wrote; raises ``ValueError`` where it cannot have."""
        if len(raw) != _TERMS.size or raw[0] != _VERSION or raw[_MISSING_AT] >= len(_MISSING):
            raise ValueError("the terms of a reservation cannot be read")
        _, reserved, ceiling, prompt_estimate, presumed, missing, prompt_bytes, max_tokens, choices = _TERMS.unpack(raw)
        asked = Asked(prompt_bytes, None if max_tokens == _NO_BOUND else max_tokens, choices)
        return cls(reserved, ceiling, prompt_estimate, presumed, _MISSING[missing], asked)


_VERSION: Final = 1
_TERMS: Final = struct.Struct("<BIIIIBQII")
_MISSING_AT: Final = 17  # the byte that stands for the policy
_MISSING: Final = tuple(MissingUsage)
_NO_BOUND: Final = 0xFFFFFFFF


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
    withheld: bool = False  # an answer came, and the proxy sent an error of its own instead


class Ending(enum.StrEnum):
    """The row of the endings table that a call falls into; also a metric's label."""

    USAGE = "usage"  # the answer told
    NO_USAGE = "no_usage"  # a whole answer that did not tell
    FAILED = "failed"  # 4xx or 5xx: nothing was generated
    NO_ANSWER = "no_answer"  # a timeout, an answer that was withheld, or the caller left before the first header
    ABORTED = "aborted"  # the caller left while the answer came


@dataclass(frozen=True, slots=True)
class Cost:
    """What an ending costs."""

    ending: Ending
    tokens: int  # 0..terms.ceiling
    clamped: bool = False  # the answer told more than the ceiling: its server is not to be believed


def terms_of(asked: Asked, policy: Policy, learned: Learned = UNLEARNED) -> Terms:
    """Say how much a call must hold back, and what it will be charged if it does not tell.

    Strict holds back the most that the call can cost: a token for every byte of its body and all the completion it
    asks for (a whole context where it names no bound), for each choice, but never more than its contexts hold.
    """
    contexts = policy.context_tokens * asked.choices if asked.choices else asked.prompt_bytes * BOUND_TOKENS_PER_BYTE
    ceiling = min(MAX_TOKENS, contexts)
    completion = min(ceiling, _most_completion(asked, policy))
    strict = min(ceiling, asked.prompt_bytes * BOUND_TOKENS_PER_BYTE + completion)
    expected = min(ceiling, _prompt_estimate(asked, learned) + _expected(completion, learned))
    reserved = min(strict, expected) if policy.adaptive and _is_learned(learned) else strict
    return Terms(
        reserved=reserved,
        ceiling=ceiling,
        prompt_estimate=min(ceiling, _prompt_estimate(asked, learned)),
        presumed={
            MissingUsage.ESTIMATE: min(reserved, expected),
            MissingUsage.RESERVATION: reserved,
            MissingUsage.FREE: 0,
        }[policy.missing_usage],
        missing_usage=policy.missing_usage,
        asked=asked,
    )


def charge_of(terms: Terms, ended: Ended, learned: Learned = UNLEARNED) -> Cost:
    """Say what an ending costs: the row of the endings table it falls into (docs/tokens.md) and its tokens."""
    told = _told(ended)
    if ended.aborted and 0 < ended.status < _FIRST_ERROR:
        tokens = max(told or 0, _by_bytes(terms, ended, learned))
        return Cost(Ending.ABORTED, min(tokens, terms.ceiling), clamped=(told or 0) > terms.ceiling)
    if told is not None:
        return Cost(Ending.USAGE, min(told, terms.ceiling), clamped=told > terms.ceiling)
    if ended.status == 0 or ended.status in TIMED_OUT or ended.withheld:
        return Cost(Ending.NO_ANSWER, terms.prompt_estimate)
    if ended.status >= _FIRST_ERROR:
        return Cost(Ending.FAILED, 0)
    if ended.aborted is None:
        return Cost(Ending.ABORTED, min(terms.ceiling, _by_bytes(terms, ended, learned)))
    return Cost(Ending.NO_USAGE, _missing(terms, ended, learned))


_FIRST_ERROR: Final = 400


def _most_completion(asked: Asked, policy: Policy) -> int:
    each = policy.context_tokens if asked.max_tokens is None else asked.max_tokens
    return each * asked.choices


def _is_learned(learned: Learned) -> bool:
    return learned.prompt_tokens_per_byte is not None and learned.completion_share is not None


def _prompt_estimate(asked: Asked, learned: Learned) -> int:
    per_byte = learned.prompt_tokens_per_byte
    return math.ceil(asked.prompt_bytes * (1 / USUAL_BYTES_PER_TOKEN if per_byte is None else per_byte))


def _expected(completion: int, learned: Learned) -> int:
    """What of the completion asked for usually comes; all of it before anything was learned."""
    return math.ceil(completion * (1.0 if learned.completion_share is None else learned.completion_share))


def _by_bytes(terms: Terms, ended: Ended, learned: Learned) -> int:
    """What prompt and answer probably cost, by the bytes that were sent."""
    per_byte = learned.completion_tokens_per_byte
    completion = ended.bytes_sent * (1 / USUAL_BYTES_PER_TOKEN if per_byte is None else per_byte)
    return terms.prompt_estimate + math.ceil(completion)


def _told(ended: Ended) -> int | None:
    """What the answer told it cost: its total, or what it told of prompt and completion."""
    parts = [part for part in (ended.prompt, ended.completion) if part is not None]
    return ended.total if ended.total is not None else sum(parts) if parts else None


def _missing(terms: Terms, ended: Ended, learned: Learned) -> int:
    match terms.missing_usage:
        case MissingUsage.FREE:
            return 0
        case MissingUsage.RESERVATION:
            return terms.reserved
        case MissingUsage.ESTIMATE:
            return min(terms.ceiling, _by_bytes(terms, ended, learned))
