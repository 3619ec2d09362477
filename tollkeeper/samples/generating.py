"""What the sample language model makes of a prompt, within its context, and the usage that it tells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tollkeeper.samples.words import reply, tokens

CONTEXT_TOKENS: Final = 8_192
"""Most tokens of a prompt and one answer to it, unless told otherwise."""


class ContextExceededError(ValueError):
    """A prompt that the model cannot hold."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated text, cut at the most tokens asked for and at the end of the context."""

    pieces: list[str]  # its tokens
    is_cut: bool

    @classmethod
    def to(cls, prompt: str, most_tokens: int | None, context_tokens: int) -> Self:
        """Answer a prompt; raises ``ContextExceededError``."""
        room = context_tokens - prompt_tokens([prompt], context_tokens)
        most = room if most_tokens is None else min(room, most_tokens)
        pieces = tokens(reply(prompt))
        return cls(pieces[:most], is_cut=most < len(pieces))

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Counted:
    """The tokens of one call."""

    prompt: int
    completion: int

    @classmethod
    def of(cls, prompt: str, answers: Sequence[Generated]) -> Self:
        """Count a prompt, once, and every answer to it."""
        return cls(len(tokens(prompt)), sum(len(answer.pieces) for answer in answers))

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


def prompt_tokens(texts: Sequence[str], context_tokens: int) -> int:
    """Count the tokens of one call's texts; raises ``ContextExceededError``."""
    asked = sum(len(tokens(text)) for text in texts)
    if asked > context_tokens:
        raise ContextExceededError(f"This model's context is {context_tokens} tokens, and the request has {asked}")
    return asked
