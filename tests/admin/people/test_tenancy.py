"""What a tenant is granted, what its operators may do with it, and when a tenant can go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from admin.models.addresses import is_listed, normal_words, parse_target
from catalog.actors import Recordless
from catalog.changes import Audit, Committed, Delete, Put
from catalog.records import Kind, Role, TenantRecord, UserRecord
from catalog.store.store import CatalogStore

HOST = "api.mycompany.com"


@pytest.fixture
async def ann(api: Any) -> Any:
    """An operator of tenant-a; gives what makes the API go on as her, or as the admin again."""
    user = UserRecord("ann", "", Role.OPERATOR, ("tenant-a",), 0, 0)
    await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "ann", "", ""))
    return lambda who="ann": api.become(who)


async def _tenant(api: Any, name: str = "tenant-a") -> TenantRecord:
    found = await api.services.store.get(Kind.TENANT, name)
    assert isinstance(found, TenantRecord)
    return found


async def test_hosts_and_upstreams_are_granted_shown_and_audited(api: Any) -> None:
    """They are stored in one spelling each, replaced as a whole, kept where absent, and told in the audit stream."""
    given = {"hosts": ["B.example", "a.example", "b.example"], "upstreamAllow": ["Models.example", "10.1.2.3/8", "::1"]}
    changed = await api.ask("PATCH", "/api/tenants/tenant-a", given)
    assert changed.body["hosts"] == ["a.example", "b.example"]
    assert changed.body["upstreamAllow"] == ["10.0.0.0/8", "::1/128", "models.example"]
    kept = await api.ask("PATCH", "/api/tenants/tenant-a", {"hosts": []})
    assert (kept.body["hosts"], kept.body["upstreamAllow"]) == ([], changed.body["upstreamAllow"])
    (entry,) = await api.services.store.audit_page(limit=1)
    assert entry.audit.detail == {"hosts": "a.example b.example -> "}
    for bad in ({"hosts": ["10.0.0.1"]}, {"upstreamAllow": ["a b"]}, {"hosts": ["x"] * 101}):
        assert (await api.ask("PATCH", "/api/tenants/tenant-a", bad)).status == 400
    assert (await api.ask("POST", "/api/tenants", {"tenantId": "new", **given})).body["hosts"] == given["hosts"][1:]


async def test_operators_publish_on_granted_hosts_only(api: Any, ann: Any, kserve: str) -> None:
    """A host that is not granted is one fault and one text, whether somebody has it or not."""
    await api.model("mine", kserve)
    await api.model("theirs", kserve, "tenant-b")
    await api.publish("theirs", publicHostname="taken.example")
    await ann()
    refusals = []
    for host in ("taken.example", "nobodys.example"):
        refused = await api.publish("mine", publicHostname=host, metadata={"a": 1})
        assert (refused.status, refused.faults) == (
            400,
            {"config.publicHostname": "reserved", "config.metadata.a": "type"},
        )
        refusals.append({name: refused.body[name] for name in ("detail", "errors", "code")})
    assert refusals[0] == refusals[1]
    assert (await api.publish("mine")).status == 201
    assert (await api.update("mine", publicHostname=HOST)).faults == {"config.publicHostname": "reserved"}
    await ann("admin")
    await api.ask("PATCH", "/api/tenants/tenant-a", {"hosts": [HOST]})
    await ann()
    assert (await api.update("mine", publicHostname=HOST)).body["publicHostname"] == HOST
    await ann("admin")
    await api.ask("PATCH", "/api/tenants/tenant-a", {"hosts": []})
    await ann()
    assert (await api.update("mine", metadata={"stays": "there"})).status == 200


async def test_an_admins_publish_grants_its_host(api: Any, ann: Any, kserve: str) -> None:
    """The tenant has the host from the same commit on; the default host needs no grant."""
    for name in ("one", "two", "three"):
        await api.model(name, kserve)
    await api.publish("one", publicHostname=HOST)
    await api.publish("two")
    assert (await _tenant(api)).hosts == (HOST,)
    await api.update("two", publicHostname="other.example", externalPath="/two")
    assert (await _tenant(api)).hosts == (HOST, "other.example")
    await ann()
    assert (await api.publish("three", publicHostname=HOST)).status == 201


async def test_a_grant_that_ends_meanwhile_is_seen(api: Any, ann: Any, kserve: str) -> None:
    """A host taken away after it was looked at and before the commit is not published on."""
    await api.model("mine", kserve)
    await api.ask("PATCH", "/api/tenants/tenant-a", {"hosts": [HOST]})
    true_ask = api.services.prober.ask

    async def ask(*asked: Any) -> Any:
        await ann("admin")
        await api.ask("PATCH", "/api/tenants/tenant-a", {"hosts": []})
        return await true_ask(*asked)

    api.services.prober.ask = ask
    await ann()
    assert (await api.publish("mine", publicHostname=HOST)).faults == {"config.publicHostname": "reserved"}


async def test_operators_register_what_the_tenant_may_reach(api: Any, ann: Any, kserve: str) -> None:
    """Outside the tenant's list a server is refused and not asked; an admin may register any; both delete."""
    await ann()
    body = {"name": "mine", "tenantId": "tenant-a", "url": kserve}
    assert (await api.ask("POST", "/api/models", body)).faults == {"url": "reserved"}
    await ann("admin")
    await api.ask("PATCH", "/api/tenants/tenant-a", {"upstreamAllow": ["127.0.0.0/8", "10.0.0.0/8"]})
    await ann()
    assert (await api.ask("POST", "/api/models", body)).body["ready"] is True
    for url in ("http://localhost:1", "http://192.168.0.1", "http://models.example"):
        assert (await api.ask("POST", "/api/models", body | {"url": url})).faults == {"url": "reserved"}
    assert (await api.ask("DELETE", "/api/models/mine")).status == 204


async def test_the_deployments_rules_hold_for_operators_too(start_api: Any, kserve: str) -> None:
    """What the tenant lists and the deployment refuses is registered as not ready and never asked, as for admins."""
    api = await start_api(allowed=())
    await api.tenant("tenant-a", upstreamAllow=["127.0.0.0/8"])
    user = UserRecord("ann", "", Role.OPERATOR, ("tenant-a",), 0, 0)
    await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "ann", "", ""))
    await api.become("ann")
    made = await api.model("mine", kserve)
    assert (made.body["ready"], made.body["message"]) == (
        False,
        "the URL is refused: the address is a loopback address",
    )


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("http://10.1.2.3:9000", True),
        ("https://10.2.0.1", False),
        ("http://[::ffff:10.1.2.3]", True),
        ("http://[64:ff9b::a01:203]", True),
        ("http://[fd00::7]", True),
        ("http://[fd00::8]", False),
        ("http://models.example", True),
        ("http://sub.models.example", False),
        ("http://models.example.evil.example", False),
    ],
)
def test_a_list_means_addresses_and_names_as_they_are_written(url: str, listed: bool) -> None:  # noqa: FBT001
    """Networks hold addresses, in whatever IPv6 they are wrapped; names hold themselves and nothing they resolve to."""
    assert is_listed(parse_target(url), normal_words(("10.1.0.0/16", "fd00::7", "Models.example"))) is listed


async def test_operators_allow_tenants_that_they_see(api: Any, ann: Any, kserve: str) -> None:
    """Another tenant's name is answered like no tenant's; what an admin allowed before may stay in the list."""
    await api.model("mine", kserve)
    await ann()
    told = []
    for name in ("tenant-b", "nobody"):
        refused = await api.publish("mine", authentication={"allowedTenants": [name]})
        assert (refused.status, refused.code) == (400, "INVALID_TENANT")
        told.append(refused.body["errors"])
    assert told[0] == told[1]
    await api.publish("mine")
    assert (await api.update("mine", authentication={"allowedTenants": ["tenant-b"]})).code == "INVALID_TENANT"
    await ann("admin")
    await api.update("mine", authentication={"allowedTenants": ["tenant-b"]})
    await ann()
    kept = await api.update("mine", authentication={"allowedTenants": ["tenant-b", "tenant-a"]})
    assert (kept.status, kept.body["authentication"]["allowedTenants"]) == (200, ["tenant-a", "tenant-b"])
    assert (await api.update("mine", authentication={"allowedTenants": []})).status == 200
    assert (await api.update("mine", authentication={"allowedTenants": ["tenant-b"]})).code == "INVALID_TENANT"


async def test_a_tenant_goes_when_nothing_is_left(api: Any, ann: Any, kserve: str) -> None:
    """Deleting names what is left, also places in other tenants' lists; an empty tenant goes and its name is free."""
    del ann
    await api.model("mine", kserve)
    await api.model("theirs", kserve, "tenant-b")
    await api.publish("mine")
    await api.publish("theirs", authentication={"allowedTenants": ["tenant-a"]})
    for left, method, path in (
        ("1 model, 1 publication, 1 key, 1 user, a place in allowedTenants of 1 other publication", "DELETE", None),
        ("1 model, 1 user, a place in allowedTenants of 1 other publication", "DELETE", "/api/models/mine/publish"),
        ("1 user, a place in allowedTenants of 1 other publication", "DELETE", "/api/models/mine"),
        ("a place in allowedTenants of 1 other publication", "DELETE", "/api/users/ann"),
    ):
        if path:
            assert (await api.ask(method, path)).status == 204
        refused = await api.ask("DELETE", "/api/tenants/tenant-a")
        assert (refused.code, refused.body["detail"]) == ("TENANT_IN_USE", f"tenant-a still has {left}")
    await api.update("theirs", authentication={"allowedTenants": []})
    assert (await api.ask("DELETE", "/api/tenants/tenant-a")).status == 204
    assert (await api.ask("GET", "/api/tenants/tenant-a")).code == "TENANT_NOT_FOUND"
    await api.tenant("tenant-a")


class Overtaken(CatalogStore):
    """The true store, where something else is written just before one act's commit, after all was read for it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.before: dict[str, list[Any]] = {}

    async def commit(self, changes: Any, *, audit: Audit, forget_usage: Any = ()) -> Committed:
        if earlier := self.before.pop(audit.action, None):
            await super().commit(earlier, audit=Audit(Recordless.START, "other.act", "", "", ""))
        return await super().commit(changes, audit=audit, forget_usage=forget_usage)


@pytest.fixture
async def overtaken(start_api: Any, redis_client: Any, kserve: str) -> Any:
    """An API with two tenants and a model, whose store lets others come first."""
    api = await start_api(Overtaken(redis_client))
    for name in ("tenant-a", "tenant-b"):
        await api.tenant(name)
    await api.model("mine", kserve)
    return api


ADDITIONS: list[tuple[str, str, str, Any]] = [
    ("model.register", "POST", "/api/models", {"name": "m", "tenantId": "tenant-b", "url": "http://127.0.0.1:1"}),
    (
        "user.create",
        "POST",
        "/api/users",
        {"name": "u", "password": "a good password", "role": "viewer", "tenants": ["tenant-b"]},
    ),
    ("user.change", "PATCH", "/api/users/ann", {"tenants": ["tenant-b"]}),
    (
        "publication.create",
        "POST",
        "/api/models/mine/publish",
        {"config": {"authentication": {"allowedTenants": ["tenant-b"]}}},
    ),
]


@pytest.mark.parametrize(("action", "method", "path", "body"), ADDITIONS, ids=[one[0] for one in ADDITIONS])
async def test_nothing_is_made_for_a_tenant_that_goes_meanwhile(
    overtaken: Any, store: Any, action: str, method: str, path: str, body: Any
) -> None:
    """A tenant deleted after all was read and before the commit: refused as naming no tenant, and nothing is its."""
    user = UserRecord("ann", "", Role.VIEWER, ("tenant-a",), 0, 0)
    await overtaken.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "x", "ann", "", ""))
    overtaken.services.store.before[action] = [Delete(Kind.TENANT, "tenant-b", 1)]
    refused = await overtaken.ask(method, path, body)
    assert (refused.status, refused.code) == (400, "INVALID_TENANT"), refused.text
    assert not store.keys("tk:index:*tenant-b")


async def test_a_tenant_that_gets_something_meanwhile_stays(overtaken: Any) -> None:
    """A record made for it after it was found empty and before it goes keeps it."""
    user = UserRecord("late", "", Role.VIEWER, ("tenant-b",), 0, 0)
    overtaken.services.store.before["tenant.delete"] = [Put(user, 0)]
    refused = await overtaken.ask("DELETE", "/api/tenants/tenant-b")
    assert (refused.code, refused.body["detail"]) == ("TENANT_IN_USE", "tenant-b still has 1 user")


async def test_a_host_taken_away_at_the_last_moment_is_not_published_on(overtaken: Any) -> None:
    """The grant is held by the commit, not by what was read before it."""
    granted = await overtaken.ask("PATCH", "/api/tenants/tenant-a", {"hosts": [HOST]})
    assert granted.status == 200
    user = UserRecord("ann", "", Role.OPERATOR, ("tenant-a",), 0, 0)
    await overtaken.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "x", "ann", "", ""))
    now = await _tenant(overtaken)
    overtaken.services.store.before["publication.create"] = [Put(structs.replace(now, hosts=()), now.version)]
    await overtaken.become("ann")
    assert (await overtaken.publish("mine", publicHostname=HOST)).faults == {"config.publicHostname": "reserved"}


async def test_quotas_hold_whoever_comes_at_once(api: Any, kserve: str) -> None:
    """Racing requests do not pass the quotas of models and publications by any."""
    api.allow(models=4)
    bodies = ({"name": f"m{n}", "tenantId": "tenant-a", "url": kserve} for n in range(8))
    answers = await asyncio.gather(*(api.ask("POST", "/api/models", body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201] * 4 + [409] * 4
    api.allow(publications=2)
    names = [one["name"] for one in (await api.ask("GET", "/api/models")).body["items"]]
    published = await asyncio.gather(*(api.publish(name) for name in names))
    assert sorted(answer.status for answer in published) == [201] * 2 + [409] * 2
    assert {answer.code for answer in (*answers, *published) if answer.status == 409} == {"QUOTA_REACHED"}
