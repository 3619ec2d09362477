"""What is written for a few publications: held word for word, and to Kubernetes' own description of the resources."""

from __future__ import annotations

import pytest
import yaml
from gatewaycrds import faults, folder

from tests.publisher.gateway.golden import CASES, FOLDER, made, path_of


@pytest.mark.parametrize("case", CASES)
def test_a_golden_file_says_what_is_written(case: str) -> None:
    """A difference is meant, and then ``make golden`` writes it, or it is a fault."""
    assert path_of(case).read_text() == made(case)


def test_no_golden_file_is_left_over() -> None:
    """Each belongs to a case."""
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(CASES)


@pytest.mark.skipif(folder() is None, reason="no CRDs: Envoy Gateway's Go module is not on this machine")
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_as_its_crd_describes_it(case: str) -> None:
    """No field that is not described, every value within its limits."""
    told = {obj["kind"] + " " + obj["metadata"]["name"]: faults(obj) for obj in yaml.safe_load_all(made(case))}
    assert {name: wrong for name, wrong in told.items() if wrong} == {}


@pytest.mark.skipif(folder() is None, reason="no CRDs: Envoy Gateway's Go module is not on this machine")
def test_a_field_that_no_crd_describes_is_found() -> None:
    """The test above would see it."""
    obj = next(obj for obj in yaml.safe_load_all(made("cluster")) if obj["kind"] == "SecurityPolicy")
    obj["spec"]["extAuth"]["failClosed"] = True
    assert any("failClosed" in wrong for wrong in faults(obj))
