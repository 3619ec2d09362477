"""Chat completions as OpenAI, vLLM, Ollama and llama.cpp frame them; sources in ``servers.py``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.framing.wire import CREATED, compact, event_of, obfuscation, text_of_each, usage, whole_texts


def _bundled(tokens: Sequence[bytes], size: int) -> list[bytes]:
    return [b"".join(tokens[at : at + size]) for at in range(0, len(tokens), size)]


def _vllm_chunk(delta: dict[str, str], reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, **more}
    head = {"id": "chatcmpl-919b13ab4ff836ac", "object": "chat.completion.chunk", "created": CREATED}
    return {**head, "model": "Qwen/Qwen3-8B", "choices": [choice]}


def vllm(tokens: Sequence[bytes]) -> Iterator[str]:
    """A token is an event, of which no text may come yet."""
    yield event_of({**_vllm_chunk({"role": "assistant", "content": ""}), "prompt_token_ids": None})
    for text in text_of_each(tokens):
        yield event_of(_vllm_chunk({"content": text}, token_ids=None))
    yield event_of(_vllm_chunk({"content": ""}, "stop", stop_reason=None, token_ids=None))
    yield "data: [DONE]\n\n"


def vllm_three(tokens: Sequence[bytes]) -> Iterator[str]:
    """With speculative decoding, or a slow reader: three tokens an event."""
    return vllm(_bundled(tokens, 3))


def vllm_document(text: str, tokens: int) -> str:
    """What vLLM answers without a stream."""
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
    message |= {"function_call": None, "reasoning": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    head = {"id": "chatcmpl-919b13ab4ff836ac", "object": "chat.completion", "created": CREATED}
    tail = {"service_tier": None, "system_fingerprint": None, "usage": usage(tokens), "prompt_logprobs": None}
    more = {"prompt_token_ids": None, "kv_transfer_params": None}
    return compact({**head, "model": "Qwen/Qwen3-8B", "choices": [{**choice, "token_ids": None}], **tail, **more})


def _ollama_chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    head = {"id": "chatcmpl-123", "object": "chat.completion.chunk", "created": CREATED, "model": "mistral-nemo"}
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {**head, "system_fingerprint": "fp_ollama", "choices": choices}


def ollama(tokens: Sequence[bytes]) -> Iterator[str]:
    """Short events."""
    for number, text in enumerate(whole_texts(tokens)):
        yield event_of(_ollama_chunk({"role": "assistant", "content": text} if not number else {"content": text}))
    yield event_of(_ollama_chunk({}, "stop"))
    yield "data: [DONE]\n\n"


def ollama_document(text: str, tokens: int) -> str:
    """What Ollama answers without a stream."""
    head = {"id": "chatcmpl-123", "object": "chat.completion", "created": CREATED, "model": "mistral-nemo"}
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return compact({**head, "system_fingerprint": "fp_ollama", "choices": choices, "usage": usage(tokens)}) + "\n"


def _llama_chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choices = [{"finish_reason": reason, "index": 0, "delta": delta}]
    tail = {"model": "mistral-nemo", "system_fingerprint": "b9222-9a532ae4b", "object": "chat.completion.chunk"}
    return {"choices": choices, "created": CREATED, "id": "chatcmpl-DQIofMZ5LoCi2YtpAep2S2byYsxILhcl", **tail}


def llama(tokens: Sequence[bytes]) -> Iterator[str]:
    """The order of members is that of its source."""
    yield event_of(_llama_chunk({"role": "assistant", "content": None}))
    for text in whole_texts(tokens):
        yield event_of(_llama_chunk({"content": text}))
    yield event_of({**_llama_chunk({}, "stop"), "timings": _llama_timings(len(tokens))})
    yield "data: [DONE]\n\n"


def _llama_timings(tokens: int) -> dict[str, float]:
    pace = {"predicted_ms": 9876.543, "predicted_per_token_ms": 21.50081818181818, "predicted_per_second": 46.509853}
    head = {"cache_n": 0, "prompt_n": 100, "prompt_ms": 473.018, "prompt_per_token_ms": 4.73018}
    return {**head, "prompt_per_second": 211.40844, "predicted_n": tokens, **pace}


def llama_document(text: str, tokens: int) -> str:
    """What llama.cpp answers without a stream."""
    choices = [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": text}}]
    tail = {"model": "mistral-nemo", "system_fingerprint": "b9222-9a532ae4b", "object": "chat.completion"}
    last = {"usage": usage(tokens), "id": "chatcmpl-DQIofMZ5LoCi2YtpAep2S2byYsxILhcl"}
    return compact({"choices": choices, "created": CREATED, **tail, **last, "timings": _llama_timings(tokens)})


def _openai_chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    head = {"id": "chatcmpl-CfmyXmcrxfYmjtAtj7KUUoqPBFb0H", "object": "chat.completion.chunk", "created": CREATED}
    more = {"model": "gpt-4.1-mini-2025-04-14", "service_tier": "default", "system_fingerprint": "fp_24710c7f06"}
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
    return {**head, **more, "choices": choices, "usage": None}


def openai(tokens: Sequence[bytes]) -> Iterator[str]:
    """Every event is filled up."""
    yield event_of({**_openai_chunk({"role": "assistant", "content": "", "refusal": None}), **obfuscation("")})
    for text in whole_texts(tokens):
        yield event_of({**_openai_chunk({"content": text}), **obfuscation(text)})
    yield event_of({**_openai_chunk({}, "stop"), **obfuscation("")})
    yield "data: [DONE]\n\n"


def openai_document(text: str, tokens: int) -> str:
    """Indented, as OpenAI sends it."""
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    details = {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0}
    told = {**usage(tokens), "completion_tokens_details": details}
    head = {"id": "chatcmpl-CfmyXmcrxfYmjtAtj7KUUoqPBFb0H", "object": "chat.completion", "created": CREATED}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    tail = {"usage": told, "service_tier": "default", "system_fingerprint": "fp_24710c7f06"}
    answer = {**head, "model": "gpt-4.1-mini-2025-04-14", "choices": choices, **tail}
    return json.dumps(answer, ensure_ascii=False, indent=2) + "\n"
