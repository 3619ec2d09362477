"""Rows: a path below ``/models/llm`` or the shared ``/v1``, and the endpoint that it is taken for."""

from __future__ import annotations

from typing import Final, NamedTuple

from extauth.request.endpoints import Endpoint, Kind

OWN: Final = "/models/llm"


class Row(NamedTuple):
    """One path."""

    path: str
    endpoint: Endpoint
    own: str = OWN  # the publication's own path, "": not known


def _listed(name: str, kind: Kind) -> tuple[Row, Row]:
    """On the publication's own path and by the shared entry."""
    endpoint = Endpoint(name, kind, is_listed=True, is_anthropic=name.startswith("messages"))
    return Row(f"{OWN}/{name}", endpoint), Row(f"/v1/{name}", endpoint)


def _below(path: str, kind: Kind, *, name: str | None = None, listed: bool = False, owned: bool = False) -> Row:
    is_anthropic = path.startswith("messages")
    endpoint = Endpoint(
        path if name is None else name, kind, is_listed=listed, is_owned=owned, is_anthropic=is_anthropic
    )
    return Row(f"{OWN}/{path}", endpoint)


def _unplain(path: str, name: str) -> Row:
    return Row(f"{OWN}/{path}", Endpoint(name, Kind.OTHER, is_plain=False))


CHAT: Final = Endpoint("chat/completions", Kind.GENERATES, is_listed=True)

ROWS: Final = (
    *_listed("chat/completions", Kind.GENERATES),
    *_listed("completions", Kind.GENERATES),
    *_listed("responses", Kind.GENERATES),
    *_listed("responses/compact", Kind.GENERATES),
    *_listed("messages", Kind.GENERATES),
    *_listed("embeddings", Kind.EMBEDS),
    *_listed("rerank", Kind.EMBEDS),
    *_listed("score", Kind.EMBEDS),
    *_listed("moderations", Kind.EMBEDS),
    *_listed("pooling", Kind.EMBEDS),
    *_listed("classify", Kind.EMBEDS),
    *_listed("tokenize", Kind.COUNTS),
    *_listed("detokenize", Kind.COUNTS),
    *_listed("messages/count_tokens", Kind.COUNTS),
    *_listed("responses/input_tokens", Kind.COUNTS),
    *_listed("audio/speech", Kind.SPEAKS),
    *_listed("images/generations", Kind.PICTURES),
    *_listed("audio/transcriptions", Kind.FORM),
    *_listed("audio/translations", Kind.FORM),
    *_listed("images/edits", Kind.FORM),
    *_listed("images/variations", Kind.FORM),
    # one endpoint, however its path is written
    Row(f"{OWN}/chat/completions/", CHAT),
    Row(f"{OWN}//chat///completions//", CHAT),
    Row(f"{OWN}/Chat/COMPLETIONS", CHAT),
    Row(f"{OWN}/%63hat%2Fcompletions", CHAT),
    Row("/v1/CHAT//completions/", CHAT),
    Row("/v1/chat/completions", CHAT, own=""),
    Row("/v1/models/llm/chat/completions", CHAT, own="/v1/models/llm"),
    Row("/v1/chat/completions", CHAT, own="/v1/models/llm"),
    Row("/v1/chat/completions", CHAT, own="/v1"),
    # what callers have stored
    _below("responses/resp_1", Kind.RUNS, listed=True, owned=True),
    _below("responses/resp_1/input_items", Kind.RUNS, listed=True, owned=True),
    _below("Responses/RESP_1/Cancel", Kind.RUNS, name="responses/resp_1/cancel", listed=True, owned=True),
    _unplain("responses/resp_%2531", "responses/resp_%31"),
    _below("chat/completions/chatcmpl-1/messages", Kind.RUNS, listed=True, owned=True),
    _below("files", Kind.FORM, owned=True),
    _below("FILES/", Kind.FORM, name="files", owned=True),
    _below("files/file-1/content", Kind.STORED, owned=True),
    _below("conversations", Kind.STORED, owned=True),
    _below("conversations/conv_1/items", Kind.STORED, owned=True),
    _below("vector_stores/vs_1/search", Kind.STORED, owned=True),
    _below("fine_tuning/jobs", Kind.RUNS, owned=True),
    _below("uploads/up_1/parts", Kind.STORED, owned=True),
    _below("batches", Kind.BATCHES, owned=True),
    _below("batches/batch_1/cancel", Kind.BATCHES, owned=True),
    _below("messages/batches", Kind.BATCHES, owned=True),
    _below("messages/batches/msgbatch_1/results", Kind.BATCHES, owned=True),
    # models
    Row(OWN, Endpoint("", Kind.MODELS)),
    Row(f"{OWN}/", Endpoint("", Kind.MODELS)),
    _below("models", Kind.MODELS),
    _below("models/llm", Kind.MODELS),
    # what is none of these
    _below("load_lora_adapter", Kind.OTHER),
    _below("audio/voices", Kind.OTHER),
    _below("metrics", Kind.OTHER),
    _below("v1/chat/completions", Kind.OTHER),
    _below("chat", Kind.OTHER),
    _below("filesystem", Kind.OTHER),
    _below("embeddings/x", Kind.OTHER),
    # what servers may read in two ways is nothing
    _unplain("chat/completions/../../files", "chat/completions/../../files"),
    _unplain("chat/completions/%2e%2E/files", "chat/completions/../files"),
    _unplain("./files", "./files"),
    _unplain("%2566iles", "%66iles"),
    _unplain("files%5C1", "files\\1"),
    _unplain("files;v=1", "files;v=1"),
    _unplain("files%3Fx", "files?x"),
    _unplain("files%23x", "files#x"),
    _unplain("files%00", "files\0"),
    _unplain("files%0A", "files\n"),
    _unplain("%", "%"),
    _unplain("tokeni\u017fe", "tokeni\u017fe"),
    _unplain("to\u212aenize", "tokenize"),  # its lower case is that of a Latin k
    _unplain("%ff", "\ufffd"),
    Row("//models/llm/chat/completions", Endpoint("//models/llm/chat/completions", Kind.OTHER, is_plain=False)),
    Row("/models/llm2/files", Endpoint("/models/llm2/files", Kind.OTHER, is_plain=False)),
    Row("", Endpoint("", Kind.OTHER, is_plain=False)),
)
