"""What the OpenAI sample understands of a request; fields it does not know are ignored, as real servers do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tollkeeper.samples.words import DEFAULT_DIMENSIONS, MAX_DIMENSIONS

Count = Annotated[int, Field(ge=1, le=16)]
Tokens = Annotated[int, Field(ge=1)]


class ModelCall(BaseModel):
    """Any call names its model."""

    model: str


class StreamOptions(BaseModel):
    """What a stream is to carry."""

    include_usage: bool = False


class Generation(ModelCall):
    """A call that makes text."""

    n: Count = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(BaseModel):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart]

    def text(self) -> str:
        """Return the content as one text."""
        return self.content if isinstance(self.content, str) else " ".join(part.text for part in self.content)


class Chat(Generation):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None

    def prompt(self) -> str:
        """Return all turns as one text."""
        return "\n".join(message.text() for message in self.messages)

    def most_tokens(self) -> int | None:
        """Return the most tokens to make; the newer field counts when both are given."""
        return self.max_completion_tokens or self.max_tokens


class Completion(Generation):
    """``POST /v1/completions``."""

    prompt: str | list[str]
    max_tokens: Tokens = 16

    def text(self) -> str:
        """Return the prompt as one text."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(self.prompt)


class InputText(BaseModel):
    """One part of an input item's content."""

    type: Literal["input_text", "output_text"]
    text: str


class InputItem(BaseModel):
    """One turn of a conversation, as the Responses API has it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]

    def text(self) -> str:
        """Return the content as one text."""
        return self.content if isinstance(self.content, str) else " ".join(part.text for part in self.content)


class Response(ModelCall):
    """``POST /v1/responses``."""

    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    stream: bool = False

    def prompt(self) -> str:
        """Return instructions and all turns as one text."""
        turns = [self.input] if isinstance(self.input, str) else [item.text() for item in self.input]
        return "\n".join([*([self.instructions] if self.instructions else []), *turns])


class Embedding(ModelCall):
    """``POST /v1/embeddings``."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] = DEFAULT_DIMENSIONS

    def texts(self) -> list[str]:
        """Return the texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input
