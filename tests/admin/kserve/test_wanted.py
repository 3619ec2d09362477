"""What the catalog should have, by what a cluster has."""

from __future__ import annotations

from typing import Any

from admin.kserve.wanted import Wanted, wanted_of
from admin.models.addresses import AddressRules


def namespace(name: str, tenant: str | None) -> dict[str, Any]:
    """A namespace as the API has it."""
    return {"metadata": {"name": name, "labels": {} if tenant is None else {"tollkeeper.dev/tenant": tenant}}}


def service(namespace: str, name: str) -> dict[str, Any]:
    """An InferenceService of which nothing is known but its name."""
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {}, "status": {}}


def wanted(namespaces: list[dict[str, Any]], services: list[dict[str, Any]]) -> Wanted:
    """Read a cluster."""
    return wanted_of(namespaces, services, AddressRules())


def test_a_model_is_its_namespaces_tenants() -> None:
    """The label's value is the tenant's name; other namespaces are nobody's."""
    found = wanted(
        [namespace("team-one", "tenant-a"), namespace("other", None)], [service("team-one", "m"), service("other", "m")]
    )
    assert found.tenants == ("tenant-a",)
    assert {model_id: facts.namespace for model_id, facts in found.models.items()} == {"tenant-a/m": "team-one"}
    assert found.faults == ()


def test_a_tenant_is_there_before_its_first_model() -> None:
    """A labelled namespace is enough."""
    assert wanted([namespace("n", "tenant-a")], []).tenants == ("tenant-a",)


def test_of_two_models_of_one_name_the_first_namespaces_is_the_tenants() -> None:
    """In whatever order they come; the other is told of."""
    spaces = [namespace("b", "t"), namespace("a", "t")]
    found = wanted(spaces, [service("b", "m"), service("a", "m"), service("b", "other")])
    assert {model_id: facts.namespace for model_id, facts in found.models.items()} == {"t/m": "a", "t/other": "b"}
    assert found.faults == ("b/m: namespace a has tenant t's model of this name",)


def test_what_cannot_be_taken_over_is_told_and_stands_in_nobodys_way() -> None:
    """A label that is no tenant's name, a name that is too long."""
    long = "m" * 64
    found = wanted([namespace("a", "Tenant_A"), namespace("b", "t")], [service("a", "m"), service("b", long)])
    assert (found.tenants, found.models) == (("t",), {})
    assert found.faults == (
        "namespace a: its label tollkeeper.dev/tenant must be 1 to 63 of a-z, 0-9 and -",
        f"b/{long}: the name is too long for a model's",
    )
