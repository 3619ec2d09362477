"""A disabled tenant's publications serve nobody: other tenants' keys and callers without a key no more than its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, wait_until

from catalog.records import Kind, ModelType, Protocol, PublicationRecord, TenantRecord, ref
from catalog.store import names
from protos.external_auth_pb2 import CheckRequest, CheckResponse

LLM: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
BOTH = ("tenant-a", "tenant-b")


@pytest.fixture
def wire() -> Wire:
    """One transport: what is answered here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture
def owner(catalog: Catalog) -> TenantRecord:
    """Whose publications are called; the callers are tenant-a's."""
    catalog.tenant()
    return catalog.tenant("tenant-b")


@pytest.fixture
def shared(catalog: Catalog, owner: TenantRecord) -> PublicationRecord:
    """An openai publication of the owner that tenant-a may call."""
    return catalog.publication(owner.id, "shared", allowed_tenants=BOTH, **LLM)


def reason(answer: CheckResponse) -> str:
    """Why, as callers are told; "" where admitted."""
    return json.loads(answer.denied_response.body)["error"]["reason"] if status(answer) != 200 else ""


def by_body(key: str, model: str) -> CheckRequest:
    """A call that names its model in its body."""
    return question(key=key, openai_host=HOST, model=model)


def listed(asker: Asker, key: str) -> list[str]:
    """What the host's list of models holds for a key."""
    asked = question(key=key, openai_host=HOST, method="GET")
    asked.attributes.request.http.path = "/v1/models"
    answer = asker.ask(asked)
    assert status(answer) == 200
    return [card["id"] for card in json.loads(answer.denied_response.body)["data"]]


def test_another_tenants_key_finds_nothing_there(
    catalog: Catalog, asker: Asker, owner: TenantRecord, shared: PublicationRecord
) -> None:
    """By path as where nothing is published, from the disabling's answer on; enabled again, the next call passes."""
    _, text = catalog.key(shared)
    call = question(key=text, publication=shared, model="shared")
    assert status(asker.ask(call)) == 200
    for _ in range(3):
        owner = catalog.change(owner, disabled=True)
        answer = asker.ask(call)
        assert (status(answer), reason(answer)) == (404, "no_publication")
        owner = catalog.change(owner, disabled=False)
        assert status(asker.ask(call)) == 200


def test_its_own_key_is_refused_as_ever(catalog: Catalog, asker: Asker, owner: TenantRecord) -> None:
    """With 401: the key is not accepted, wherever it calls."""
    publication = catalog.publication(owner.id)
    _, text = catalog.key(publication, tenant=owner.id)
    assert status(asker.ask(question(key=text, publication=publication))) == 200
    catalog.change(owner, disabled=True)
    assert status(asker.ask(question(key=text, publication=publication))) == 401


def test_callers_without_a_key_find_nothing_there(catalog: Catalog, asker: Asker, owner: TenantRecord) -> None:
    """Neither the model nor what it is called; where a key is asked for, that stands."""
    opened = catalog.publication(owner.id, "open", require_api_key=False, **LLM)
    held = catalog.publication(owner.id, "held")
    asked = question(publication=opened, method="GET")
    asked.attributes.request.http.path = f"{opened.path}/models"
    calls = [question(publication=opened, model="open"), asked, question(publication=held)]
    assert [status(answer) for answer in asker.ask_many(calls)] == [200, 200, 401]
    catalog.change(owner, disabled=True)
    assert [status(answer) for answer in asker.ask_many(calls)] == [404, 404, 401]


def test_by_its_name_in_a_body_it_is_not_found(
    catalog: Catalog, asker: Asker, owner: TenantRecord, shared: PublicationRecord
) -> None:
    """And lists of models leave it out; the caller's own models stay."""
    own = catalog.publication(model="own", **LLM)
    catalog.host(shared, own)
    _, text = catalog.key(shared, own)
    assert sorted(listed(asker, text)) == ["own", "tenant-b/shared"]
    disabled = catalog.change(owner, disabled=True)
    answers = asker.ask_many([by_body(text, "tenant-b/shared"), by_body(text, "own")])
    assert [(status(one), reason(one)) for one in answers] == [(404, "model_not_found"), (200, "")]
    assert listed(asker, text) == ["own"]
    catalog.change(disabled, disabled=False)
    assert status(asker.ask(by_body(text, "tenant-b/shared"))) == 200
    assert sorted(listed(asker, text)) == ["own", "tenant-b/shared"]


def test_an_owner_without_a_record_serves_nobody(
    catalog: Catalog, asker: Asker, store: redis.Redis, owner: TenantRecord, shared: PublicationRecord
) -> None:
    """Closed by default; a record that cannot be read is 503, which passes when it is mended."""
    _, text = catalog.key(shared)
    call = question(key=text, publication=shared, model="shared")
    where = names.record(ref(Kind.TENANT, owner.id))
    good = store.get(where)
    assert good is not None
    store.set(where, b"{")
    assert status(asker.ask(call)) == 503
    store.set(where, good)
    wait_until(lambda: status(asker.ask(call)) == 200)
    catalog.remove(Kind.TENANT, owner)
    assert status(asker.ask(call)) == 404
