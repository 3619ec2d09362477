"""When a body is read: after the key, the route and the endpoint, and only of a call that may pass by them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

from extauth.decide import Decision, Facts
from extauth.reasons import Reason
from extauth.request.body import UNREAD, Body, BodyFault
from extauth.request.call import Call, Posted
from extauth.request.endpoints import Kind, endpoint_of
from extauth.request.members import SLOW_BYTES
from extauth.request.openai import names_stored
from extauth.request.packed import IDENTITY, SMALL_BYTES, PackedError, unpacked
from extauth.request.reading import read_body


def read_bodies(
    calls: MutableMapping[int, Call], facts: Mapping[int, Facts], decide: Callable[[int, Facts], Decision]
) -> bool:
    """Read the bodies, in place, of the calls that ``decide`` lets pass as far as it can without them.

    ``facts``: by a call's index. Returns whether a body named what other records tell of: a model by itself, or what an
    earlier call made. Then they are to be gathered.
    """
    named = False
    for index, known in facts.items():
        call = calls[index]
        if call.is_unread and decide(index, known) is UNREAD:
            path = known.publication.record.path if known.publication else ""
            calls[index] = call.reading(read_posted(call.posted(), path))
            named = named or not call.publication or names_stored(calls[index])
    return named


def read_posted(posted: Posted, publication_path: str) -> Body | BodyFault:
    """Read a body; ``publication_path``: of the publication that it is for, as far as that is known without it."""
    takes_form = endpoint_of(posted.path, publication_path).kind is Kind.FORM
    raw, slow_bytes = posted.raw, SLOW_BYTES
    if posted.content_encoding not in IDENTITY:
        try:
            raw, slow_bytes = unpacked(raw, posted.content_encoding), SMALL_BYTES
        except PackedError as error:
            return BodyFault(Reason.BODY_NOT_JSON, str(error), code="invalid_encoding")
    is_text = posted.raw_is_text
    return read_body(raw, posted.content_type, takes_form=takes_form, is_text=is_text, slow_bytes=slow_bytes)
