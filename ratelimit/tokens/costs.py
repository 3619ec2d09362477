"""What a call did cost when it has ended: the endings table of docs/tokens.md. Pure: no I/O, no clock.

What the server told is charged, whatever was held. The terms under which a call was admitted
(``ratelimit.tokens.terms``) matter where nobody told, and where told usage is not to be believed. The ledger itself is
``ratelimit.tokens.ledger``.
"""

from __future__ import annotations

import enum
import math
from typing import Final, NamedTuple

from ratelimit.tokens.estimates import WIDEST_BYTES_PER_TOKEN, Framing, estimate_completion
from ratelimit.tokens.terms import MAX_TOKENS, Asked, MissingUsage, Terms, Work

TIMED_OUT: Final = frozenset({408, 504})
"""HTTP statuses of a call that was cut off by time: the prompt was read, whatever came of it."""
EVENTS_WITHOUT_TOKENS: Final = 8
"""So many events of a stream may be there for other things than a token: its beginning, its end, its usage."""


class Ended(NamedTuple):
    """How a call ended, as the proxy tells it when the stream is done."""

    status: int  # HTTP status sent to the caller; 0: none was sent
    bytes_sent: int = 0  # of the answer, to the caller
    total: int | None = None  # tokens, as the answer's usage told; None: it did not tell
    prompt: int | None = None  # all of it: what a cache served or was written is in it
    completion: int | None = None  # all of it: reasoning is in it
    aborted: bool | None = None  # whether the caller left before the end; None: the proxy cannot tell
    duration_ms: int | None = None
    withheld: bool = False  # an answer came, and the proxy sent an error of its own instead
    cached: int | None = None  # of the prompt, what a cache served
    cache_written: int | None = None  # of the prompt, what was written into a cache
    reasoning: int | None = None  # of the completion
    events: int | None = None  # of a stream, counted as they passed; None: nobody counted, 0: it was no stream

    @property
    def told(self) -> int | None:
        """What the answer told it cost: its total, or what it told of prompt and completion where that is more."""
        total, prompt, completion = self.total, self.prompt, self.completion
        if total is None and prompt is None and completion is None:
            return None
        return min(MAX_TOKENS, max(total or 0, (prompt or 0) + (completion or 0)))


class Ending(enum.StrEnum):
    """The row of the endings table that a call falls into; also a metric's label."""

    USAGE = "usage"  # the answer told
    NO_USAGE = "no_usage"  # a whole answer that did not tell
    FAILED = "failed"  # 4xx or 5xx: nothing was generated
    NO_ANSWER = "no_answer"  # a timeout, an answer that was withheld, or the caller left before the first header
    ABORTED = "aborted"  # the caller left while the answer came


class Cost(NamedTuple):
    """What an ending costs."""

    ending: Ending
    tokens: int  # 0..10^9
    clamped: bool = False  # the answer told more than is believed of it
    above: int = 0  # tokens of these that were not held


def charge_of(terms: Terms, ended: Ended) -> Cost:
    """Say what an ending costs: the row of the endings table it falls into (docs/tokens.md) and its tokens."""
    told, most = _told_of(terms, ended), _most_believed(terms, ended)
    ending, tokens = _row(terms, ended, None if told is None else min(told, most))
    return Cost(ending, tokens, clamped=told is not None and told > most, above=max(0, tokens - terms.reserved))


def goes_on(terms: Terms, ended: Ended) -> bool:
    """Whether the work goes on after a good answer that has not told what it costs: a later one may tell."""
    return terms.asked.is_background and _is_good(ended) and not _tells_all(ended)


def result_of(ended: Ended) -> Ended | None:
    """What the answer to a later call says of the work that an earlier one began, as that one's own ending.

    ``None`` where it says nothing: usage of nothing is what servers tell of work that is not done.
    """
    if not _is_good(ended) or not _tells_all(ended):
        return None
    return ended._replace(aborted=False, duration_ms=None)


def _is_good(ended: Ended) -> bool:
    return 0 < ended.status < _FIRST_ERROR and not ended.withheld


def _tells_all(ended: Ended) -> bool:
    return bool(ended.told) and (not ended.aborted or _is_of_all(ended))


_FIRST_ERROR: Final = 400


def _told_of(terms: Terms, ended: Ended) -> int | None:
    """What an answer told of its own call: nothing where it speaks of another's, or of work that has yet to be done."""
    if terms.asked.work is Work.FETCHES or (terms.asked.is_background and not ended.told):
        return None
    return ended.told


def _most_believed(terms: Terms, ended: Ended) -> int:
    """How much told usage counts: all of it, or where it may be a lie what was held, or what we saw go by if more."""
    return max(terms.reserved, _measured(terms, ended)) if terms.is_clamped else terms.ceiling


def _row(terms: Terms, ended: Ended, told: int | None) -> tuple[Ending, int]:
    """The row, and what it costs where the answer told so much that is believed."""
    if ended.aborted and 0 < ended.status < _FIRST_ERROR:
        return Ending.ABORTED, _left_midway(terms, ended, told)
    return (Ending.USAGE, told) if told is not None else _untold_row(terms, ended)


def _untold_row(terms: Terms, ended: Ended) -> tuple[Ending, int]:
    if ended.status == 0 or ended.status in TIMED_OUT or ended.withheld:
        goes_on = not ended.status or terms.asked.is_background
        return Ending.NO_ANSWER, _unseen(terms, ended) if goes_on else terms.prompt_estimate
    if ended.status >= _FIRST_ERROR:
        return Ending.FAILED, 0
    if ended.aborted is None:
        return Ending.ABORTED, _left_midway(terms, ended, None)
    return Ending.NO_USAGE, _missing(terms, ended)


def _left_midway(terms: Terms, ended: Ended, told: int | None) -> int:
    """What was told if that was of the whole answer, else at least what was sent until then."""
    if told is None:
        return terms.reserved if terms.asked.is_background else _measured(terms, ended)
    if _is_of_all(ended):
        return told
    prompt = terms.prompt_estimate if ended.prompt is None or terms.is_clamped else ended.prompt
    return max(told, min(terms.bound, prompt + _completion(terms, ended)))


def _is_of_all(ended: Ended) -> bool:
    """Whether usage speaks of all that was sent: a stream may tell its prompt at the start and its answer at the end.

    Who tells of an answer at its end tells a token for every event, but for those that carry none.
    """
    if not ended.events or (ended.completion is None and ended.total is not None):
        return True
    completion = ended.completion or 0
    return completion + max(EVENTS_WITHOUT_TOKENS, completion) >= ended.events


def _unseen(terms: Terms, ended: Ended) -> int:
    """What a server that nobody waited for has done: it read the prompt, and generated for as long as it was asked."""
    if terms.asked.is_background:
        return terms.reserved
    seconds = (ended.duration_ms or 0) / 1_000 if terms.asked.work is Work.GENERATES else 0
    return min(terms.reserved, terms.prompt_estimate + math.ceil(seconds * terms.tokens_per_second))


def _measured(terms: Terms, ended: Ended) -> int:
    """What prompt and answer probably cost by what went by, no more than the call can cost."""
    return min(terms.bound, terms.prompt_estimate + _completion(terms, ended))


def _completion(terms: Terms, ended: Ended) -> int:
    """What of the answer was sent, in tokens; none where it is sound, pictures or numbers."""
    framing = terms.asked.framing
    if terms.asked.work is not Work.GENERATES:
        return 0
    estimate = estimate_completion(
        ended.bytes_sent,
        framing=Framing.CHAT if framing is Framing.JSON and ended.events else framing,  # it streams unasked
        events=ended.events,
        bytes_per_token=terms.bytes_per_token,
        ratios=terms.ratios,
    )
    return min(_most_asked(terms.asked, ended), estimate) if _is_guess(terms, ended) else estimate


def _is_guess(terms: Terms, ended: Ended) -> bool:
    """Whether nothing is known of a stream but its bytes, which say little of its tokens."""
    is_stream = terms.asked.framing is not Framing.JSON
    return is_stream and ended.events is None and terms.ratios.stream_tokens_per_byte is None


def _most_asked(asked: Asked, ended: Ended) -> int:
    """Where a server stops that does as its caller says; one that sent more than so few tokens take does not.

    It may not know the name by which the caller said it, or take 0 for no bound.
    """
    if asked.max_tokens is None:
        return MAX_TOKENS
    most = asked.max_tokens * asked.answers
    return most if ended.bytes_sent <= most * WIDEST_BYTES_PER_TOKEN[asked.framing] else MAX_TOKENS


def _missing(terms: Terms, ended: Ended) -> int:
    """What the policy says; all that was held for work that goes on after its answer."""
    if terms.asked.is_background:
        return terms.reserved
    match terms.missing_usage:
        case MissingUsage.FREE:
            return 0
        case MissingUsage.RESERVATION:
            return terms.reserved
        case MissingUsage.ESTIMATE:
            return _measured(terms, ended)
