"""The setting that names where Envoy finds what an answer cost, in one word."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator

from ratelimit.tokens.meter import Meter
from runtime.settings import Metavar

_WRITTEN: Final = re.compile(r"([\w./-]+):([\w./-]+),([\w./-]+),([\w./-]+)", re.ASCII)


def parse_meter(value: object) -> object:
    """Read ``NAMESPACE:TOTAL,PROMPT,COMPLETION``; raises ``ValueError``. What is no text is the meter itself."""
    if not isinstance(value, str):
        return value
    if not (found := _WRITTEN.fullmatch(value)):
        raise ValueError(
            "is not NAMESPACE:TOTAL,PROMPT,COMPLETION, each of letters, digits and `._-/`, like"
            " io.envoy.ai_gateway:llm_total_token,llm_input_token,llm_output_token"
        )
    return Meter(*found.groups())


UsageMetadata = Annotated[Meter, BeforeValidator(parse_meter), Metavar("NAMESPACE:TOTAL,PROMPT,COMPLETION")]
"""Dynamic metadata of Envoy: the namespace, and in it the names of the three counts."""
