"""Which openai calls may pass, by where they go and what their body says."""

from __future__ import annotations

import pytest
from msgspec import structs

from catalog.records import Limits, ModelType, Protocol, PublicationRecord
from extauth.reasons import Reason
from extauth.request.body import BodyFault, Unread
from extauth.request.call import Call
from extauth.request.openai import openai_fault
from tests.tables.permitted import OWN, ROWS, Row

RECORD = PublicationRecord(
    uid="uid",
    tenant="tenant-a",
    model="llm",
    url="",
    type=ModelType.OPENAI,
    protocol=Protocol.OPENAI,
    host="h",
    path=OWN,
    limits=Limits(),
    require_api_key=True,
    allowed_tenants=("tenant-a",),
    key_id="",
    created_at_ms=0,
    updated_at_ms=0,
)


def fault_of(row: Row) -> Reason | BodyFault | Unread | None:
    """Ask as the row says."""
    call = Call(
        "",
        "",
        "" if row.shared else "uid",
        "h" if row.shared else "",
        row.method,
        row.content_type,
        row.body,
        row.raw,
        content_encoding=row.content_encoding,
        path=f"/v1/{row.name}" if row.shared else f"{OWN}/{row.name}",
    )
    record = None if row.unnamed else structs.replace(RECORD, **row.publication)
    return openai_fault(call, record, is_alone=row.alone)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
def test_a_call_passes_or_is_told_why_not(row: Row) -> None:
    """The reason, the field and what it says."""
    fault = fault_of(row)
    reason = fault.reason if isinstance(fault, BodyFault) else fault
    assert reason is row.reason
    if row.param or row.tells:
        assert isinstance(fault, BodyFault)
        assert fault.param == row.param
        assert row.tells in fault.message
        assert len(fault.message) < 400
