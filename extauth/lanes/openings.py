"""Calls whose body decides: when a lane lets it be read, and when one says what comes of the call. Pure.

A body is read only of a caller who may pass so far. An *opening* is kept for a key and route of whom that was found
once: it lets the bodies be read of calls that ``decide`` would have read for whoever is behind them, those by POST to
an endpoint that every openai publication passes. What comes of the call is then another lane's to say, found by the
model too. All else about the call, its fields among them, is the slow way's.
"""

from __future__ import annotations

from typing import Final

from extauth.lanes.lane import Lane
from extauth.request.body import Body
from extauth.request.call import Posted
from extauth.request.endpoints import Endpoint, endpoint_of
from extauth.request.packed import is_readable
from extauth.request.permitted import CALLED_BY, needs_body


def usual_endpoint(posted: Posted, publication_path: str) -> Endpoint | None:
    """The endpoint of a call about which nothing decides but its key, its route and its body; ``None`` of others.

    ``publication_path``: of the publication that its route names; "" where the route names a host.
    """
    if posted.method != CALLED_BY or not is_readable(posted.content_encoding, unpacks=posted.unpacks):
        return None
    endpoint = endpoint_of(posted.path, publication_path)
    return endpoint if needs_body(endpoint) else None


def named_with(name: bytes, endpoint: Endpoint, body: Body) -> bytes:
    """The name of the lane for the calls of this opening that name a model, or none: never the opening's own.

    Each API has its own, because what is told of limits has other names there.
    """
    return name + (_OF_ANTHROPIC if endpoint.is_anthropic else _WITH) + body.model.encode(errors="surrogatepass")


_WITH: Final = b"="
_OF_ANTHROPIC: Final = b"~"


def is_plain(body: Body, lane: Lane) -> bool:
    """Whether what a body says besides its model keeps nobody from passing who may call the model."""
    return not body.ids and (not body.background or lane.publication.record.allow_background)
