"""Which listeners are patched: what Envoy Gateway makes of several that share a port, and of their hostnames."""

from __future__ import annotations

from dataclasses import replace

import pytest

from publisher.gateway.options import GatewayOptions, RouteListener
from publisher.gateway.resources.listeners import taking
from publisher.gateway.resources.manifests import base, published
from publisher.gateway.resources.naming import Json
from publisher.plan import plan
from tests.e2e.proxy import openai, publication

OPTIONS = GatewayOptions(gate=("unix:/run/gate.sock",), listeners=("http", "web"))
HTTP = RouteListener(name="http", listener="http")
WEB = RouteListener(name="web", listener="web", hostname="web.test")
API = RouteListener(name="api", listener="web", hostname="*.api.test")
ONE = RouteListener(name="one", listener="web", hostname="one.api.test")
REST = RouteListener(name="rest", listener="web")
IRIS = publication("iris", "/models/iris", host="one.api.test")
LLM = openai("llm", "/v1/models/llm", host="one.api.test")


@pytest.mark.parametrize(
    ("listeners", "hosts", "expected"),
    [
        ([HTTP], [], []),
        ([HTTP], ["any.test"], [HTTP]),
        ([HTTP, WEB], ["any.test"], [HTTP]),
        ([HTTP, WEB], ["web.test"], [HTTP, WEB]),
        ([WEB], ["a.web.test"], []),
        ([WEB, API], ["one.api.test"], [API]),
        ([WEB, API], ["a.one.api.test"], [API]),
        ([WEB, API], ["api.test"], []),
        ([WEB, API], ["one-api.test"], []),
        ([WEB, API], ["other.test", "one.api.test", "web.test"], [WEB, API]),
        ([API, ONE], ["one.api.test"], [ONE]),
        ([API, ONE], ["two.api.test"], [API]),
        ([HTTP, ONE, REST], ["one.api.test"], [HTTP, ONE]),
        ([HTTP, ONE, REST], ["two.api.test"], [HTTP, REST]),
        ([], ["any.test"], [HTTP, RouteListener(name="web", listener="web")]),
    ],
)
def test_a_listener_takes_the_hosts_that_envoy_gateway_deals_it(
    listeners: list[RouteListener], hosts: list[str], expected: list[RouteListener]
) -> None:
    """All below its wildcard, every one without a hostname, and none that another of its port is called by."""
    assert taking(hosts, replace(OPTIONS, route_listeners=listeners)) == expected


def patched(objects: tuple[Json, ...]) -> dict[str, list[tuple[str, str]]]:
    """By policy: type and name of what it patches, each once."""
    found = {}
    for policy in (obj for obj in objects if obj["kind"] == "EnvoyPatchPolicy"):
        told = [
            (one["type"].rpartition(".")[2], one["name"].rpartition("/")[2]) for one in policy["spec"]["jsonPatches"]
        ]
        found[policy["metadata"]["name"].removeprefix("tollkeeper-")] = list(dict.fromkeys(told))
    return found


def test_envoys_listener_is_patched_by_the_first_name_and_routes_by_each_own() -> None:
    """Envoy Gateway knows no listener by a later one's name, and the routes of none by another's."""
    options = replace(OPTIONS, route_listeners=(HTTP, WEB, API))
    always = [("Listener", "http"), ("Listener", "web")]
    assert patched(base(options)) == dict.fromkeys(("meter", "settle", "hardened", "replies"), always)
    made = patched(published(plan([IRIS, LLM]), options))
    assert made == {"told": always, "bodies": [("RouteConfiguration", "http"), ("RouteConfiguration", "api")]}


def test_nothing_is_patched_where_nothing_could_match() -> None:
    """A policy with such a patch is never in force, and every publication would be blamed for it."""
    options = replace(OPTIONS, route_listeners=(HTTP, WEB))
    bodies = [("RouteConfiguration", "http")]
    assert patched(published(plan([IRIS, LLM]), options)) == {"told": [("Listener", "http")], "bodies": bodies}
    assert patched(published(plan([IRIS]), options)) == {"told": [("Listener", "http")]}
    alone = replace(options, listeners=("web",), route_listeners=(WEB,))
    assert patched(published(plan([IRIS, LLM]), alone)) == {}


def test_http_listeners_of_one_port_share_their_routes() -> None:
    """The first is named for each host, and patched once."""
    shared = (replace(HTTP, hostname="web.test"), replace(HTTP, hostname="one.api.test"))
    options = replace(OPTIONS, listeners=("http",), route_listeners=shared)
    made = patched(published(plan([LLM, publication("iris", "/models/iris", host="web.test")]), options))
    assert made == {"told": [("Listener", "http")], "bodies": [("RouteConfiguration", "http")]}
