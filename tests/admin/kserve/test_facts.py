"""What an InferenceService says of its model."""

from __future__ import annotations

import pytest

from admin.kserve.facts import Facts, facts_of, tenant_of
from admin.models.addresses import AddressRules
from catalog.records import ModelType, Protocol
from tests.tables.inference_services import ROWS, TYPES, WELL, Row

RULES = AddressRules()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_inference_service_means(row: Row) -> None:
    """Each row of the table."""
    service = {
        "metadata": {"name": "my-model", "namespace": "tenant-a", "annotations": row.annotations},
        "spec": {"predictor": row.predictor},
        "status": row.status,
    }
    wanted = Facts("tenant-a", "my-model", row.url, row.protocol, ready=not row.message, message=row.message)
    assert facts_of(service, RULES) == wanted
    assert wanted.type is TYPES.get(row.protocol, ModelType.TRADITIONAL)


def test_what_is_being_deleted_is_not_ready() -> None:
    """Whatever its conditions still say."""
    metadata = {"name": "m", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    facts = facts_of({"metadata": metadata, "spec": {}, "status": WELL}, RULES)
    assert (facts.ready, facts.message) == (False, "its InferenceService is being deleted")


@pytest.mark.parametrize(
    "odd", [{}, {"metadata": None}, {"spec": 1, "status": []}, {"status": {"conditions": [1, None]}}]
)
def test_what_is_not_there_is_why_it_is_not_ready(odd: dict[str, object]) -> None:
    """The CRD lets everything through; nothing of it is a fault of ours."""
    facts = facts_of(odd, RULES)
    assert (facts.ready, facts.url, facts.protocol) == (False, "", Protocol.KSERVE_V1)


@pytest.mark.parametrize(
    ("labels", "tenant"), [({"tollkeeper.dev/tenant": "tenant-a"}, "tenant-a"), ({"other": "x"}, ""), (None, "")]
)
def test_a_namespace_belongs_to_whom_its_label_names(labels: object, tenant: str) -> None:
    """And to nobody without one."""
    assert tenant_of({"metadata": {"name": "n", "labels": labels}}) == tenant
