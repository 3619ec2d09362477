"""How many tokens an answer had that did not tell: by its events where they were counted, else by its bytes. Pure.

A JSON answer is a short envelope around its text. A stream wraps each few letters of text in an event of 50 to 300
bytes, so its bytes say as good as nothing of its text, and a ratio learnt of one says nothing of the other. How events
look follows from the endpoint that was called (``Framing``). The figures below are measured
(docs/decisions/0033, ``benchmarks/framing/errors.py``); what a model's own answers showed goes before them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

USUAL_BYTES_PER_TOKEN: Final = 2.5
"""Of text: what JSON takes, the densest measured; English prose takes 5, other languages 2.5 to 8."""

JSON_ENVELOPE_BYTES: Final = 200
"""Of a JSON answer no server sends less around its text; what an answer has above it is taken for text."""

MESSAGES_EVENT_BYTES: Final = 150
"""The longest event of Messages that holds no text: it names no model and no log probabilities, so it is bounded."""


class Framing(enum.IntEnum):
    """How an answer wraps its text. The numbers are stored beside reservations."""

    JSON = 0  # one document
    CHAT = 1  # a stream of chat completions or completions: every event names the model, and has a token or few
    MESSAGES = 2  # a stream of Messages: short events, of one token (local servers) or of dozens (Anthropic's)
    RESPONSES = 3  # a stream of Responses: long events of a token, and the text four times more at its end


STREAM_BYTES_PER_TOKEN: Final[Mapping[Framing, float]] = {
    Framing.CHAT: 110,  # 190 to 370 with a token an event, 110 with two, 75 to 110 with three
    Framing.MESSAGES: 4,  # 4 to 10 of Anthropic's, 110 to 150 of local servers
    Framing.RESPONSES: 110,  # 150 to 460
}
"""Bytes of a stream a token, where nothing else is known: what the densest streams measured take, so that the estimate
is rather too high."""

WIDEST_BYTES_PER_TOKEN: Final[Mapping[Framing, float]] = {
    Framing.CHAT: 380,
    Framing.MESSAGES: 155,
    Framing.RESPONSES: 460,
}
"""The most bytes of a stream a token that were measured: a longer stream has more tokens than its bytes over these."""


class Ratios(NamedTuple):
    """What a publication's answers that told their usage showed of their completions; ``None``: not enough told."""

    json_tokens_per_byte: float | None = None  # of a JSON answer, its envelope included
    stream_tokens_per_byte: float | None = None  # of a stream, its events included
    tokens_per_event: float | None = None  # of a stream

    def with_setting(self, stream_bytes_per_token: float | None) -> Ratios:
        """The same, with what an operator says of streams until they have told; ``None``: nothing is said."""
        if stream_bytes_per_token is None or self.stream_tokens_per_byte is not None:
            return self
        return self._replace(stream_tokens_per_byte=1 / stream_bytes_per_token)


UNTOLD: Final = Ratios()


def framing_of(endpoint: str, *, streams: bool) -> Framing:
    """How the answer to a call of ``endpoint`` (``chat/completions``) is framed; ``streams``: it asked for a stream."""
    return _FRAMINGS.get(endpoint, Framing.CHAT) if streams else Framing.JSON


_FRAMINGS: Final = {"messages": Framing.MESSAGES, "responses": Framing.RESPONSES}


def estimate_completion(
    bytes_sent: int,
    *,
    framing: Framing,
    events: int | None = None,
    bytes_per_token: float = USUAL_BYTES_PER_TOKEN,
    ratios: Ratios = UNTOLD,
) -> int:
    """Say how many tokens an answer had, rather too many than too few; never more than its bytes.

    ``bytes_sent``: of the body, to the caller. ``events``: as counted in passing; ``None``: nobody counted, 0: it was
    no stream, whatever was asked for. ``bytes_per_token``: of text.
    """
    if framing is Framing.JSON or events == 0:
        return _rounded(_of_json(bytes_sent, bytes_per_token, ratios), bytes_sent)
    if events is None:
        return _rounded(_of_stream(bytes_sent, framing, ratios), bytes_sent)
    return _rounded(_of_events(events, bytes_sent, framing, bytes_per_token, ratios), bytes_sent)


def _of_json(bytes_sent: int, bytes_per_token: float, ratios: Ratios) -> float:
    if ratios.json_tokens_per_byte is not None:
        return bytes_sent * ratios.json_tokens_per_byte
    return max(0, bytes_sent - JSON_ENVELOPE_BYTES) / bytes_per_token


def _of_stream(bytes_sent: int, framing: Framing, ratios: Ratios) -> float:
    if ratios.stream_tokens_per_byte is not None:
        return bytes_sent * ratios.stream_tokens_per_byte
    return bytes_sent / STREAM_BYTES_PER_TOKEN[framing]


def _of_events(events: int, bytes_sent: int, framing: Framing, bytes_per_token: float, ratios: Ratios) -> float:
    """An event is a token; of Messages, whose events are bounded, what is longer than they are is text.

    Both ratios that are learnt of streams are bounds that few calls passed, so the lower one is nearer.
    """
    if ratios.tokens_per_event is not None:
        by_bytes = math.inf if ratios.stream_tokens_per_byte is None else bytes_sent * ratios.stream_tokens_per_byte
        return min(events * ratios.tokens_per_event, by_bytes)
    if framing is Framing.MESSAGES:
        return max(events, (bytes_sent - events * MESSAGES_EVENT_BYTES) / bytes_per_token)
    return events


def _rounded(tokens: float, bytes_sent: int) -> int:
    return min(math.ceil(tokens), bytes_sent)
