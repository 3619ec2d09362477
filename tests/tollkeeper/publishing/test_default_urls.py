"""Which further origins the default host may have, and what names Envoy is given of them."""

from __future__ import annotations

import pytest

from runtime.settings import BadSettings, read
from tollkeeper.admin.app import AdminSettings, gateway_of

PUBLISHES = {
    "redis_url": "unix:///run/store.sock",
    "secrets_file": "s.json",
    "publish_to": "files:/run/envoy",
    "envoy_admin_socket": "/run/envoy.sock",
    "default_host": "api.example",
}


def test_each_name_is_given_once() -> None:
    """Whatever the schemes and ports, never the default host itself: Envoy refuses all routes for one name twice."""
    urls = "http://localhost:8080,https://LOCALHOST:8443,http://127.0.0.1:8080,https://api.example:8443"
    gateway = gateway_of(read(AdminSettings, PUBLISHES | {"default_urls": urls}))
    assert gateway.default_names == ("localhost", "127.0.0.1")
    assert [gateway.names_default(host) for host in ("localhost", "127.0.0.1", "api.example")] == [True, True, False]
    assert gateway.default_urls[0] == "http://localhost:8080"


def test_addresses_of_ipv6_are_refused() -> None:
    """They are no domains of Envoy's as they stand in a Host header."""
    with pytest.raises(BadSettings, match=r"--default-urls .*IPv4"):
        read(AdminSettings, PUBLISHES | {"default_urls": "http://localhost:8080,http://[::1]:8080"})
