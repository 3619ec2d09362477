"""What Envoy is told to write into a body, or a path: the name by which the model's server knows the model. Pure.

Of a body it is told as dynamic metadata of the call, for the script of ``publisher/envoy/lua/rewrite.lua``:
``REWRITE`` is ``<begin> <end> <size> <text>``, the text to be put in the place of these bytes of a body of this size.
Of a path it is a header that Envoy sets.
"""

from __future__ import annotations

import json
from typing import Final

from extauth.answers.amended import amended
from extauth.answers.wire import field, text_entry
from extauth.kserve.telling import asked_by
from extauth.request.call import Asking, Posted
from extauth.request.packed import IDENTITY, PackedError, unpacked
from extauth.request.place import place_for_model, place_of_model

REWRITE: Final = "rewrite"
_METADATA: Final = 4
"""CheckResponse.dynamic_metadata, a Struct, whose map is field 1."""


def rewriting(posted: Posted, model: str, *, names_none: bool = False) -> bytes | None:
    """What is added to an answer's metadata so that a call's body names ``model``.

    ``names_none``: the body names no model (null, empty, absent), and where it is JSON it shall. Nothing where its
    bytes were not sent: an Envoy of the release before says what it read of a body, and passes it on as it is. ``None``
    where there is no such place, which is so of no body that was read as good.
    """
    if not posted.raw:
        return b""
    try:  # as it stands behind Envoy's decompressors
        packed = posted.content_encoding not in IDENTITY
        raw = unpacked(posted.raw, posted.content_encoding) if packed else posted.raw
    except PackedError:
        return None
    place = place_of_model(raw, posted.content_type)
    if place is None and names_none:
        place = place_for_model(raw, posted.content_type)
        if place is None:
            return b""
    if place is None:
        return None
    text = json.dumps(model, ensure_ascii=False) if place.in_json else model
    order = f"{place.begin} {place.end} {len(raw)} {place.before}{text}{place.after}"
    return field(_METADATA, text_entry(1, REWRITE.encode(), order.encode()))


PATH: Final = ":path"


def repathed(asking: Asking, model: str) -> bytes | None:
    """What has a call that names its model by the path leave by another, where its server knows it as ``model``.

    The query stays as it came. ``None`` of a path that names none, by which nothing was let through.
    """
    call = asking.read()
    asked = asked_by(call)
    if asked is None:
        return None
    return amended((), {PATH: asked.upstream(model) + (f"?{call.query}" if call.query else "")})
