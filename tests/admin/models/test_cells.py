"""In which cell a tenant is: chosen when it is made, shown, and held by grants."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.acts.cells import faults_of, left_behind, moved, shard_in
from admin.http.problems import Problem
from catalog.changes import Check, Put, Room
from catalog.ids import SHARDS, cell_of, shard_of
from catalog.records import Kind, Limits, ModelType, Protocol, PublicationRecord, TenantRecord

CELLS = 16


@pytest.fixture
async def split(start_api: Any) -> Any:
    """An application whose budgets are in 16 cells, and a tenant."""
    api = await start_api()
    object.__setattr__(api.services, "cells", CELLS)
    await api.tenant("owner")
    return api


async def test_a_tenant_is_made_in_the_cell_of_another(split: Any, kserve: str) -> None:
    """Whatever their names say: a grant between the two, and a key that names both, are good from then on."""
    home = (await split.ask("GET", "/api/tenants/owner")).body["cell"]
    assert home == cell_of(shard_of("owner"), CELLS)
    await split.model("my-model", kserve, "owner")
    assert (await split.publish("my-model", tenantId="owner")).status == 201
    for number in range(8):
        name = f"guest-{number}"
        made = await split.ask("POST", "/api/tenants", {"tenantId": name, "cellOf": "owner"})
        assert (made.status, made.body["cell"]) == (201, home)
        assert (await split.ask("GET", f"/api/tenants/{name}")).body["cell"] == home
        allowed = {"allowedTenants": [name]}
        assert (await split.update("my-model", authentication=allowed)).status == 200
        key = {"tenantId": name, "name": "k", "publications": ["owner/my-model"]}
        assert (await split.ask("POST", "/api/keys", key)).status == 201
    assert {one["cell"] for one in (await split.ask("GET", "/api/tenants")).body["items"]} == {home}


async def test_a_cell_is_chosen_by_its_number(split: Any, kserve: str) -> None:
    """Any of them; a grant to a tenant of another cell is refused, and says what can be done."""
    home = (await split.ask("GET", "/api/tenants/owner")).body["cell"]
    await split.model("my-model", kserve, "owner")
    await split.publish("my-model", tenantId="owner")
    for cell in range(CELLS):
        made = await split.ask("POST", "/api/tenants", {"tenantId": f"in-{cell}", "cell": cell})
        assert (made.status, made.body["cell"]) == (201, cell)
        granted = await split.update("my-model", authentication={"allowedTenants": [f"in-{cell}"]})
        assert granted.status == (200 if cell == home else 400)
        if cell != home:
            assert granted.faults == {"config.authentication.allowedTenants[0]": "cross_cell"}
            assert "cellOf" in granted.text
            assert "tollkeeper cells move" in granted.text


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"cellOf": "nobody"}, 400, "INVALID_TENANT", "cellOf"),
        ({"cellOf": "owner", "cell": 1}, 400, "INVALID_REQUEST", "cell"),
        ({"cell": CELLS}, 400, "INVALID_REQUEST", "cell"),
        ({"cell": -1}, 400, "INVALID_REQUEST", "cell"),
        ({"cellOf": "No Name"}, 400, "INVALID_REQUEST", "cellOf"),
    ],
)
async def test_a_cell_that_cannot_be_is_refused(split: Any, body: Any, status: int, code: str, field: str) -> None:
    """And no tenant is made."""
    answer = await split.ask("POST", "/api/tenants", {"tenantId": "new", **body})
    assert (answer.status, answer.code, [*answer.faults]) == (status, code, [field])
    assert (await split.ask("GET", "/api/tenants/new")).status == 404


async def test_a_tenant_in_its_own_cell_is_there_already(split: Any) -> None:
    """Naming oneself is no way to be."""
    assert (await split.ask("POST", "/api/tenants", {"tenantId": "owner", "cellOf": "owner"})).code == "TENANT_EXISTS"
    assert (await split.ask("POST", "/api/tenants", {"tenantId": "new", "cellOf": "new"})).code == "INVALID_TENANT"


NAMES = st.sampled_from([f"tenant-{letter}" for letter in "abcdef"])
NUMBERS = st.integers(1, 64)


def tenants(shards: dict[str, int]) -> dict[str, TenantRecord]:
    """Records of tenants."""
    return {name: TenantRecord(name, shard, 1, 1) for name, shard in shards.items()}


def publication(uid: int, owner: str, allowed: set[str]) -> PublicationRecord:
    """One that allows tenants."""
    return PublicationRecord(
        f"{uid:019}", owner, f"m{uid}", "http://a:1", ModelType.OPENAI, Protocol.OPENAI, "h", f"/m{uid}", Limits(),
        True, tuple(sorted({owner, *allowed})), "key", 1, 1,
    )  # fmt: skip


@given(NUMBERS, st.text("abcdef", min_size=1), st.integers(0, SHARDS - 1))
def test_every_cell_can_be_chosen_for_every_name(cells: int, tenant: str, cell: int) -> None:
    """The shard is one that there is, in that cell; of the name's own cell it is the name's own."""
    if cell >= cells:
        with pytest.raises(Problem):
            shard_in(cell, tenant, cells)
        return
    shard = shard_in(cell, tenant, cells)
    assert 0 <= shard < SHARDS
    assert cell_of(shard, cells) == cell
    assert cell != cell_of(shard_of(tenant), cells) or shard == shard_of(tenant)


@given(
    shards=st.dictionaries(NAMES, st.integers(0, SHARDS - 1), min_size=2),
    grants=st.lists(st.tuples(NAMES, st.sets(NAMES)), max_size=6),
    cells=NUMBERS,
    data=st.data(),
)
def test_a_move_leaves_every_grant_within_one_cell(
    shards: dict[str, int], grants: list[tuple[str, set[str]]], cells: int, data: st.DataObject
) -> None:
    """Of random tenants who share models as they may: who is not left behind can call all that they could."""
    known = tenants(shards)
    publications = [
        publication(number, owner, allowed & known.keys())
        for number, (owner, allowed) in enumerate(grants)
        if owner in known and not [*faults_of(owner, enumerate(sorted(allowed & known.keys())), known, cells, "f")]
    ]
    moving = data.draw(st.sets(st.sampled_from(sorted(known)), min_size=1))
    shard = data.draw(st.integers(0, SHARDS - 1))
    theirs = [one for one in publications if {one.tenant, *one.allowed_tenants} & moving]
    left = left_behind(moving, shard, theirs, known, cells)
    changes = moved([known[name] for name in sorted(moving)], shard, theirs, 5)
    after = known | {one.record.id: one.record for one in changes if isinstance(one, Put)}  # type: ignore[misc]
    broken = {
        name
        for one in theirs
        for name in (one.tenant, *one.allowed_tenants)
        if cell_of(after[name].shard, cells) != cell_of(shard, cells)
    }
    assert set(left) == broken
    assert {one.id for one in changes if isinstance(one, Check)} == {one.uid for one in theirs}
    rooms = [one for one in changes if isinstance(one, Room)]
    assert {(one.tenant, one.allowed) for one in rooms} == {(name, which) for name in moving for which in (True, False)}
    assert {one.kind for one in rooms} == {Kind.PUBLICATION}
