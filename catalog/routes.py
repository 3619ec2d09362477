"""The ids of routes and places: how a host, a tenant and a model, or a host and a path, name a record. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

MAX_MODEL_NAME: Final = 256
"""Characters of what callers may say for a model: its name, what its server calls it, an alias."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_FOREIGN: Final = re.compile(r"([a-z0-9-]{1,63})/(.+)")
_DIGEST_BYTES: Final = 20
"""160 bits: nobody finds two texts of one digest."""


def route_id(host: str, tenant: str, name: str) -> str:
    """Name the route of what callers may say for a model: ``api.example.com/tenant-a/my-model``.

    A text that is no plain name goes by its digest, ``api.example.com/tenant-a/:5f2…``: references stand between spaces
    and in bounded places, and callers may send anything.
    """
    if _PLAIN.fullmatch(name):
        return f"{host}/{tenant}/{name}"
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{host}/{tenant}/:{digest}"


def routes_meant(host: str, tenant: str, said: str) -> Iterator[str]:
    """Name the routes that a key of ``tenant`` may mean by what it says for a model; the first that there is counts.

    Its own tenant's come first, whatever they are called, then another's as ``tenant/name``. None where no model can be
    called so.
    """
    return (route_id(host, owner, name) for owner, name in names_meant(tenant, said))


def names_meant(tenant: str, said: str) -> Iterator[tuple[str, str]]:
    """Tell whose model, and which of its names, a key of ``tenant`` may mean by what it says, in that order."""
    if is_model_text(said):
        yield tenant, said
    foreign = _FOREIGN.fullmatch(said)
    if foreign and is_model_text(foreign[2]):
        yield foreign[1], foreign[2]


def is_model_text(text: str) -> bool:
    """Whether a model can be called so: printable, without space at an end, of a bounded length."""
    return 0 < len(text) <= MAX_MODEL_NAME and text.isprintable() and text == text.strip()


def place_id(host: str, path: str) -> str:
    """Name a path's place on a host: ``api.example.com/models/my-model``."""
    return host + path


def path_of(host: str, place: str) -> str:
    """Return the path that a place's id names."""
    return place.removeprefix(host)


def below(host: str, path: str = "") -> str:
    """Return how the ids of all places below a path of a host begin; of all the host's routes and places without."""
    return f"{host}{path}/"
