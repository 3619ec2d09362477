"""What the gate makes of a question in KServe's words: whose answer it is, what is wrong with it, what it says. Pure.

``predict``, ``infer`` and their like are calls of a model. What its server tells of the model (status, metadata,
readiness) is asked of the server, and priced as a list of models is; whether there is a server at all the gate answers.
"""

from __future__ import annotations

import json
from typing import Final

from catalog.records import ModelType, PublicationRecord
from extauth.kserve.paths import Act, Asked, asked_of
from extauth.reasons import Reason
from extauth.request.body import BodyFault
from extauth.request.call import Call

_READS: Final = frozenset({"GET", "HEAD"})
_NOT_SO: Final = "This model does not speak KServe's protocols: its calls go below /v1, by the body's 'model'."


def asked_by(call: Call) -> Asked | None:
    """What a call asks whose path names the model; ``None`` where that is nothing, or its path names none."""
    return asked_of(call.path, is_own=bool(call.publication)) if call.by_path else None


def is_question(asked: Asked, call: Call) -> bool:
    """Whether it is about the model or the server; whatever is no plain read of that is a call."""
    return asked.act is not Act.CALLS and call.method in _READS


def is_card(asked: Asked, call: Call, record: PublicationRecord) -> bool:
    """Whether it is OpenAI's question about one model, which has the path of KServe's status: what N is decides."""
    is_status = asked.protocol == "v1" and asked.act is Act.TELLS and not asked.base
    return is_status and record.type is ModelType.OPENAI and call.method in _READS


def path_fault(asked: Asked, call: Call, record: PublicationRecord) -> Reason | BodyFault | None:
    """Say why a publication that the caller may call is not to be asked so; ``None`` where it is.

    A server that was found to speak one of the protocols may be asked in the other: KServe's own speaks both.
    """
    if asked.base and asked.base != record.path:
        return Reason.NO_PUBLICATION
    if asked.of_server:
        return None if is_question(asked, call) else Reason.NO_PUBLICATION
    if asked.base and asked.name not in record.names:
        return Reason.MODEL_NOT_FOUND
    return None if record.is_said_by_path else BodyFault(Reason.ENDPOINT_NOT_ALLOWED, _NOT_SO)


def said_of_server(asked: Asked) -> str:
    """The answer about the server: one that can be asked is there, and ready."""
    return _SAID[asked.act]


_SAID: Final = {
    act: json.dumps(answer, separators=(",", ":"))
    for act, answer in {
        Act.STATUS: {"status": "alive"},
        Act.LIVE: {"live": True},
        Act.READY: {"ready": True},
        Act.METADATA: {"name": "tollkeeper", "version": "", "extensions": []},
    }.items()
}
