"""The servers of a publication as a cluster of Envoy's."""

from __future__ import annotations

import json
from typing import Any

from catalog.records import Server
from publisher.envoy.clusters import clusters
from publisher.plan import plan
from tests.e2e.proxy import publication

CA = "/ca.pem"


def cluster(*servers: Server) -> Any:
    """The one cluster of a publication of these servers."""
    several = servers if len(servers) > 1 else ()
    made = publication("u1", "/m", servers[0].url, servers=several)
    (text,) = clusters(plan([made]), upstream_ca=CA).texts.values()
    return json.loads(text)


def test_one_server_is_never_left_out() -> None:
    """There is no other to call instead."""
    made = cluster(Server("https://a"))
    assert "outlier_detection" not in made
    assert made["transport_socket"]["typed_config"]["sni"] == "a"


def test_several_have_their_weights_and_their_own_names() -> None:
    """As Host, and over TLS: each is held to a certificate of its own name; plain ones stay plain."""
    made = cluster(Server("https://a", 9), Server("http://10.0.0.7:80", 1), Server("https://b:8443", 2))
    endpoints = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert [(one["endpoint"]["hostname"], one["load_balancing_weight"]) for one in endpoints] == [
        ("a", 9),
        ("10.0.0.7:80", 1),
        ("b:8443", 2),
    ]
    sockets = {one["match"]["sni"]: one["transport_socket"]["typed_config"] for one in made["transport_socket_matches"]}
    matched = [
        one.get("metadata", {}).get("filter_metadata", {}).get("envoy.transport_socket_match") for one in endpoints
    ]
    assert matched == [{"sni": "a"}, None, {"sni": "b"}]
    assert {name: one["sni"] for name, one in sockets.items()} == {"a": "a", "b": "b"}
    assert "transport_socket" not in made
    assert made["type"] == "STRICT_DNS"


def test_one_of_several_is_always_left() -> None:
    """Whatever fails."""
    for count in (2, 3, 16):
        made = cluster(*(Server(f"http://10.0.0.{number}:1") for number in range(count)))
        left_out = made["outlier_detection"]["max_ejection_percent"] * count // 100
        assert left_out <= count - 1
        assert made["type"] == "STATIC"
