"""When a body is read: after the key, the route and the endpoint, and only of a call that may pass by them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

from extauth.decide import Decision, Facts
from extauth.records.entries import PublicationEntry
from extauth.request.body import UNREAD
from extauth.request.call import Call
from extauth.request.endpoints import Kind, endpoint_of
from extauth.request.openai import names_stored
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
            calls[index] = read_body_of(call, known.publication)
            named = named or not call.publication or names_stored(calls[index])
    return named


def read_body_of(call: Call, publication: PublicationEntry | None) -> Call:
    """Read a call's body; ``publication``: the one that it is for, as far as that is known without it."""
    path = publication.record.path if publication else ""
    takes_form = endpoint_of(call.path, path).kind is Kind.FORM
    return call.reading(read_body(call.raw, call.content_type, takes_form=takes_form, is_text=call.raw_is_text))
