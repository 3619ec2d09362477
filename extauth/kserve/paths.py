"""What a path asks in KServe's words: of which model, in which protocol, a call of it or a word about it. Pure.

KServe's clients put the model's name into the path: ``/v1/models/NAME:predict``, ``/v2/models/NAME/infer``. On a host
they mean one of its models, below a publication's own path that one alone. The same words are read here wherever they
stand, and written as the model's server knows them.
"""

from __future__ import annotations

import enum
import functools
from typing import Final, NamedTuple
from urllib.parse import unquote

NAMED_ROOT: Final = "/:kserve"
"""Below it lies what Check has found by name, until it leaves for the model's server: a segment that no publication's
path has, so nobody else's route is ever met there."""
MAX_PATH: Final = 1_024
"""Longest path, in characters, that is read: room for three names of the longest sort."""
MAX_READY: Final = 4_096
MAX_READY_PATH: Final = 128
"""As of endpoints (``extauth.request.endpoints``): paths kept read, and the longest of them."""


class Act(enum.Enum):
    """What is asked."""

    __hash__ = object.__hash__  # each is one object, and enum's own is slow

    CALLS = enum.auto()  # the model runs: predict, explain, infer, generate, generate_stream
    TELLS = enum.auto()  # the model's server says something of the model: its status, metadata, readiness
    LIVE = enum.auto()  # whether the server is there, of which there is one to callers: the gateway
    READY = enum.auto()
    METADATA = enum.auto()
    STATUS = enum.auto()  # LIVE, in the first protocol's words


class Asked(NamedTuple):
    """A question in KServe's words."""

    act: Act
    base: str = ""  # what stands before it: a publication's path, "" on a host
    protocol: str = ""  # "v1" or "v2"; "" where no model is named
    name: str = ""  # as the caller says it: "iris", "tenant-b/iris"; "" where none is
    version: str = ""  # "2" of /versions/2; "" where none is named
    tail: str = ""  # what follows the model: ":predict", "/infer"; "" where nothing does

    @property
    def of_server(self) -> bool:
        """Whether it is no model's matter: the gate answers it itself."""
        return not self.protocol

    def upstream(self, served_as: str) -> str:
        """The path by which it leaves the gate, with the model as its server calls it."""
        version = f"/versions/{self.version}" if self.version else ""
        return f"{NAMED_ROOT}/{self.protocol}/models/{served_as}{version}{self.tail}"


V1_ACTS: Final = ("predict", "explain")
V2_ACTS: Final = ("infer", "generate", "generate_stream")
_READY: Final = "ready"
_MODELS: Final = "/models/"
_OF_SERVER: Final = {"/v2/health/live": Act.LIVE, "/v2/health/ready": Act.READY, "/v2": Act.METADATA, "/": Act.STATUS}


def asked_of(path: str, *, is_own: bool) -> Asked | None:
    """Read a path, without its query; ``None`` where it asks nothing that is known.

    ``is_own``: it lies below a publication's own path, which then is ``base``.
    """
    return (_ready if len(path) <= MAX_READY_PATH else _read)(path, is_own)


def _read(path: str, is_own: bool) -> Asked | None:  # noqa: FBT001  cached by place
    if len(path) > MAX_PATH:
        return None
    for ending, act in _OF_SERVER.items():
        base = path.removesuffix(ending)
        if base != path and bool(base) is is_own:
            return Asked(act, base)
    at = max(path.rfind("/v1/models/"), path.rfind("/v2/models/")) if is_own else 0
    if at < 0 or not path.startswith(("/v1/models/", "/v2/models/"), at) or is_own != (at > 0):
        return None
    base, protocol, rest = path[:at], path[at + 1 : at + 3], path[at + 3 + len(_MODELS) :]
    return _of_v1(base, rest) if protocol == "v1" else _of_v2(base, rest)


_ready = functools.lru_cache(maxsize=MAX_READY)(_read)


def _of_v1(base: str, rest: str) -> Asked | None:
    name, colon, act = rest.rpartition(":")
    if colon and act in V1_ACTS:
        return _named(Asked(Act.CALLS, base, "v1", name, tail=f":{act}"))
    return _named(Asked(Act.TELLS, base, "v1", rest))


def _of_v2(base: str, rest: str) -> Asked | None:
    head, _, last = rest.rpartition("/")
    if head and last in (*V2_ACTS, _READY):
        rest, tail, act = head, f"/{last}", Act.TELLS if last == _READY else Act.CALLS
    else:
        tail, act = "", Act.TELLS
    name, versions, version = rest.rpartition("/versions/")
    if versions and version and "/" not in version:
        return _named(Asked(act, base, "v2", name, version, tail)) if _is_plain(version) else None
    return _named(Asked(act, base, "v2", rest, tail=tail))


def _named(asked: Asked) -> Asked | None:
    return asked._replace(name=unquote(asked.name, errors="replace")) if asked.name else None


_MARKS: Final = frozenset("-._~")


def _is_plain(version: str) -> bool:
    """Whether a version goes on as it is: whatever else it might be, it is one segment of a path."""
    return version.isascii() and all(one.isalnum() or one in _MARKS for one in version) and set(version) != {"."}
