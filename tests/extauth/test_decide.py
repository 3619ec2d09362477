"""The decision as a pure function: rows of (call, facts) and what must come out."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from catalog.ids import SHARDS, cell_of, new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import ParsedKey, mint, parse
from catalog.keys.secrets import Secrets
from catalog.records import (
    HostRecord,
    KeyRecord,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    ServerRecord,
    TenantRecord,
)
from extauth.answers.answers import denial
from extauth.decide import Admission, Facts, Refusal, decide, present, resolve_model
from extauth.lanes.lane import lane_of
from extauth.reasons import WIRE, Outcome, Reason
from extauth.records.entries import HostEntry, PublicationEntry, ServerEntry, TenantEntry, entry_of
from extauth.request.body import Body, BodyFault
from extauth.request.call import Call
from extauth.reserving import Reserver

CALL = Call("", None, "uid", "", "POST", "application/json", path="/models/m/chat/completions")
PUBLICATION = PublicationRecord(
    uid="uid",
    tenant="tenant-a",
    model="m",
    url="",
    type=ModelType.TRADITIONAL,
    protocol=Protocol.KSERVE_V1,
    host="h",
    path="/models/m",
    limits=Limits(per_minute=5),
    require_api_key=True,
    allowed_tenants=("tenant-a",),
    key_id="",
    created_at_ms=0,
    updated_at_ms=0,
)
TENANT = TenantRecord("tenant-a", shard_of("tenant-a"), 0, 0)


@pytest.fixture
def parsed(secrets: Secrets) -> ParsedKey:
    """A key's text as it was read off a call."""
    text = mint(new_id(shard_of("tenant-a"), os.urandom), secrets, os.urandom)
    found = parse(text.reveal(), secrets)
    assert isinstance(found, ParsedKey)
    return found


def facts(parsed: ParsedKey, secrets: Secrets, **changes: Any) -> Facts:
    """A key, its tenant and a publication it may call, with changes to any of them."""
    key = KeyRecord(parsed.id, "tenant-a", "k", ("uid",), hash_key(parsed.text, secrets), 0, 0)
    records = {
        "key": structs.replace(key, **changes.get("key", {})),
        "tenant": structs.replace(TENANT, **changes.get("tenant", {})),
        "publication": structs.replace(PUBLICATION, **changes.get("publication", {})),
        "owner": structs.replace(TENANT, **changes.get("owner", {})),
    }
    entries: dict[str, Any] = {name: entry_of(record) for name, record in records.items()}
    return Facts(**(entries | {"host": None} | dict.fromkeys(changes.get("without", ()))))


OPENAI = {"type": ModelType.OPENAI}
ROWS: list[tuple[str, dict[str, Any], dict[str, Any], Reason | None]] = [
    ("all is well", {}, {}, None),
    ("the route names nothing", {"publication": ""}, {}, Reason.NO_PUBLICATION),
    ("the publication is gone", {}, {"without": ["publication"]}, Reason.NO_PUBLICATION),
    ("the key is gone", {}, {"without": ["key"]}, Reason.KEY_UNKNOWN),
    ("the tenant is gone", {}, {"without": ["tenant"]}, Reason.TENANT_DISABLED),
    ("the tenant is disabled", {}, {"tenant": {"disabled": True}}, Reason.TENANT_DISABLED),
    ("the key is disabled", {}, {"key": {"disabled": True}}, Reason.KEY_DISABLED),
    ("not for this tenant", {}, {"publication": {"allowed_tenants": ("tenant-b",)}}, Reason.NO_PUBLICATION),
    ("not for this key", {}, {"key": {"publications": ()}}, Reason.NOT_ALLOWED),
    ("invisible hides not allowed", {}, {"key": {"publications": ()}, "publication": {"allowed_tenants": ()}},
     Reason.NO_PUBLICATION),
    ("openai without a body", {}, {"publication": OPENAI}, Reason.BODY_NOT_JSON),
    ("openai with another type", {"content_type": "text/plain"}, {"publication": OPENAI}, Reason.BODY_TYPE),
    ("openai without a type", {"content_type": ""}, {"publication": OPENAI}, Reason.BODY_TYPE),
    ("openai without a model", {"body": Body()}, {"publication": OPENAI}, None),
    ("by the body without a model", {"body": Body(), "publication": "", "openai_host": "h", "path": "/v1/completions"},
     {"without": ["publication"]}, Reason.MODEL_MISSING),
    ("openai with another model", {"body": Body("x")}, {"publication": OPENAI}, Reason.MODEL_NOT_FOUND),
    ("openai with its model", {"body": Body("m")}, {"publication": OPENAI}, None),
    ("openai with a fault", {"body": BodyFault(Reason.FIELD_INVALID, "")}, {"publication": OPENAI},
     Reason.FIELD_INVALID),
    ("a fault elsewhere", {"body": BodyFault(Reason.FIELD_INVALID, "")}, {}, None),
    ("openai by GET", {"method": "GET"}, {"publication": OPENAI}, Reason.METHOD_NOT_ALLOWED),
    ("invisible hides its type", {"content_type": "text/plain"},
     {"publication": OPENAI | {"allowed_tenants": ()}}, Reason.NO_PUBLICATION),
    ("expired", {}, {"key": {"expires_at_ms": 100}}, Reason.KEY_EXPIRED),
    ("expires in a moment", {}, {"key": {"expires_at_ms": 101}}, None),
    ("expired at the beginning of time", {}, {"key": {"expires_at_ms": 0}}, Reason.KEY_EXPIRED),
    ("expired hides not allowed", {}, {"key": {"expires_at_ms": 1, "publications": ()}}, Reason.KEY_EXPIRED),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "changes", "reason"), ROWS, ids=[row[0] for row in ROWS])
def test_decisions(
    parsed: ParsedKey, secrets: Secrets, name: str, call: dict[str, Any], changes: dict[str, Any], reason: Reason | None
) -> None:
    """Each row's call ends as the row says."""
    decision = decide(structs.replace(CALL, **call), parsed, facts(parsed, secrets, **changes), secrets, now_ms=100)
    got = None if isinstance(decision, Admission) else decision.reason
    assert got is reason, name


def test_an_admission_charges_what_has_budgets_and_counts_key_and_publication(
    parsed: ParsedKey, secrets: Secrets
) -> None:
    """Only subjects with budgets are charged; usage is counted for key and publication always."""
    limited = facts(parsed, secrets, tenant={"limits": Limits(burst=1)})
    decision = decide(CALL, parsed, limited, secrets, now_ms=0)
    assert isinstance(decision, Admission)
    assert [subject.name for subject in decision.draw.charge.subjects] == ["t:tenant-a", "p:uid"]
    assert decision.draw.charge.usage == (f"k:{parsed.id}", "p:uid")
    assert decision.draw.charge.refs == (f"key:{parsed.id}", "tenant:tenant-a", "pub:uid")


@pytest.mark.parametrize(
    ("expires", "grace", "rotated", "ends"),
    [(None, None, 0, 0), (50, None, 0, 50), (None, 40, 1, 40), (50, 40, 1, 40), (30, 40, 1, 30)],
)
def test_the_charge_ends_with_the_first_of_expiry_and_grace(
    parsed: ParsedKey, secrets: Secrets, expires: int | None, grace: int | None, rotated: int, ends: int
) -> None:
    """A text works until the key expires or, if it was rotated, until its grace is over."""
    own = hash_key(parsed.text, secrets)
    other = hash_key(mint(parsed.id, secrets, lambda count: b"z" * count), secrets)
    key: dict[str, Any] = {"expires_at_ms": expires}
    if rotated:
        key |= {"current": other, "previous": structs.replace(own, valid_until_ms=grace)}
    decision = decide(CALL, parsed, facts(parsed, secrets, key=key), secrets, now_ms=0)
    assert isinstance(decision, Admission)
    assert decision.draw.charge.valid_until_ms == ends


@pytest.mark.parametrize(
    ("model", "uid"),
    [("llm", "own"), ("tenant-b/llm", "theirs"), ("tenant-a/llm", "own"), ("x", ""), ("", "")],
)
def test_a_models_name_means_the_callers_own_first(parsed: ParsedKey, secrets: Secrets, model: str, uid: str) -> None:
    """``name`` is the key's own tenant's model; another tenant's is ``tenant/name``."""
    host = entry_of(HostRecord("h", {}, {"tenant-a/llm": "own", "tenant-b/llm": "theirs"}))
    key = facts(parsed, secrets).key
    assert isinstance(host, HostEntry)
    assert resolve_model(host, None, key, model) == uid


@pytest.mark.parametrize(
    ("api_key", "fault", "reason"),
    [
        ("", None, Reason.KEY_MISSING),
        ("x", None, Reason.KEY_MALFORMED),
        ("x", Reason.KEY_REPEATED, Reason.KEY_REPEATED),
        ("", Reason.KEY_IN_URL, Reason.KEY_IN_URL),
    ],
)
def test_what_is_no_key_is_refused_without_records(
    secrets: Secrets, api_key: str, fault: Reason | None, reason: Reason
) -> None:
    """Nothing of this reaches the store."""
    assert present(structs.replace(CALL, api_key=api_key, key_fault=fault), secrets, now_ms=0) is reason


def test_every_reason_has_its_place_on_the_wire() -> None:
    """The table is whole, errors are 5xx and nothing but what is allowed is a 2xx."""
    assert set(WIRE) == set(Reason)
    for wire in WIRE.values():
        assert (wire.status == 200) == (wire.outcome is Outcome.ALLOWED)
        assert (wire.status >= 500) == (wire.outcome is Outcome.ERROR)
        assert (wire.status == 429) == (wire.outcome is Outcome.LIMITED)


@pytest.mark.parametrize("reason", [reason for reason in Reason if WIRE[reason].status != 200])
def test_every_refusal_has_openais_shape(reason: Reason) -> None:
    """Clients of OpenAI's API find message, type, code and param where they look for them."""
    answer = denial(reason)
    for field in ('"message":', '"type":', '"code":', '"param":', '"reason":'):
        assert field in answer.body
    assert ("content-type", "application/json") in answer.headers
    assert (("allow", "POST") in answer.headers) == (answer.status == 405)


@given(st.integers(0, SHARDS - 1), st.integers(0, SHARDS - 1), st.integers(1, 64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_call_is_counted_in_its_tenants_cell(
    parsed: ParsedKey, secrets: Secrets, owner: int, tenant: int, cells: int
) -> None:
    """By the shards in the records of the key's tenant and the publication's owner, whatever their ids begin with."""
    known = facts(parsed, secrets, owner={"shard": owner}, tenant={"shard": tenant})
    decision = decide(CALL, parsed, known, secrets, now_ms=0, cells=cells)
    if owner % cells != tenant % cells:
        assert isinstance(decision, Refusal)
        assert decision.reason is Reason.CROSS_CELL
    else:
        assert isinstance(decision, Admission)
        assert (decision.cell, decision.shard) == (owner % cells, owner)
        held = Reserver(os.urandom)(lane_of(openai_admission(decision)), structs.replace(CALL, body=Body("m")))
        assert held.hold is not None
        assert cell_of(held.hold.id, cells) == decision.cell  # by which its ending is settled


def openai_admission(admission: Admission) -> Admission:
    """The same of a model whose calls hold tokens."""
    entry = entry_of(structs.replace(PUBLICATION, **OPENAI, limits=Limits(tokens_per_hour=1_000)))
    assert isinstance(entry, PublicationEntry)
    return dataclasses.replace(admission, publication=entry)


def test_a_charge_names_the_owner_of_its_publication_too(parsed: ParsedKey, secrets: Secrets) -> None:
    """So that disabling that tenant, or enabling it, makes the decision an old one, as a change of the others does."""
    foreign = facts(parsed, secrets, publication={"tenant": "tenant-b", "allowed_tenants": ("tenant-a", "tenant-b")})
    decision = decide(CALL, parsed, foreign, secrets, now_ms=0)
    assert isinstance(decision, Admission)
    assert set(decision.draw.charge.refs) == {f"key:{parsed.id}", "tenant:tenant-a", "pub:uid", "tenant:tenant-b"}
    opened = facts(parsed, secrets, publication={"tenant": "tenant-b", "require_api_key": False})
    decision = decide(CALL, Reason.KEY_MISSING, opened, secrets, now_ms=0)
    assert isinstance(decision, Admission)
    assert set(decision.draw.charge.refs) == {"pub:uid", "tenant:tenant-b"}


@pytest.mark.parametrize(("field", "callers", "reason"), [
    ("previous_response_id", {"uid": "tenant-a"}, None),
    ("previous_response_id", {"uid": "tenant-a", "other": "tenant-b"}, Reason.STORED_NOT_ALLOWED),
    ("input_file_id", {}, Reason.STORED_NOT_ALLOWED),
    ("", {}, None),
])  # fmt: skip
def test_a_body_names_what_was_stored_on_a_server_of_ones_own(
    parsed: ParsedKey, secrets: Secrets, field: str, callers: dict[str, str], reason: Reason | None
) -> None:
    """By the model's own path and by the shared one; and the charge names the server's record."""
    known = facts(parsed, secrets, publication=OPENAI)
    server, host = entry_of(ServerRecord("llm:80", callers)), entry_of(HostRecord("h", {}, {"tenant-a/m": "uid"}))
    assert isinstance(server, ServerEntry)
    assert isinstance(host, HostEntry)
    body = Body("m", ids=(field,) if field else ())
    by_path = structs.replace(CALL, body=body)
    by_body = structs.replace(by_path, publication="", openai_host="h", path="/v1/responses")
    for call, named in ((by_path, None), (by_body, host)):
        decision = decide(call, parsed, dataclasses.replace(known, server=server, host=named), secrets, now_ms=0)
        assert (None if isinstance(decision, Admission) else decision.reason) is reason
        assert not isinstance(decision, Admission) or "server:llm:80" in decision.draw.charge.refs
        unknown = decide(call, parsed, dataclasses.replace(known, host=named), secrets, now_ms=0)
        assert isinstance(unknown, Admission) == (not field)


def test_entries_are_made_of_the_records_that_decide() -> None:
    """Each deciding kind has its entry, with the subject that is counted for it."""
    tenant = entry_of(TENANT)
    publication = entry_of(PUBLICATION)
    assert isinstance(tenant, TenantEntry)
    assert isinstance(publication, PublicationEntry)
    assert (tenant.subject.name, tenant.subject.budgets) == ("t:tenant-a", ())
    assert [budget.limit for budget in publication.subject.budgets] == [5]
