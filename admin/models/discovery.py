"""What a model server's answers mean: is the model ready, and how is it spoken to. Pure.

Two questions are asked: ``GET /v1/models/NAME`` (KServe v1 tells readiness, OpenAI's API describes the model) and
``GET /v1/models`` (OpenAI's list, KServe's list); where they find nothing, two more: ``GET /v2/models/NAME`` (the Open
Inference Protocol, KServe v2, describes the model) and ``GET /v2/models/NAME/ready``.
No word of an answer is shown to anyone: only what it means, and the names of models where one must be chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from admin.models import contexts
from catalog.records import ModelRecord, ModelType, Protocol
from catalog.routes import is_model_text

MAX_TOLD: Final = 20
"""So many of a server's models are told in an error."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer of a model server."""

    status: int  # 0: there was none
    body: Any = None  # parsed JSON; None where it was not
    failure: str = ""  # why there was no answer: "connection refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a model."""

    type: ModelType
    protocol: Protocol
    ready: bool
    message: str = ""  # why it is not ready; empty when it is
    context_tokens: int | None = None  # most of a prompt and its answer together; None: the server told none
    is_locked: bool = False  # it answers nobody without a key of its own, and had none or a wrong one


_KSERVE: Final = Finding(ModelType.TRADITIONAL, Protocol.KSERVE_V1, ready=True)
_KSERVE_V2: Final = Finding(ModelType.TRADITIONAL, Protocol.KSERVE_V2, ready=True)
_OPENAI: Final = Finding(ModelType.OPENAI, Protocol.OPENAI, ready=True)
GRPC: Final = Finding(ModelType.TRADITIONAL, Protocol.GRPC, ready=True)
_PLAIN: Final = Finding(ModelType.TRADITIONAL, Protocol.HTTP, ready=True)


def not_ready(message: str, like: Finding = _PLAIN) -> Finding:
    """A finding of a model that cannot be called now."""
    return replace(like, ready=False, message=message)


UNRECOGNISED: Final = not_ready(
    "the server speaks neither KServe v1 or v2 nor OpenAI's API"
    " (if it speaks HTTP of another kind, register it with type traditional, or publish it with config.modelType)"
)
_NOT_OPENAI: Final = "the server does not speak OpenAI's API"
NOT_OPENAI_BY_GRPC: Final = "a model of protocol grpc is of type traditional"
_DESCRIBES: Final = {"platform", "versions", "inputs", "outputs"}  # of a model, in the Open Inference Protocol
_LOCKED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_NO_SUCH_QUESTION: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


def of_several(findings: Mapping[str, Finding]) -> Finding:
    """What the servers of one model are together, by their URLs: what the first is, and ready where all are as it is.

    The context is the smallest that any of them told.
    """
    first = next(iter(findings.values()))
    told = [one.context_tokens for one in findings.values() if one.context_tokens is not None]
    together = replace(first, context_tokens=min(told, default=None))
    for url, one in findings.items():
        if len(findings) > 1 and (fault := unlike(one, first.type, first.protocol)):
            return not_ready(f"{url}: {fault}", together)
    return together


def unlike(finding: Finding, wanted: ModelType, protocol: Protocol) -> str:
    """Why a server cannot take the calls of a model of this type and protocol; "" where it can."""
    if not finding.ready:
        return finding.message
    if (finding.type, finding.protocol) != (wanted, protocol):
        return f"the server speaks {finding.protocol.value}, and the model's calls are {protocol.value}"
    return ""


def by_name(heard: Heard) -> Finding | None:
    """Read the answer about the model itself; ``None`` when the list must be asked."""
    if not heard.status:
        return not_ready(heard.failure)
    body = heard.body if isinstance(heard.body, dict) else {}
    if heard.status == HTTPStatus.OK and body.get("object") == "model":
        return replace(_OPENAI, context_tokens=contexts.of_card(body))
    if "ready" not in body:
        return None
    if heard.status == HTTPStatus.OK and body["ready"] in (True, "True", "true"):
        return _KSERVE
    return not_ready("the server says that the model is not ready", _KSERVE)


def by_list(name: str, heard: Heard) -> Finding:
    """Read the answer that lists the server's models."""
    if not heard.status:
        return not_ready(heard.failure)
    body = heard.body if isinstance(heard.body, dict) and heard.status == HTTPStatus.OK else {}
    if isinstance(listed := body.get("data"), list):
        names = [entry.get("id") for entry in listed if isinstance(entry, dict)]
        if name not in names:
            return not_ready(f"the server does not list a model named {name}", _OPENAI)
        return replace(_OPENAI, context_tokens=contexts.of_list(name, listed))
    if isinstance(body.get("models"), list):
        return not_ready(f"the server does not serve a model named {name}", _KSERVE)
    if heard.status < HTTPStatus.MULTIPLE_CHOICES or heard.status in _NO_SUCH_QUESTION:
        return UNRECOGNISED
    is_locked = heard.status in _LOCKED
    return replace(not_ready(f"the server answered {heard.status}" + _explained(heard.status)), is_locked=is_locked)


def by_metadata(metadata: Heard, ready: Heard) -> Finding | None:
    """Read the answers of the Open Inference Protocol; ``None`` where they are none of it.

    Readiness is the status alone: servers answer it with an empty body, or with one of several.
    """
    body = metadata.body if isinstance(metadata.body, dict) and metadata.status == HTTPStatus.OK else {}
    told = ready.body if isinstance(ready.body, dict) else {}
    if not (isinstance(body.get("name"), str) and _DESCRIBES & body.keys()) and not isinstance(told.get("ready"), bool):
        return None
    if ready.status == HTTPStatus.OK and told.get("ready", True) is True:
        return _KSERVE_V2
    return not_ready("the server says that the model is not ready", _KSERVE_V2)


def _explained(status: int) -> str:
    if status in _LOCKED:
        return " (upstreamAuth gives it the key that it wants: the header's whole value, as in Bearer …)"
    return " (redirects are not followed)" if status < HTTPStatus.BAD_REQUEST else ""


def unlocked(finding: Finding, said: ModelType | None) -> Finding:
    """Take a server for ready that answers nobody without a key that only the gateway has, by a type that is known."""
    if not finding.is_locked or said is None:
        return finding
    return _OPENAI if said is ModelType.OPENAI else _PLAIN


def as_wanted(finding: Finding, wanted: ModelType | None) -> Finding:
    """Apply a type the operator gave; a server that speaks no known protocol is plain HTTP only if that was said."""
    if wanted is None or (wanted is finding.type and finding.protocol is not Protocol.HTTP):
        return finding
    if wanted is ModelType.OPENAI:
        message = _NOT_OPENAI if finding == UNRECOGNISED else finding.message
        return replace(finding, type=wanted, protocol=Protocol.OPENAI, message=message)
    if finding == UNRECOGNISED or finding.protocol is Protocol.OPENAI:
        return _PLAIN
    return finding


def as_known(finding: Finding, model: ModelRecord) -> Finding:
    """Keep the type and the protocol of a model whose server tells none now: it is away, or tells nothing of use."""
    if finding.ready or finding.protocol is not Protocol.HTTP:
        return finding
    return replace(finding, type=model.type, protocol=model.protocol)


def offered(heard: Heard) -> tuple[str, ...] | Finding:
    """The models of a list in OpenAI's form, each once, or why there is no such list.

    What no model of ours can be called is left out.
    """
    if not heard.status:
        return not_ready(heard.failure)
    if heard.status != HTTPStatus.OK:
        return not_ready(f"the server answered {heard.status}{_explained(heard.status)}")
    listed = heard.body.get("data") if isinstance(heard.body, dict) else None
    if not isinstance(listed, list):
        return not_ready(_NOT_OPENAI)
    ids = [one.get("id") for one in listed if isinstance(one, dict)]
    return tuple(dict.fromkeys(one for one in ids if isinstance(one, str) and is_model_text(one)))


def told_models(models: Sequence[str]) -> str:
    """A server's models for an error, quoted and escaped, a bounded number: ``"llama3.1:8b", "qwen2.5:7b"``."""
    more = f" and {len(models) - MAX_TOLD} more" if len(models) > MAX_TOLD else ""
    return ", ".join(json.dumps(one) for one in models[:MAX_TOLD]) + more
