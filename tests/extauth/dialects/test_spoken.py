"""Whose API a call speaks: the gate's word for it, and Envoy's."""

from __future__ import annotations

import re

import pytest

from extauth.dialects.spoken import MESSAGES_PATHS, OTHER_MESSAGES, may_speak_anthropic, speaks_anthropic
from extauth.request.endpoints import LISTED

OWN = "/models/llm"
MESSAGES = [
    "/v1/messages",
    "/v1/messages/",
    "/v1/Messages",
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
    "/v1/messages/batches/msgbatch_1/results",
    "/models/llm/messages",
    "/models/llm/messages/count_tokens",
]
OPENAIS = [
    *(f"/v1/{name}" for name in LISTED if not name.startswith("messages")),
    "/v1/chat/completions/chatcmpl-1/messages",
    "/v1/responses/resp_1",
    "/models/llm/chat/completions",
]
EITHERS = [
    "/v1/models",
    "/v1/models/messages",
    "/v1/files",
    "/v1/threads/thread_1/messages",
    "/v1/v1/messages-or-not",
    "/v1/load_lora_adapter",
    "/nowhere",
    "/v1",
]


@pytest.mark.parametrize("names_version", [False, True])
@pytest.mark.parametrize("path", MESSAGES)
def test_messages_are_anthropics(path: str, *, names_version: bool) -> None:
    """Whatever header comes along."""
    assert speaks_anthropic(path, OWN, names_version=names_version)


@pytest.mark.parametrize("names_version", [False, True])
@pytest.mark.parametrize("path", OPENAIS)
def test_what_openai_alone_has_is_openais(path: str, *, names_version: bool) -> None:
    """Whatever header comes along."""
    assert not speaks_anthropic(path, OWN, names_version=names_version)


@pytest.mark.parametrize("path", EITHERS)
def test_elsewhere_who_names_a_version_speaks_it(path: str) -> None:
    """Models above all, which both ask for by one path."""
    assert speaks_anthropic(path, OWN, names_version=True)
    assert not speaks_anthropic(path, OWN, names_version=False)


def test_below_an_unknown_publications_path() -> None:
    """Who has no key, or a bad one, is refused before anybody looks which publication it is."""
    assert speaks_anthropic("/models/llm/messages", "", names_version=False)
    assert speaks_anthropic("/models/llm/messages/count_tokens", "", names_version=False)
    assert not speaks_anthropic("/models/llm/chat/completions", "", names_version=False)


@pytest.mark.parametrize("path", [*MESSAGES, *OPENAIS, *EITHERS])
@pytest.mark.parametrize("query", ["", "?beta=true", "?x=/v1/messages"])
def test_envoy_knows_messages_by_their_path(path: str, query: str) -> None:
    """Its two expressions say what the gate says of a call that names no version."""
    is_messages = re.fullmatch(MESSAGES_PATHS, path + query) is not None
    is_other = re.fullmatch(OTHER_MESSAGES, path + query) is not None
    assert (is_messages and not is_other) == speaks_anthropic(path, OWN, names_version=False)


def test_a_question_is_read_where_it_may_be_anthropics() -> None:
    """By its path or by its header; a chat's ``messages`` are neither, nor is what stands in a body."""
    assert may_speak_anthropic(b"\x0a/v1/messages\x12")
    assert may_speak_anthropic(b"\x0a\x11anthropic-version\x12\x0a2023-06-01")
    assert not may_speak_anthropic(b'\x0a/v1/chat/completions\x12{"messages":[]}')
    assert not may_speak_anthropic(b"x" * 160 * 1024 + b"/v1/messages")
