"""One machine on the real Envoy Gateway for all tests of this folder; another only where a test names its wiring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gatewayground import Ground
from gatewayground import ground as published_ground
from gatewaystack import Machine, Wiring, machine

from tests.e2e.test_endings import OTHERS, TWELVE

USUAL = Wiring()
ANSWERS = TWELVE | OTHERS


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that failed shows what the gateway said."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    made = item.funcargs.get("gateway") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(made, Machine):
        report.sections.append(("the gateway's last words", made.gateway.told()))


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest, valkey_binary: str) -> Iterator[Machine]:
    """The machine: of the usual wiring, or of the one that ``parametrize`` gives it. Only one runs at a time."""
    with machine(valkey_binary, getattr(request, "param", USUAL)) as made:
        yield made


@pytest.fixture(autouse=True)
def _is_of_this_suite(request: pytest.FixtureRequest) -> None:
    """A test that forgot its marker would run where there is no Envoy Gateway."""
    assert request.node.get_closest_marker("gateway"), "mark it: pytestmark = pytest.mark.gateway"


@pytest.fixture(scope="session")
def ground(gateway: Machine) -> Iterator[Ground]:
    """What is published on the machine for all tests."""
    with published_ground(gateway, ANSWERS) as made:
        yield made
