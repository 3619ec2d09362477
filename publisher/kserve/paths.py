"""The paths of models that speak one of KServe's protocols, in no gateway's words. Pure.

A publication's own paths are few and each is written by itself: ``PATH/predict``. What else is asked below it is for
Check to read, in KServe's own words (``PATH/v1/models/NAME:predict``), as it is on the host, where they name one of its
models. There a call waits until Check names the publication by a header and writes the path anew, below ``NAMED_ROOT``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from catalog.records import PublicationRecord
from extauth.kserve.paths import V1_ACTS, V2_ACTS


class Path(NamedTuple):
    """A path, or all that begins with it and a slash."""

    part: str  # of the publication's: "predict"
    path: str
    rewrite: str = ""  # as the server knows it; "": nothing leads from here to a server
    below: bool = False


V2_ROOT: Final = "/v2"
V1_MODELS: Final = "/v1/models"

ENTRIES: Final = (Path("", "/"), Path("", V2_ROOT), Path("", V2_ROOT, below=True), Path("", V1_MODELS, below=True))
"""Where calls wait on a host that name a model by the path, or ask whether there is a server."""
WAITS: Final = "kserve"
"""The part of a publication whose calls wait, by which its rule is called (``extauth.request.route_names.NAMED``)."""
NAMED_PART: Final = "named"


def own_v1(record: PublicationRecord) -> Iterator[Path]:
    """KServe v1: the model's status, ``predict`` and ``explain``; nothing else of the server."""
    model = f"/v1/models/{record.served_as}"
    yield Path("status", record.path, model)
    for act in V1_ACTS:
        yield Path(act, f"{record.path}/{act}", f"{model}:{act}")
    yield Path(WAITS, record.path, below=True)


def own_v2(record: PublicationRecord) -> Iterator[Path]:
    """KServe v2 (Open Inference Protocol): metadata, readiness, ``infer`` and ``generate``; nothing else of the server.

    Below a model some servers have more than calls of it (Triton's trace settings), so each path is named.
    """
    model = f"/v2/models/{record.served_as}"
    yield Path("status", record.path, model)
    for act in ("ready", *V2_ACTS):
        yield Path(act, f"{record.path}/{act}", f"{model}/{act}")
    yield Path(WAITS, record.path, below=True)
