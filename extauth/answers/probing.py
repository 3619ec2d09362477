"""What the gate answers a probe call: whom the route names, and whether it was told what the body says. Pure.

No call of a probe goes on to a model, and nothing is taken for it.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from catalog.keys.keytext import KeyText
from catalog.keys.probetext import is_proved, prove_answer
from catalog.keys.secrets import Secrets
from extauth.answers.answers import Denial
from extauth.reasons import WIRE, Reason
from extauth.request.call import Call

PUBLICATION: Final = "publication"
OPENAI_HOST: Final = "openai_host"


class Told(NamedTuple):
    """What a gate told of a probe's route."""

    kind: str  # PUBLICATION or OPENAI_HOST
    name: str  # the publication's uid, or the host
    body_read: bool  # the proxy has read the body for the gate

    def __str__(self) -> str:
        """As it is proved."""
        return f"{self.kind} {self.name}{' body' if self.body_read else ''}"


def answered(call: Call, secrets: Secrets) -> Denial:
    """Answer a probe; the proof says that it was this gate, and to this probe."""
    kind, name = (PUBLICATION, call.publication) if call.publication else (OPENAI_HOST, call.openai_host)
    told = Told(kind, name, call.has_body)
    proof = prove_answer(KeyText(call.api_key), str(told), secrets)
    body = {kind: name, "body_read": told.body_read, "proof": proof}
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    return Denial(WIRE[Reason.PROBED].status, headers, json.dumps(body, separators=(",", ":")))


def read_answer(body: bytes, probe: KeyText, secrets: Secrets) -> Told | None:
    """What a gate told a probe; None where no gate of ours said it."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    for kind in (PUBLICATION, OPENAI_HOST):
        told = Told(kind, str(answer.get(kind, "")), answer.get("body_read") is True)
        if kind in answer and is_proved(str(answer.get("proof", "")), probe, str(told), secrets):
            return told
    return None
