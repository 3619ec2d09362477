"""What the gate answers a probe call: the publication, or the host of openai models, that the route names. Pure.

No call of a probe goes on to a model, and nothing is taken for it.
"""

from __future__ import annotations

import json
from typing import Final

from catalog.keytext import KeyText
from catalog.probetext import is_proved, prove_answer
from catalog.secrets import Secrets
from extauth.answers import Denial
from extauth.call import Call
from extauth.reasons import WIRE, Reason

PUBLICATION: Final = "publication"
OPENAI_HOST: Final = "openai_host"


def answered(call: Call, secrets: Secrets) -> Denial:
    """Answer a probe; the proof says that it was this gate, and to this probe."""
    kind, name = (PUBLICATION, call.publication) if call.publication else (OPENAI_HOST, call.openai_host)
    body = {kind: name, "proof": prove_answer(KeyText(call.api_key), _told(kind, name), secrets)}
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    return Denial(WIRE[Reason.PROBED].status, headers, json.dumps(body, separators=(",", ":")))


def read_answer(body: bytes, probe: KeyText, secrets: Secrets) -> tuple[str, str] | None:
    """What a gate told a probe: ``PUBLICATION`` or ``OPENAI_HOST``, and which; None where no gate of ours said it."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not all(isinstance(value, str) for value in answer.values()):
        return None
    for kind in (PUBLICATION, OPENAI_HOST):
        if kind in answer and is_proved(answer.get("proof", ""), probe, _told(kind, answer[kind]), secrets):
            return kind, answer[kind]
    return None


def _told(kind: str, name: str) -> str:
    return f"{kind} {name}"
