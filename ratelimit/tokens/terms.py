"""What a call holds back before it runs, and what is written down of it for whoever settles it. Pure: no I/O, no clock.

``terms_of`` says how much must be held. The terms lie in the store beside the reservation, as bytes (``Terms.pack``):
any gate may be the one that hears how the call ended, and needs nothing else. What the ending costs is
``ratelimit.tokens.costs``.
"""

from __future__ import annotations

import enum
import functools
import math
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from ratelimit.tokens.estimates import USUAL_BYTES_PER_TOKEN, Framing, Ratios
from ratelimit.tokens.learned import UNLEARNED, Learned

MAX_TOKENS: Final = 10**9
"""Most tokens of one call, and of one budget."""
BOUND_TOKENS_PER_BYTE: Final = 1
"""No tokenizer that works on bytes makes more tokens than there are bytes; what is held back goes by that."""
USUAL_TOKENS_PER_SECOND: Final = 50.0
"""Of one answer, on the accelerators that chat models usually run on."""
LEAST_HELD: Final = 1
"""A call that may be charged holds this much at least, so that a budget without room refuses it."""


class MissingUsage(enum.StrEnum):
    """What an answer costs that did not say its usage."""

    ESTIMATE = "estimate"  # from what went both ways
    RESERVATION = "reservation"  # all that was held back
    FREE = "free"  # nothing; a call that was cut off is never free


class Work(enum.Enum):
    """What a call has its model's server do, as far as it decides what is held and how an untold answer is charged."""

    __hash__ = object.__hash__  # each is one object, and enum's own is slow

    GENERATES = 0  # a prompt is read and answered
    READS = 1  # its body is read and no token generated: embeddings, moderations, speech by its input
    DRAWS = 2  # pictures are made: held like an answer, and no estimate of bytes is meant
    FORM = 3  # a form of which nothing is known: what it tells is charged, and next to nothing held
    FETCHES = (
        4  # nothing: what work in the background came to is asked for; its usage is charged to the call that began
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """How a publication's tokens are held back."""

    context_tokens: int = 8_192  # most tokens of prompt and one completion together
    adaptive: bool = False  # hold back what calls like it turned out to cost, not the most that it asks for
    missing_usage: MissingUsage = MissingUsage.ESTIMATE
    timeout_ms: int = 600_000  # a call that has not been settled for so long is presumed to have ended
    default_completion_tokens: int = 4_096  # held for an answer to a call that names no most
    clamp_usage: bool = False  # the server is not to be believed: what it tells above the hold is not charged
    media_tokens: int = 2_048  # held for each image or sound that stands in the body
    bytes_per_token: float = USUAL_BYTES_PER_TOKEN  # of text, before anything was learnt
    stream_bytes_per_token: float | None = None  # of streams, events and all, likewise; None: what is usual


class Asked(NamedTuple):
    """What a call says of itself."""

    prompt_bytes: int  # of the whole body, less those of its inline media
    max_tokens: int | None = None  # of one answer, the largest of the fields given; None: it names no most
    choices: int = 1  # answers to each prompt
    prompts: int = 1
    media_parts: int = 0  # inline images and sounds
    framing: Framing = Framing.JSON  # of the answer that is asked for
    says_usage: bool = False  # a server that echoes it would seem to tell usage
    is_background: bool = False  # it is answered before the work is done
    work: Work = Work.GENERATES

    @property
    def answers(self) -> int:
        """How many answers are asked for."""
        return self.choices * self.prompts


class Amounts(NamedTuple):
    """The tokens that ``Terms`` name, in its order."""

    reserved: int
    bound: int
    ceiling: int
    prompt_estimate: int
    presumed: int


class Terms(NamedTuple):
    """What is known of a call when it is admitted; what it is charged in the end follows from this and its ending."""

    reserved: int  # tokens held back
    bound: int  # the most that the call can honestly cost, by its context: no estimate is more
    ceiling: int  # no ending is charged more
    prompt_estimate: int  # what the prompt alone probably costs
    presumed: int  # what it is charged if nobody ever tells how it ended
    missing_usage: MissingUsage
    is_clamped: bool  # told usage counts up to what was held, or what the answer's own size shows
    bytes_per_token: float  # what an answer that does not tell is estimated by: the publication's setting,
    ratios: Ratios  # what its answers showed
    tokens_per_second: float  # and what a call that left before its answer has made its server do
    asked: Asked

    def pack(self) -> bytes:
        """Write the terms in 87 bytes (version 2)."""
        amounts = Amounts(self.reserved, self.bound, self.ceiling, self.prompt_estimate, self.presumed)
        rates = _packed_rates(self.bytes_per_token, self.tokens_per_second, self.ratios)
        return _packed(amounts, _MISSING.index(self.missing_usage), self.is_clamped, self.asked, rates)

    @classmethod
    def unpack(cls, raw: bytes) -> Terms:
        """Read what ``pack`` wrote, here or in the release before; raises ``ValueError`` where it cannot have."""
        version = raw[0] if raw else 0
        if version == _VERSION and len(raw) == _TERMS.size:
            return _read(raw)
        if version == _VERSION_1 and len(raw) == _TERMS_1.size:
            return _read_1(raw)
        raise ValueError(_UNREADABLE)


_VERSION: Final = 2
_TERMS: Final = struct.Struct("<BBBBBIIIIIQIHIIddddd")
_OF_CALL: Final = struct.Struct("<BBBBBIIIIIQIHII").pack
_OF_RATES: Final = struct.Struct("<ddddd").pack
"""The two parts of ``_TERMS``: a call's own, and what all calls of a publication have."""
_SIMPLE: Final = struct.Struct("<BBBBBI4xI8x22xdd24x").unpack
"""Of ``_TERMS`` what decides where an answer told: kinds, reserved, ceiling, and what is never without a value."""
_VERSION_1: Final = 1
_TERMS_1: Final = struct.Struct("<BIIIIBQII")
_SAYS_USAGE, _CLAMPED, _BACKGROUND = 1, 2, 4
_MISSING: Final = tuple(MissingUsage)
_WORKS: Final = tuple(Work)  # by their numbers
_NUMBERS: Final = {work: work.value for work in Work}
_FRAMINGS: Final = tuple(Framing)
_NO_BOUND: Final = 0xFFFFFFFF
_UNKNOWN: Final = -1.0
"""Stands for a ratio that has not been learnt."""
_UNREADABLE: Final = "the terms of a reservation cannot be read"


def _packed(amounts: Amounts, missing: int, is_clamped: bool, asked: Asked, rates: bytes) -> bytes:  # noqa: FBT001  by place: each call has its terms packed
    prompt_bytes, max_tokens, choices, prompts, media_parts, framing, says_usage, is_background, work = asked
    most = _NO_BOUND if max_tokens is None else max_tokens
    flags = says_usage * _SAYS_USAGE | is_clamped * _CLAMPED | is_background * _BACKGROUND
    kinds = (_VERSION, missing, _NUMBERS[work], framing, flags)
    return _OF_CALL(*kinds, *amounts, prompt_bytes, most, choices, prompts, media_parts) + rates


def _packed_rates(bytes_per_token: float, tokens_per_second: float, ratios: Ratios) -> bytes:
    return _OF_RATES(bytes_per_token, tokens_per_second, *[_UNKNOWN if one is None else one for one in ratios])


def _read(raw: bytes) -> Terms:
    """Made by place, in the order of the fields: each ending has its terms read."""
    fields = _TERMS.unpack(raw)
    missing, work, framing, flags, reserved, bound, ceiling, prompt_estimate, presumed = fields[1:10]
    prompt_bytes, most, choices, prompts, media, bytes_per_token, tokens_per_second = fields[10:17]
    is_ours = missing < len(_MISSING) and work < len(_WORKS) and framing < len(_FRAMINGS)
    if not is_ours or not 0 < bytes_per_token < math.inf or not 0 <= tokens_per_second < math.inf:
        raise ValueError(_UNREADABLE)
    max_tokens = None if most == _NO_BOUND else most
    says_usage, is_background = bool(flags & _SAYS_USAGE), bool(flags & _BACKGROUND)
    kinds = (_FRAMINGS[framing], says_usage, is_background, _WORKS[work])
    asked = _new(Asked, (prompt_bytes, max_tokens, choices, prompts, media, *kinds))
    learnt = (_MISSING[missing], bool(flags & _CLAMPED), bytes_per_token, _ratios(fields[17:]), tokens_per_second)
    return _new(Terms, (reserved, bound, ceiling, prompt_estimate, presumed, *learnt, asked))


_new: Final = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""


class Simple(NamedTuple):
    """All that matters of the terms of a call whose own answer tells its usage, which is believed."""

    reserved: int
    ceiling: int
    is_form: bool


def simple_terms(raw: bytes) -> Simple | None:
    """Read so much of what ``Terms.pack`` wrote; ``None`` where more matters, or it cannot be read."""
    if len(raw) != _TERMS.size:
        return None
    version, missing, work, framing, flags, reserved, ceiling, bytes_per_token, speed = _SIMPLE(raw)
    is_ours = version == _VERSION and missing < len(_MISSING) and framing < len(_FRAMINGS) and work < _FETCHES_AT
    if flags or not is_ours or not 0 < bytes_per_token < math.inf or not 0 <= speed < math.inf:
        return None
    return _new(Simple, (reserved, ceiling, work == _FORM_AT))


_FORM_AT: Final = Work.FORM.value
_FETCHES_AT: Final = Work.FETCHES.value
"""The last of all: what calls do whose answers tell of other calls."""


@functools.lru_cache(maxsize=1_024)
def _ratios(learnt: tuple[float, ...]) -> Ratios:
    """Those of a publication, which many of its calls have."""
    return Ratios(*(one if 0 <= one < math.inf else None for one in learnt))


def _read_1(raw: bytes) -> Terms:
    """Read terms of the release before, whose script charges no more than their ceiling: so must whoever settles them.

    It wrote 0 choices for calls that generate nothing. It goes when no call that it admitted can still be running.
    """
    _, reserved, ceiling, prompt_estimate, presumed, missing, prompt_bytes, max_tokens, choices = _TERMS_1.unpack(raw)
    if missing >= len(_MISSING):
        raise ValueError(_UNREADABLE)
    return Terms(
        reserved=reserved,
        bound=ceiling,
        ceiling=ceiling,
        prompt_estimate=prompt_estimate,
        presumed=presumed,
        missing_usage=_MISSING[missing],
        is_clamped=False,
        bytes_per_token=USUAL_BYTES_PER_TOKEN,
        ratios=Ratios(),
        tokens_per_second=USUAL_TOKENS_PER_SECOND,
        asked=Asked(
            prompt_bytes=prompt_bytes,
            max_tokens=None if max_tokens == _NO_BOUND else max_tokens,
            choices=choices or 1,
            work=Work.GENERATES if choices else Work.READS,
        ),
    )


class Basis:
    """What the terms of all calls of a publication have in common, worked out once: its policy and what was learned.

    Strict holds back a token for every byte of its body, the publication's bound for every inline image or sound, and
    all the completion that it asks for (the publication's default where it names no most), but never more than its
    contexts hold. What is left to go on in the background may be charged what it holds, so it holds the most that it
    can cost. Where told usage is clamped, the script's ceiling leaves room for what the answer's size shows.
    """

    __slots__ = ("_learned", "_missing", "_per_byte", "_policy", "_rates", "_ratios", "_tokens_per_second")

    def __init__(self, policy: Policy, learned: Learned = UNLEARNED) -> None:
        self._policy = policy
        self._learned = learned
        learnt, speed = learned.prompt_tokens_per_byte, learned.tokens_per_second
        self._per_byte = 1 / policy.bytes_per_token if learnt is None else learnt
        self._ratios = learned.ratios.with_setting(policy.stream_bytes_per_token)
        self._tokens_per_second = USUAL_TOKENS_PER_SECOND if speed is None else speed
        self._missing = _MISSING.index(policy.missing_usage)
        self._rates = _packed_rates(policy.bytes_per_token, self._tokens_per_second, self._ratios)

    def is_of(self, policy: Policy, learned: Learned) -> bool:
        """Whether it was made of these very objects."""
        return self._policy is policy and self._learned is learned

    def terms(self, asked: Asked) -> Terms:
        """Say how much a call must hold back, and what it will be charged if it does not tell."""
        return Terms(
            *self._amounts(asked),
            missing_usage=self._policy.missing_usage,
            is_clamped=self._is_clamped(asked),
            bytes_per_token=self._policy.bytes_per_token,
            ratios=self._ratios,
            tokens_per_second=self._tokens_per_second,
            asked=asked,
        )

    def held(self, asked: Asked) -> tuple[Amounts, bytes]:
        """The same as far as the script is told: the amounts, and the terms packed."""
        amounts = self._amounts(asked)
        return amounts, _packed(amounts, self._missing, self._is_clamped(asked), asked, self._rates)

    def _is_clamped(self, asked: Asked) -> bool:
        return self._policy.clamp_usage or asked.says_usage

    def _amounts(self, asked: Asked) -> Amounts:
        """Each call has it worked out, so it is one walk."""
        policy, work, prompt_bytes = self._policy, asked.work, asked.prompt_bytes
        answers, media = asked.choices * asked.prompts, asked.media_parts * policy.media_tokens
        prompt_bound = prompt_bytes * BOUND_TOKENS_PER_BYTE + media
        # nothing where all is in a form that nobody has read
        prompt = 0 if work is _FORM else math.ceil(prompt_bytes * self._per_byte) + media
        if work in _GENERATES_NOTHING:
            completion, bound = 0, _bound_of_reading(work, prompt_bound)
        else:
            completion = self._most_completion(asked) * answers
            bound = min(MAX_TOKENS, policy.context_tokens * answers)
        usual = self._expected(asked, completion) if work is _GENERATES else completion
        if policy.adaptive and not asked.is_background and self._is_learned(asked):
            held = min(prompt_bound, prompt) + usual
        else:
            held = prompt_bound + completion
        least = 0 if work is _FETCHES else LEAST_HELD
        reserved = max(least, min(bound, held))
        ceiling = max(reserved, bound) if not least or self._is_clamped(asked) else MAX_TOKENS
        presumed = self._presumed(asked, reserved, min(bound, prompt + usual))
        return _new(Amounts, (reserved, bound, ceiling, min(bound, prompt), presumed))

    def _most_completion(self, asked: Asked) -> int:
        """Of one answer."""
        policy, most = self._policy, asked.max_tokens
        if most is None:
            most = policy.context_tokens if asked.is_background else policy.default_completion_tokens
        return min(most, policy.context_tokens)

    def _expected(self, asked: Asked, most: int) -> int:
        """What usually comes of the completion; all that is held for it before anything was learnt."""
        if asked.max_tokens is None:
            usual = self._learned.unbounded_completion
            return most if usual is None else math.ceil(usual) * asked.answers
        share = self._learned.completion_share
        return most if share is None else math.ceil(most * share)

    def _is_learned(self, asked: Asked) -> bool:
        learned = self._learned
        if asked.work is Work.READS:
            return learned.prompt_tokens_per_byte is not None
        completion = learned.unbounded_completion if asked.max_tokens is None else learned.completion_share
        return asked.work is Work.GENERATES and None not in {learned.prompt_tokens_per_byte, completion}

    def _presumed(self, asked: Asked, reserved: int, expected: int) -> int:
        missing = self._policy.missing_usage
        if asked.is_background or missing is MissingUsage.RESERVATION:
            return reserved
        return min(reserved, expected) if missing is MissingUsage.ESTIMATE else 0


def terms_of(asked: Asked, policy: Policy, learned: Learned = UNLEARNED) -> Terms:
    """Say how much a call must hold back, and what it will be charged if it does not tell."""
    return Basis(policy, learned).terms(asked)


def _bound_of_reading(work: Work, prompt_bound: int) -> int:
    """The most that a call which generates nothing can honestly cost: what there is to read."""
    if work is Work.READS:
        return min(MAX_TOKENS, prompt_bound)
    return LEAST_HELD if work is Work.FORM else 0


_GENERATES, _FORM, _FETCHES = Work.GENERATES, Work.FORM, Work.FETCHES
_GENERATES_NOTHING: Final = frozenset({Work.READS, Work.FORM, Work.FETCHES})
