"""Which servers a Backend can name: what is an address, what is a name, and what is neither."""

from __future__ import annotations

import pytest

from catalog.records import Protocol
from publisher.addresses import is_address
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.fitting import NO_GRPC, fitting, is_server
from publisher.plan import plan
from tests.e2e.proxy import publication


@pytest.mark.parametrize("hostname", ["10.0.0.1", "::1", "2001:db8::7", "::ffff:10.0.0.1"])
def test_an_address_is_known(hostname: str) -> None:
    """Of either kind."""
    assert is_address(hostname)
    assert is_server(hostname)


@pytest.mark.parametrize("hostname", ["m.test", "10.0.0.1.test", "1a", "a-1", "10.0.0.1a"])
def test_a_name_is_known(hostname: str) -> None:
    """Digits in it, too."""
    assert not is_address(hostname)
    assert is_server(hostname)


@pytest.mark.parametrize(
    "hostname", ["", "...", "300.1.1.1", "1.1.1", "2130706433", "010.0.0.1", "m.test.7", "fe80::1%eth0", ":", "M.test"]
)
def test_what_is_neither_is_refused(hostname: str) -> None:
    """Envoy Gateway would refuse it later, or look up what nobody means."""
    assert not is_address(hostname)
    assert not is_server(hostname)


def test_a_model_of_grpc_is_left_out_and_told_why() -> None:
    """One that an admin of plain Envoy has published; what else is on its host goes on."""
    made = plan(
        [
            publication("000aaaaaaaaaaaaaaaa", "/models/g", protocol=Protocol.GRPC),
            publication("000bbbbbbbbbbbbbbbb", "/models/iris"),
        ]
    )
    fit = fitting(made, GatewayOptions(gate=("unix:/run/gate.sock",)))
    assert fit.refused == {"000aaaaaaaaaaaaaaaa": NO_GRPC}
    assert {route.publication for host in fit.hosts for route in host.routes} == {"000bbbbbbbbbbbbbbbb"}
