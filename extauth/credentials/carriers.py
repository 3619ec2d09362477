"""Which of a call's headers presents its key. Pure.

Clients name the header differently, and some send a credential of somebody else's beside ours. So the headers are
looked at in an order, and the first whose value has a key's form counts. What the others hold is no matter here: all
of them end at the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from catalog.keys.keytext import PREFIX, TEXT_CHARACTERS, has_form
from extauth.reasons import Reason

PROBES_HEADER: Final = "x-api-key"
"""The publisher's probes come by it, so it is always among those that are looked at."""
BEARER_HEADER: Final = "authorization"
"""The one of which the value has a scheme before it."""
KEY_HEADERS: Final = (PROBES_HEADER, BEARER_HEADER, "api-key", "x-goog-api-key")
"""Where a key may come, in this order: ours and Anthropic's, OpenAI's, Azure's, Google's."""
MOST_KEY_HEADERS: Final = 8
"""Each is looked for in every call."""
CREDENTIAL_HEADERS: Final = (*KEY_HEADERS, "proxy-authorization")
"""What a proxy takes off every call, whatever Check answers; the last is for whoever is asked first."""

MOST_COMMAS: Final = 8
"""In a value that is looked at part by part; no client sends a key more often than this."""

_BEARER: Final = "bearer "
_AS_MOST_WRITE_IT: Final = "Bearer "


Presented = tuple[str, Reason | None]
"""The text: a key's, where one has its form; else what came first in its place, "" where nothing did. And why it counts
for nothing, whatever it is."""
NOTHING: Final[Presented] = "", None
Header = Callable[[str, str], str]
"""Gives a header's value by its name, or the second argument; one that came twice is joined by commas."""


def presented(header: Header, names: Sequence[str]) -> Presented:
    """Find the key: the first of these headers whose value has a key's form.

    One that came twice with equal values came once; with different ones, of which one has a key's form, it presents
    none. ``names``: in lower case.
    """
    instead = NOTHING
    for name in names:
        value = header(name, "")
        if not value:
            continue
        text = value
        if name == BEARER_HEADER:
            text = value[len(_BEARER) :] if value.startswith(_AS_MOST_WRITE_IT) else ""
        if len(text) == TEXT_CHARACTERS and text.startswith(PREFIX):  # ``has_form``, without the call
            return text, None
        found = _closely(value, is_bearer=name == BEARER_HEADER)
        if found[1] or has_form(found[0]):
            return found
        instead = instead if instead[0] else found
    return instead


def _closely(value: str, *, is_bearer: bool) -> Presented:
    """Read a value that is not simply a key: spaces around it, a scheme before it, several of them."""
    if value.count(",") > MOST_COMMAS:
        return value, Reason.KEY_REPEATED if PREFIX in value else None
    parts = [part.strip(" \t") for part in value.split(",")]
    texts = list(dict.fromkeys(_of_bearer(part) if is_bearer else part for part in parts))
    if len(texts) > 1 and any(map(has_form, texts)):
        return texts[0], Reason.KEY_REPEATED
    return (texts[0] if len(texts) == 1 else value), None


def _of_bearer(value: str) -> str:
    return value[len(_BEARER) :].strip(" ") if value[: len(_BEARER)].lower() == _BEARER else ""
