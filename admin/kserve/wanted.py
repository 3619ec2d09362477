"""What the catalog should have, by what a cluster has: its tenants, and its models by id. Pure.

What cannot be taken over is told, and never stands in the way of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from admin.kserve.facts import Facts, Object, facts_of, tenant_of
from admin.models.addresses import AddressRules
from admin.schemas.fields import is_model_name, is_tenant_name
from catalog.namespaces import TENANT_LABEL


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cluster says there is."""

    tenants: tuple[str, ...]  # sorted
    models: Mapping[str, Facts]  # by id: "tenant-a/my-model"
    faults: tuple[str, ...]  # what is not taken over, and why


def wanted_of(namespaces: Iterable[Object], services: Iterable[Object], rules: AddressRules) -> Wanted:
    """Read all namespaces and InferenceServices of a cluster.

    A tenant may have several namespaces. Where two of them have a model of one name, that of the first namespace by
    name is the tenant's.
    """
    owners, faults = _owners(namespaces)
    models: dict[str, Facts] = {}
    for facts in sorted((facts_of(one, rules) for one in services), key=lambda one: (one.namespace, one.name)):
        if (tenant := owners.get(facts.namespace)) is None:
            continue
        model_id = f"{tenant}/{facts.name}"
        if not is_model_name(facts.name):
            faults.append(f"{facts.namespace}/{facts.name}: the name is too long for a model's")
        elif model_id in models:
            first = models[model_id].namespace
            faults.append(f"{facts.namespace}/{facts.name}: namespace {first} has tenant {tenant}'s model of this name")
        else:
            models[model_id] = facts
    return Wanted(tuple(sorted(set(owners.values()))), models, tuple(faults))


def _owners(namespaces: Iterable[Object]) -> tuple[dict[str, str], list[str]]:
    """Tell whose each labelled namespace is, and which labels name nobody."""
    owners: dict[str, str] = {}
    faults: list[str] = []
    for name, tenant in sorted((str(one["metadata"]["name"]), tenant_of(one)) for one in namespaces):
        if is_tenant_name(tenant):
            owners[name] = tenant
        elif tenant:
            faults.append(f"namespace {name}: its label {TENANT_LABEL} must be 1 to 63 of a-z, 0-9 and -")
    return owners, faults
