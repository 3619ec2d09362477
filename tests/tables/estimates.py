"""The specification of what an answer is taken for that told no usage. docs/tokens.md explains the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.tokens.estimates import UNTOLD, USUAL_BYTES_PER_TOKEN, Framing, Ratios

LEARNT: Final = Ratios(json_tokens_per_byte=0.2, stream_tokens_per_byte=0.005, tokens_per_event=1.5)
SET: Final = Ratios().with_setting(220)
"""What an operator says of streams."""
JSON, CHAT, MESSAGES, RESPONSES = Framing


@dataclass(frozen=True, slots=True)
class Row:
    """One answer and how many tokens it is taken for."""

    says: str
    framing: Framing
    bytes_sent: int
    tokens: int
    events: int | None = None
    bytes_per_token: float = USUAL_BYTES_PER_TOKEN
    ratios: Ratios = UNTOLD


ROWS: Final = (
    Row("JSON: what is above the envelope is text", JSON, 1_000, 320),
    Row("JSON: an envelope alone is nothing", JSON, 200, 0),
    Row("JSON: by the publication's bytes a token", JSON, 1_000, 200, bytes_per_token=4),
    Row("JSON: as learnt, whatever the setting", JSON, 1_000, 200, bytes_per_token=2, ratios=LEARNT),
    Row("JSON: a stream's bytes a token say nothing of it", JSON, 1_000, 320, ratios=SET),
    Row("JSON where a stream was asked for: no event passed", CHAT, 1_000, 320, events=0),
    Row("chat, nobody counted: by the bytes of a stream", CHAT, 11_000, 100),
    Row("chat, nobody counted: text's bytes a token say nothing of it", CHAT, 11_000, 100, bytes_per_token=5),
    Row("chat, nobody counted: by the publication's", CHAT, 11_000, 50, ratios=SET),
    Row("chat, nobody counted, learnt", CHAT, 11_000, 55, ratios=LEARNT.with_setting(110)),
    Row("chat: what JSON answers showed says nothing of a stream", CHAT, 11_000, 100, ratios=Ratios(0.5)),
    Row("chat, counted: an event is a token, however long", CHAT, 10**6, 100, events=100),
    Row(
        "chat, counted: what an operator says of bytes says nothing of events",
        CHAT,
        11_000,
        100,
        events=100,
        ratios=SET,
    ),
    Row("chat, counted, learnt", CHAT, 10**6, 150, events=100, ratios=LEARNT),
    Row("chat, counted, learnt: by its bytes, if they say less", CHAT, 11_000, 55, events=100, ratios=LEARNT),
    Row("chat, counted, learnt of events alone", CHAT, 11_000, 150, events=100, ratios=Ratios(tokens_per_event=1.5)),
    Row("messages, nobody counted", MESSAGES, 4_000, 1_000),
    Row("messages, nobody counted, by the publication's", MESSAGES, 11_000, 50, ratios=SET),
    Row("messages, counted, a token each", MESSAGES, 13_000, 100, events=100),
    Row("messages, counted, long ones: what is above an event is text", MESSAGES, 20_000, 2_000, events=100),
    Row("messages, counted, learnt", MESSAGES, 40_000, 150, events=100, ratios=LEARNT),
    Row("responses, nobody counted", RESPONSES, 11_000, 100),
    Row("nothing was sent", CHAT, 0, 0),
    Row("JSON, nothing was sent", JSON, 0, 0),
    Row("no byte is more than a token", CHAT, 10, 10, events=100),
)
