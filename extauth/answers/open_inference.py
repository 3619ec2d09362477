"""Refusals in the words of the Open Inference Protocol, whose ``error`` is a text. Pure.

Its clients show that text, and some fail at anything else. What our refusals say besides stands beside it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from extauth.answers.answers import Denial
from extauth.kserve.telling import asked_by
from extauth.request.call import Asking


def speaks_it(asking: Asking) -> bool:
    """Whether a call is made by the second protocol; ``/v1/models/NAME`` may be OpenAI's."""
    if not asking.by_path:
        return False
    call = asking.read()
    asked = asked_by(call)
    return asked.protocol == "v2" if asked and asked.protocol else "/v2" in call.path


def in_its_words(denial: Denial) -> Denial:
    """Return the same refusal."""
    error: dict[str, Any] = json.loads(denial.body)["error"]
    message = error.pop("message")
    return replace(denial, body=json.dumps({"error": message, **error}, separators=(",", ":")))
