"""Copies of a key where no key belongs: other headers, cookies, the URL. Pure.

A key is for the gateway, and must not reach a model's server by any way that a client, a library or a proxy in between
has put it. What has a key's form is taken off: a header is removed, of a cookie the crumb. A URL is not mended: it was
written down by all that it came through, so its call is refused and its caller learns of it.

Most questions hold one such text, in the header that presents it; that is counted in the question's bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from catalog.keys.keytext import PREFIX, holds_form

COOKIE: Final = "cookie"
MARK: Final = PREFIX.encode()
"""How a key's text begins, as a question's bytes are counted for it."""
BEFORE_BODY: Final = 160 * 1024
"""What stands in a question before its body is shorter: 60 KiB of headers at most, of which the path is told twice.
Envoy writes a message's fields in the order of their numbers, so a body comes behind all headers."""

MOST_COOKIES: Final = 200
"""Browsers keep some 180 of a site (RFC 6265, 6.1 asks for 50)."""


class Copies(NamedTuple):
    """What is done about them."""

    removed: tuple[str, ...] = ()  # headers by name
    cookie: str = ""  # what is left of the cookies, where one of them is cut out
    in_url: bool = False  # the path, the query or another thing that cannot be removed holds one


NONE: Final = Copies()


def copies_in(headers: Mapping[str, str], url: Collection[str], ending: Collection[str]) -> Copies:
    """Find the copies. ``url``: the path with its query and what else is part of it; ``ending``: headers that end here.

    Cookies that came by several headers are joined by commas, so the crumb beside a copy may go with it.
    """
    removed: list[str] = []
    cookie, in_url = "", any(map(holds_form, url))
    for name, value in headers.items():
        if name in ending or not holds_form(value):
            continue
        if name.startswith(":"):
            in_url = True
        elif name == COOKIE and (left := _without(value)):
            cookie = left
        else:
            removed.append(name)
    return Copies(tuple(removed), cookie, in_url)


def _without(cookies: str) -> str:
    """The cookies but those that hold a copy; "" where there are too many to be looked at one by one."""
    if cookies.count(";") > MOST_COOKIES:
        return ""
    return "; ".join(crumb for one in cookies.split(";") if not holds_form(crumb := one.strip(" ")))
