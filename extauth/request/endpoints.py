"""Which endpoint of a model's server a path leads to, and what sort of work is done there. Pure.

Servers differ in how they read a path: some fold its case, most take a doubled or a trailing slash for none, all undo
escapes once. So a path is read here as the most forgiving of them would, and what is none of the known names is
``OTHER``, which nobody may call unless its publication says so.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

OPENAI_ROOT: Final = "/v1"
"""Below it a host's openai models are called by the body's ``model``."""
MAX_READY: Final = 4_096
"""Paths whose endpoint is kept ready, some 1,000 bytes each, and as many without their root: of many publications all
call the same few. Those not asked for longest are read again."""
MAX_READY_PATH: Final = 128
"""Longest path, in characters, whose endpoint is kept ready."""


class Kind(enum.Enum):
    """What sort of work an endpoint does, hence what its calls hold and cost."""

    __hash__ = object.__hash__  # each is one object, and enum's own is slow

    GENERATES = enum.auto()  # a prompt is answered: chat/completions, completions, responses, messages
    EMBEDS = enum.auto()  # a prompt is read and nothing generated: embeddings, rerank, score, moderations, …
    COUNTS = enum.auto()  # no model runs: tokenize, detokenize, messages/count_tokens, responses/input_tokens
    SPEAKS = enum.auto()  # audio/speech: held and charged by its input
    PICTURES = enum.auto()  # images/generations
    FORM = enum.auto()  # takes a multipart form: audio/transcriptions, images/edits, …, the upload to files
    STORED = enum.auto()  # what an earlier call made and is only kept: files/ID, conversations, …
    RUNS = enum.auto()  # what an earlier call made, and what may have a model run again: responses/ID, threads/ID/runs
    BATCHES = enum.auto()  # work that is done later: batches, messages/batches
    MODELS = enum.auto()  # the models: the gate answers reads of them itself
    OTHER = enum.auto()  # whatever else a server may have below its /v1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a model's server, below its ``/v1``."""

    name: str  # "chat/completions", "responses/resp_1": lower case, no slash at either end; "": /v1 itself
    kind: Kind
    is_listed: bool = False  # an openai publication passes it without saying so
    is_owned: bool = False  # what lies there was made by somebody's earlier call, and is theirs: responses/ID, files
    is_plain: bool = True  # all servers read the path alike; what they may not is within nothing
    is_anthropic: bool = False  # Anthropic's API alone has it: messages and what lies below

    def is_within(self, names: Iterable[str]) -> bool:
        """Whether it is one of these endpoints or lies below one: ``files/ID/content`` within ``("files",)``."""
        return self.is_plain and any(self.name == name or self.name.startswith(f"{name}/") for name in names)


MESSAGES: Final = "messages"
LISTED: Final[Mapping[str, Kind]] = {
    "chat/completions": Kind.GENERATES,
    "completions": Kind.GENERATES,
    "responses": Kind.GENERATES,
    "responses/compact": Kind.GENERATES,
    MESSAGES: Kind.GENERATES,
    "embeddings": Kind.EMBEDS,
    "rerank": Kind.EMBEDS,
    "score": Kind.EMBEDS,
    "moderations": Kind.EMBEDS,
    "pooling": Kind.EMBEDS,
    "classify": Kind.EMBEDS,
    "tokenize": Kind.COUNTS,
    "detokenize": Kind.COUNTS,
    f"{MESSAGES}/count_tokens": Kind.COUNTS,
    "responses/input_tokens": Kind.COUNTS,
    "audio/speech": Kind.SPEAKS,
    "images/generations": Kind.PICTURES,
    "audio/transcriptions": Kind.FORM,
    "audio/translations": Kind.FORM,
    "images/edits": Kind.FORM,
    "images/variations": Kind.FORM,
}
"""The endpoints that every openai publication passes, by name."""

RESPONSES: Final = "responses"
STORED_BELOW: Final = (RESPONSES, "chat/completions")
"""Endpoints below which lies what calls of them stored; it passes where they do, for whom it belongs to."""
BATCHES: Final = ("batches", f"{MESSAGES}/batches")
STORED: Final = ("files", "uploads", "conversations", "vector_stores", "containers", "assistants")
RUNS: Final = ("threads", "videos", "fine_tuning", "evals")
"""Endpoints that are nothing but what calls have stored; a publication passes them only where it says so."""
UPLOAD: Final = "files"
MODELS: Final = "models"


def endpoint_of(path: str, publication_path: str) -> Endpoint:
    """Find the endpoint that a path leads to, below its publication's own path or else below the shared ``/v1``.

    ``path``: as Envoy normalised it, without the query: ``/models/llm/chat/completions``. ``publication_path``: of the
    publication that is called, whichever way: ``/models/llm``; "" where none is known.
    """
    return (_ready if len(path) <= MAX_READY_PATH else _found)(path, publication_path)


def _found(path: str, publication_path: str) -> Endpoint:
    for root in (publication_path, OPENAI_ROOT):
        if root and path == root:
            return _below("")
        if root and path.startswith(f"{root}/"):
            rest = path[len(root) + 1 :]
            return _below(rest) if len(rest) <= MAX_READY_PATH else _read(rest)
    return Endpoint(path.lower(), Kind.OTHER, is_plain=False)


_ready = functools.lru_cache(maxsize=MAX_READY)(_found)


def is_result(endpoint: Endpoint) -> bool:
    """Whether its answer may be the result of work in the background: ``responses/ID``, ``responses/ID/cancel``."""
    root, _, rest = endpoint.name.partition("/")
    name, _, act = rest.partition("/")
    return endpoint.is_plain and endpoint.is_owned and root == RESPONSES and name != "" and act in {"", "cancel"}


def _read(rest: str) -> Endpoint:
    """Read what follows the root: ``Chat//Completions/`` is ``chat/completions``."""
    text = unquote(rest, errors="replace")
    segments = [segment for segment in text.lower().split("/") if segment]
    name = "/".join(segments)
    is_plain = text.isascii() and text.isprintable() and _MARKS.isdisjoint(text) and _DOTS.isdisjoint(segments)
    return _of_name(name) if is_plain else Endpoint(name, Kind.OTHER, is_plain=False)


_below = functools.lru_cache(maxsize=MAX_READY)(_read)
_MARKS: Final = frozenset("%\\;?#")
"""Left in a path whose escapes were undone once, they mean one thing to one server and another to the next."""
_DOTS: Final = frozenset({".", ".."})


def _of_name(name: str) -> Endpoint:
    is_anthropic = name == MESSAGES or name.startswith(f"{MESSAGES}/")
    if name in LISTED:
        return Endpoint(name, LISTED[name], is_listed=True, is_anthropic=is_anthropic)
    if name == UPLOAD:
        return Endpoint(name, Kind.FORM, is_owned=True)
    other = Endpoint(name, Kind.OTHER, is_anthropic=is_anthropic)
    if not name or other.is_within((MODELS,)):
        return Endpoint(name, Kind.MODELS)
    for roots, kind, is_listed in _OWNED:
        if other.is_within(roots):
            return Endpoint(name, kind, is_listed=is_listed, is_owned=True, is_anthropic=is_anthropic)
    return other


_OWNED: Final = (
    (BATCHES, Kind.BATCHES, False),
    (STORED, Kind.STORED, False),
    (RUNS, Kind.RUNS, False),
    (STORED_BELOW, Kind.RUNS, True),
)
