"""Where a publication may stand: the syntax of hosts and paths, what is reserved, what takes another's calls.

Pure. These strings go into the proxy's configuration, so what is not plainly allowed is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from catalog import inference
from catalog.records import ModelType

MAX_HOST: Final = 253  # RFC 1035 section 2.3.4
MAX_PATH: Final = 200
HOST_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"  # RFC 1123
PATH_PATTERN: Final = r"^(/[A-Za-z0-9._~-]+)+$"  # unreserved characters of RFC 3986 only: one spelling a path
SHARED_PREFIXES: Final = ("/models/", "/v1/models/", "/openai/deployments/")  # the last: where Azure's clients look
OPENAI_ROOT: Final = "v1"
OPENAI_PREFIX: Final = "/v1/models/"

_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")  # what resolvers read as an address, WHATWG URL section 3.5
_HOST: Final = re.compile(HOST_PATTERN)
_PATH: Final = re.compile(PATH_PATTERN)


def host_fault(host: str) -> str | None:
    """Say what is wrong with a host name in lower case; ``None`` when nothing is."""
    if len(host) > MAX_HOST or not _HOST.fullmatch(host):
        return "must be a host name of letters, digits, hyphens and dots (RFC 1123), without a port"
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "must be a host name, not an address"
    return None


def path_fault(path: str) -> str | None:
    """Say what is wrong with a path wherever it stands; ``None`` when nothing is."""
    if len(path) > MAX_PATH:
        return f"must have at most {MAX_PATH} characters"
    if not _PATH.fullmatch(path):
        return "must be segments of letters, digits and . _ ~ - , each after one /, without a trailing /"
    segments = path.split("/")[1:]
    if "." in segments or ".." in segments:
        return "must not have . or .. as a segment"
    if segments[0] == OPENAI_ROOT and not path.startswith(OPENAI_PREFIX):
        return f"must not stand in /v1/ except under {OPENAI_PREFIX} (the OpenAI API's own paths are reserved)"
    if segments[0] == inference.SERVICE:
        return f"must not stand in {inference.ROOT} (gRPC's own path)"
    return None


def shared_host_fault(path: str) -> str | None:
    """Say what is wrong with a path on the host that all tenants share; ``None`` when nothing is."""
    if path.startswith(SHARED_PREFIXES):
        return None
    return f"must begin with one of {' '.join(SHARED_PREFIXES)} on this host, which all tenants share"


def default_path(model: str, kind: ModelType) -> str:
    """Where a model stands when nobody says: ``/models/NAME``, or ``/v1/models/NAME`` for openai."""
    return (OPENAI_PREFIX if kind is ModelType.OPENAI else "/models/") + model


def overlapping(path: str, paths: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths that are ``path``, above it or below it, segment by segment: ``/a`` is above ``/a/b``."""
    return (taken for taken in paths if _above(path, taken) or _above(taken, path))


def above(path: str) -> Iterator[str]:
    """Yield the paths above one: of ``/a/b/c`` ``/a/b`` and ``/a``."""
    while path := path.rpartition("/")[0]:
        yield path


def _above(upper: str, lower: str) -> bool:
    return lower == upper or lower.startswith(upper + "/")


def without(paths: Mapping[str, str], uid: str) -> dict[str, str]:
    """Return a host's table less every entry of one publication."""
    return {name: owner for name, owner in paths.items() if owner != uid}


def obstacle(path: str, paths: Mapping[str, str], foreign: Iterable[str]) -> str | None:
    """Return the path that ``path`` is already, or whose calls it would take or lose, a ``foreign`` uid's."""
    if path in paths:
        return path
    strangers = set(foreign)
    return next((taken for taken in overlapping(path, paths) if paths[taken] in strangers), None)
