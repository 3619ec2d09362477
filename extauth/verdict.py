"""What became of one call, and why: the outcome of a batch, before it is put into words. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from extauth.decide import Refusal
from extauth.lanes.lane import Lane
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.records.entries import PublicationEntry, TenantEntry
from extauth.request.body import BodyFault
from ratelimit.windows.budgets import Answer, Grant


class Verdict(msgspec.Struct, eq=False, gc=False):
    """What became of one call, or of several that are told the same."""

    reason: Reason
    publication: PublicationEntry | None = None
    tenant: TenantEntry | None = None
    asked: Lane | Telling | None = None  # what the limiter was asked, wherever the call's records were good enough
    grant: Grant | None = None
    now_ms: int = 0  # the store's clock at the decision; 0 when the store was not asked
    fault: BodyFault | None = None  # of a body that was refused
    answer: bytes = b""  # as it was encoded, where it is told to several calls
    text_answer: bytes = b""  # the same to those by the Open Inference Protocol (``answers.open_inference``)
    is_form: bool = False  # in which each of these calls is still to be named (``answers.requested``)


REASON_OF: Final = {
    Answer.ADMITTED: Reason.OK,
    Answer.REFUSED: Reason.LIMITED,
    Answer.NEVER_FITS: Reason.NEVER_FITS,
    Answer.EXPIRED: Reason.KEY_EXPIRED,
    Answer.STALE: Reason.RECORDS_CHANGING,
    Answer.CORRUPT: Reason.STATE_UNREADABLE,
}


def granted(asked: Lane | Telling | Refusal, grant: Grant, now_ms: int) -> Verdict:
    """What the limiter's answer comes to."""
    if isinstance(asked, Lane):
        admitted = Reason.OK
    elif isinstance(asked, Telling):
        admitted = Reason.MODELS_TOLD
    else:
        return _refused_and_counted(asked, grant, now_ms)
    reason = admitted if grant.answer is Answer.ADMITTED else REASON_OF[grant.answer]
    return Verdict(reason, asked.publication, asked.tenant, asked, grant, now_ms)


def _refused_and_counted(refusal: Refusal, grant: Grant, now_ms: int) -> Verdict:
    """A bad call is refused as such while there is room to count it, and where nobody could say that it is not one."""
    if grant.answer in {Answer.ADMITTED, Answer.STALE}:
        return refused(refusal)
    reason = Reason.TOO_MANY_ERRORS if grant.answer is Answer.REFUSED else REASON_OF[grant.answer]
    return Verdict(reason, refusal.publication, refusal.tenant, grant=grant, now_ms=now_ms)


def refused(refusal: Refusal) -> Verdict:
    """What a refusal comes to."""
    return Verdict(refusal.reason, refusal.publication, refusal.tenant, fault=refusal.fault)
