"""What a call's body says of whom it is for and what it may cost, or what is wrong with it. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from extauth.reasons import Reason

MAX_CHOICES: Final = 128
"""Most answers to one prompt (OpenAI's own bound of ``n``)."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """A JSON object, as far as it decides whom a call is for and what it may cost."""

    model: str = ""  # "" where it is absent, null or empty: the path alone names the model
    prompt_bytes: int = 0  # of the whole body, less those of its inline media
    max_tokens: int | None = None  # most tokens of one answer, the largest of all spellings; None: it names no bound
    choices: int = 1  # answers to each prompt, 1..128: the larger of `n` and `best_of`
    prompts: int = 1  # prompts, inputs or documents in one call
    stream: bool = False
    background: bool = False  # it is answered before the work is done
    media_parts: int = 0  # images and sounds that stand in the body itself
    media_bytes: int = 0  # of them, as they stand there: base64
    says_usage: bool = False  # a key at any depth that an echoing server would make look like usage
    ids: tuple[str, ...] = ()  # fields that name what an earlier call made: ("previous_response_id",)


@dataclass(frozen=True, slots=True)
class BodyFault:
    """Why a body is refused, as its caller is told."""

    reason: Reason
    message: str
    param: str | None = None  # the field, as the body spells it
    code: str = ""  # "": the reason's own
    accepts: str = ""  # the encodings that would do, of one that does not


@dataclass(frozen=True, slots=True)
class Unread:
    """A call that may pass as far as its key and its route go: now its body must be read."""


UNREAD: Final = Unread()
