"""One machine on the real Envoy Gateway for all tests of this folder; another only where a test names its wiring.

One runs at a time, so tests of one wiring follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gatewayground import Ground
from gatewayground import ground as published_ground
from gatewaystack import METERED, Machine, Wiring, machine

from tests.e2e.test_endings import OTHERS, TWELVE

ANSWERS = TWELVE | OTHERS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that names no wiring has the whole one."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "gateway" in metafunc.fixturenames and "gateway" not in named:
        metafunc.parametrize("gateway", [METERED], indirect=True, ids=["metered"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of one wiring together; the first that needs one says when its turn is."""
    wirings: list[Wiring | None] = []
    for item in items:
        if (wiring := _wiring(item)) not in wirings:
            wirings.append(wiring)
    items.sort(key=lambda item: wirings.index(_wiring(item)))


def _wiring(item: pytest.Item) -> Wiring | None:
    wiring = item.callspec.params.get("gateway") if hasattr(item, "callspec") else None
    return wiring if isinstance(wiring, Wiring) else None


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
    """The machine of a wiring. Only one runs at a time."""
    with machine(valkey_binary, request.param) as made:
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
