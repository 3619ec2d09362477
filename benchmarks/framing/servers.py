"""How servers frame an answer: as one JSON document and as a stream of events. Pure, deterministic.

Written from the servers' sources and from streams that others recorded, not captured here:

- vLLM: ``chat_completion/serving.py`` and ``protocol.py`` (fields that are set, in the order of the models; a token of
  which no whole character comes still is an event).
- Ollama ``/v1``: ``openai/openai.go`` and ``middleware/openai.go`` of 2026-08.
- llama.cpp: ``tools/server/server-task.cpp`` (ordered JSON, chat, Responses and Messages).
- OpenAI: its OpenAPI document and recorded streams in Envoy AI Gateway's tests; ``obfuscation`` fills text up to a
  multiple of 16 characters, as those recorded streams of Responses show it.
- Anthropic: a stream in its Python SDK's tests (``fable-fallback/stream-b-fallback.sse``), whose lengths of events and
  of their padding are taken over in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.framing import chats, messages, responses
from ratelimit.tokens.estimates import Framing


@dataclass(frozen=True, slots=True)
class Framed:
    """One answer, framed both ways."""

    stream: bytes
    events: int  # of the stream, those that say that it is done included
    document: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A server's way to frame; ``tokenizer`` names the vocabulary that its answers are counted by."""

    name: str
    framing: Framing
    tokenizer: str
    stream: Callable[[Sequence[bytes]], Iterator[str]]  # tokens -> events, as they are sent
    document: Callable[[str, int], str]  # text, tokens -> JSON


def framed(server: Server, tokens: Sequence[bytes]) -> Framed:
    """Frame an answer of these tokens both ways."""
    events = [event.encode() for event in server.stream(tokens)]
    text = b"".join(tokens).decode(errors="replace")
    return Framed(b"".join(events), len(events), server.document(text, len(tokens)).encode())


SERVERS: Final = (
    Server("OpenAI chat", Framing.CHAT, "o200k", chats.openai, chats.openai_document),
    Server("vLLM chat", Framing.CHAT, "qwen", chats.vllm, chats.vllm_document),
    Server("vLLM chat, 3 tokens an event", Framing.CHAT, "qwen", chats.vllm_three, chats.vllm_document),
    Server("Ollama chat", Framing.CHAT, "tekken", chats.ollama, chats.ollama_document),
    Server("llama.cpp chat", Framing.CHAT, "tekken", chats.llama, chats.llama_document),
    Server("Anthropic messages", Framing.MESSAGES, "claude", messages.anthropic, messages.messages_document),
    Server("llama.cpp messages", Framing.MESSAGES, "tekken", messages.llama_messages, messages.messages_document),
    Server("OpenAI responses", Framing.RESPONSES, "o200k", responses.responses, responses.responses_document),
    Server("llama.cpp responses", Framing.RESPONSES, "tekken", responses.llama_responses, responses.responses_document),
)
