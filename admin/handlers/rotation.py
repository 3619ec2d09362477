"""Giving a key a new text: the same for a publication's own key and for any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from msgspec import structs

from admin.acts.keys import NewText, rotated
from admin.http.calls import ApiCall
from admin.http.problems import Code, Problem
from admin.schemas.schemas import RotateInput
from catalog.changes import Check, Put
from catalog.keys.keytext import mask
from catalog.records import KeyRecord
from catalog.store.store import Conflict


async def rotate(call: ApiCall, key: KeyRecord, target: str, checks: Sequence[Check] = ()) -> NewText:
    """Write the key with a new text. Of two rotations at once one is refused: nobody's new text is dead on arrival.

    ``checks`` must hold at the write. Raises ``Problem`` CONFLICT, or PRECONDITION_FAILED where ``If-Match`` was sent.
    """
    grace_ms = (call.body(RotateInput).grace_period_seconds if call.raw_body else 0) * 1000
    new = rotated(key, call.services.mint, grace_ms=grace_ms, now_ms=await call.services.store.now_ms())
    detail = {"apiKey": mask(key.id), "gracePeriodSeconds": str(grace_ms // 1000)}
    audit = call.audit("key.rotate", target, key.tenant, detail)
    try:
        await call.services.committer.commit([Put(new.record, key.version), *checks], audit)
    except Conflict:
        code = Code.PRECONDITION_FAILED if call.if_match else Code.CONFLICT
        raise Problem(code, "it was changed by someone else meanwhile; nothing was rotated") from None
    return dataclasses.replace(new, record=structs.replace(new.record, version=key.version + 1))
