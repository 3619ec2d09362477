"""The ids of routes and places: how a host, a tenant and a model, or a host and a path, name a record. Pure."""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(r"(?:([a-z0-9-]{1,63})/)?([A-Za-z0-9._-]{1,63})")  # NAME or TENANT/NAME, as models are named


def route_id(host: str, tenant: str, model: str) -> str:
    """Name a model's route on a host: ``api.example.com/tenant-a/my-model``."""
    return f"{host}/{tenant}/{model}"


def route_meant(host: str, tenant: str, named: str) -> str:
    """Name the route that a key of ``tenant`` means by a model's name; "" where there can be none.

    Its own tenant's by name, another's as ``tenant/name``. What callers send becomes a name in the store only where a
    model can be named so.
    """
    found = _NAMED.fullmatch(named)
    return route_id(host, found[1] or tenant, found[2]) if found else ""


def place_id(host: str, path: str) -> str:
    """Name a path's place on a host: ``api.example.com/models/my-model``."""
    return host + path


def path_of(host: str, place: str) -> str:
    """Return the path that a place's id names."""
    return place.removeprefix(host)


def below(host: str, path: str = "") -> str:
    """Return how the ids of all places below a path of a host begin; of all the host's routes and places without."""
    return f"{host}{path}/"
