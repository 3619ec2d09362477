"""Whose API a call speaks, by its path and one header. Pure.

Anthropic's is spoken at ``messages`` and below. Where a path tells nothing, as ``models`` and what leads nowhere, it is
spoken by who names a version of it. What OpenAI's API alone has is answered in OpenAI's words, whatever else is sent.
"""

from __future__ import annotations

from typing import Final

from catalog.records import ModelType, PublicationRecord
from extauth.credentials.copies import BEFORE_BODY
from extauth.request.call import Asking
from extauth.request.endpoints import MESSAGES, endpoint_of

VERSION_HEADER: Final = "anthropic-version"
"""Anthropic's clients send it with each call (docs.claude.com, API versioning)."""

_BELOW_MESSAGES: Final = r"(count_tokens|batches(/[^?]*)?)"
_END: Final = r"/*(\?.*)?"
MESSAGES_PATHS: Final = rf"(?i)(/[^?]*)?/{MESSAGES}(/{_BELOW_MESSAGES})?{_END}"
"""The paths at which it is spoken, for those who do not know what is published: a regular expression for all of one."""
OTHER_MESSAGES: Final = rf"(?i)(/[^?]*)?/((threads|chat/completions)/[^/?]*|models)/{MESSAGES}(/[^?]*)?{_END}"
"""Of those the ones at which it is not: OpenAI's threads and stored chats have messages too, and a model may be called
so."""


def speaks_anthropic(path: str, publication_path: str, *, names_version: bool) -> bool:
    """Whether a call is to be answered in Anthropic's words.

    ``path``: without the query; ``publication_path``: of the publication whose path it is, "" where none is known.
    ``names_version``: it has the header.
    """
    endpoint = endpoint_of(path, publication_path)
    if endpoint.is_anthropic or endpoint.is_listed:
        return endpoint.is_anthropic
    return names_version or (not endpoint.is_plain and path.endswith(_UNKNOWN_ROOT))


def calls_in_anthropics(asking: Asking, record: PublicationRecord | None) -> bool:
    """Whether who makes a call is refused in Anthropic's words. ``record``: the publication, as far as it is known.

    What a name on a host leads to has no part in it: the caller may not see that, and then it is as if it were not.
    """
    known = record if asking.publication else None
    if known is not None and known.type is not ModelType.OPENAI:
        return False
    path = known.path if known else ""
    return speaks_anthropic(asking.path, path, names_version=asking.names_version)


def may_speak_anthropic(question: bytes) -> bool:
    """Whether it is worth reading whose call this is: a question that speaks of neither is none of Anthropic's API."""
    return any(question.find(mark, 0, BEFORE_BODY) >= 0 for mark in _MARKS)


_MARKS: Final = (VERSION_HEADER.encode(), f"/{MESSAGES}".encode())
_UNKNOWN_ROOT: Final = (f"/{MESSAGES}", f"/{MESSAGES}/count_tokens")
"""How a path ends at which it is spoken below a publication's own, where nobody has looked which that is."""
