"""The gate as the rate-limit service of somebody else's Envoy: its own filter, its own headers, limits from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gatebench import wait_until
from gateprocess import GateProcess, gate_process

from catalog.keys.secrets import create_secrets
from publisher.envoy.files import socket_address
from publisher.envoy.gate import GATE, gate_cluster
from tests.e2e.proxy import Envoy, Reply, Upstream, options_for, short_folder

TYPE = "type.googleapis.com/envoy."
FILE = """
domain: shop
descriptors:
  - key: path
    rate_limit: {unit: day, requests_per_unit: 1000, name: paths}
    descriptors:
      - {key: user, rate_limit: {unit: day, requests_per_unit: 4}}
      - {key: user, value: root, rate_limit: {unlimited: true}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 20}}
  - {key: gold, rate_limit: {unit: minute, requests_per_unit: 60, replaces: [{name: paths}]}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: account, rate_limit: {unit: day, requests_per_unit: 100}}
  - {key: back, rate_limit: {unit: week, requests_per_unit: 4294967295}}
"""
ACTIONS = (("path",), ("user",), ("path", "user"), ("gold",), ("trial",))
"""The headers that make up a descriptor: sent by Envoy where all of them are there."""


BROUGHT = {"requests_per_unit": 2, "unit": "HOUR"}
"""The limit that Envoy brings along for ``x-brought``, which the file does not list."""


@dataclass(frozen=True)
class Machine:
    """Envoy, a gate process, and the file that it follows."""

    envoy: Envoy
    gate: GateProcess
    file: Path

    def call(self, **headers: str) -> Reply:
        """Call with these headers: ``x_hits`` becomes ``x-hits``."""
        return self.envoy.get("/", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()))

    def left(self, **headers: str) -> int:
        """What the strictest limit has left, as an answer's header tells."""
        return int(self.call(**headers).headers["x-ratelimit-remaining"])


@pytest.fixture
def machine(redis_url: str) -> Iterator[Machine]:
    """All parts, ready."""
    with short_folder() as folder, ExitStack() as stack:
        create_secrets(folder / "secrets.json")
        file = folder / "descriptors.yaml"
        file.write_text(FILE)
        gate = stack.enter_context(gate_process(redis_url, folder / "secrets.json", "--descriptors", str(file)))
        shop = stack.enter_context(Upstream("shop"))
        options = options_for(folder, gate.target)
        envoy = Envoy(options, _config(options.admin_socket, gate.target, int(shop.url.rpartition(":")[2])))
        stack.enter_context(envoy)
        yield Machine(envoy, gate, file)


def _config(admin_socket: str, gate: str, shop: int) -> dict[str, Any]:
    """An Envoy that limits and tells the limits in headers."""
    limits: list[dict[str, Any]] = [{"actions": [_header(name) for name in names]} for names in ACTIONS]
    limits.append({"actions": [_header("account")], "hits_addend": {"format": "%REQ(x-cost)%"}})
    brought = {"metadata_key": {"key": "brought", "path": [{"key": "limit"}]}}
    limits.append({"actions": [_header("brought")], "limit": {"dynamic_metadata": brought}})
    limits.append({"actions": [_header("back")], "hits_addend": {"number": 2, "is_negative_hits": True}})
    mine = _filter("ratelimit", "RateLimitPerRoute", rate_limits=limits)
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "shop"},
        "typed_per_filter_config": {mine["name"]: mine["typed_config"]},
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    hits = {"text_format_source": {"inline_string": "%REQ(x-hits)%"}, "omit_empty_values": True}
    state = {"object_key": "envoy.ratelimit.hits_addend", "format_string": hits, "skip_if_empty": True}
    service = {"envoy_grpc": {"cluster_name": GATE}, "timeout": "10s"}
    filters = [
        _filter("set_filter_state", "Config", on_request_headers=[state]),
        _filter("set_metadata", "Config", metadata=[{"metadata_namespace": "brought", "value": {"limit": BROUGHT}}]),
        _filter(
            "ratelimit",
            "RateLimit",
            domain="shop",
            failure_mode_deny=True,
            timeout="10s",
            enable_x_ratelimit_headers="DRAFT_VERSION_03",
            rate_limit_service={"transport_api_version": "V3", "grpc_service": service},
        ),
        _filter("router", "Router"),
    ]
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "shop",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": filters,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    ends = [{"endpoint": {"address": socket_address("127.0.0.1", shop)}}]
    behind = {"name": "shop", "load_assignment": {"cluster_name": "shop", "endpoints": [{"lb_endpoints": ends}]}}
    return {
        "admin": {"address": {"pipe": {"path": admin_socket}}},
        "static_resources": {
            "listeners": [{"name": "http", "address": socket_address("127.0.0.1", 0), "filter_chains": [chain]}],
            "clusters": [gate_cluster((gate,), connect_timeout="1s"), behind],
        },
    }


def _header(name: str) -> dict[str, Any]:
    return {"request_headers": {"header_name": f"x-{name}", "descriptor_key": name}}


def _filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    kind = f"{TYPE}extensions.filters.http.{name}.v3.{message}"
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": kind, **config}}


def test_envoy_tells_the_limit_in_its_headers(machine: Machine) -> None:
    """Limit, window, what is left and when: of the strictest limit that the call met."""
    reply = machine.call(x_user="ann")
    assert (reply.status, reply.upstream) == (200, "shop")
    assert reply.headers["x-ratelimit-limit"] == "20, 20;w=3600"
    assert reply.headers["x-ratelimit-remaining"] == "19"
    assert 3_500 < int(reply.headers["x-ratelimit-reset"]) <= 3_661
    strictest = machine.call(x_path="/a", x_user="ann")
    assert strictest.headers["x-ratelimit-limit"].split(",")[0] == "4"
    assert strictest.headers["x-ratelimit-remaining"] == "3"


def test_a_limit_is_exact_under_parallel_calls(machine: Machine) -> None:
    """80 at once on a budget of 20: 20 pass, the others get Envoy's 429 with nothing left."""
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: machine.call(x_user="ann"), range(80)))
    assert Counter(reply.status for reply in replies) == {200: 20, 429: 60}
    refused = [reply for reply in replies if reply.status == 429]
    assert {reply.headers["x-ratelimit-remaining"] for reply in refused} == {"0"}
    assert all(0 < int(reply.headers["x-ratelimit-reset"]) <= 3_661 for reply in refused)
    assert machine.call(x_user="bob").status == 200


def test_a_refused_call_costs_nothing_anywhere(machine: Machine) -> None:
    """All descriptors of a call, or none: the nested limit refuses, and the one above keeps what it had."""
    for _ in range(4):
        assert machine.call(x_path="/a", x_user="ann").status == 200
    assert [machine.call(x_path="/a", x_user="ann").status for _ in range(3)] == [429] * 3
    assert machine.left(x_path="/a") == 1000 - 4 - 1
    assert machine.left(x_user="ann") == 20 - 4 - 1


def test_what_is_unlimited_replaced_or_only_tried_out_refuses_nobody(machine: Machine) -> None:
    """A named value stands before its key's default, a better limit replaces another, shadow mode only counts."""
    assert {machine.call(x_path="/a", x_user="root").status for _ in range(10)} == {200}
    assert {machine.call(x_trial="yes").status for _ in range(5)} == {200}
    before = machine.left(x_path="/b")
    assert machine.call(x_path="/b", x_gold="yes").headers["x-ratelimit-limit"].split(",")[0] == "60"
    assert machine.left(x_path="/b") == before - 1  # the call in between was not counted here
    assert "x-ratelimit-limit" not in machine.call(x_other="1").headers


def test_hits_are_the_calls_or_the_descriptors_own(machine: Machine) -> None:
    """As Envoy sends them: the request's from its filter state, 0 being 1; a descriptor's from its format, 0 a look."""
    assert machine.left(x_user="ann", x_hits="5") == 15
    assert machine.left(x_user="ann", x_hits="0") == 14
    assert machine.left(x_account="a", x_cost="40", x_hits="3") == 60
    assert machine.left(x_account="a", x_cost="0", x_hits="3") == 60
    assert machine.call(x_account="a", x_cost="61").status == 429
    assert machine.call(x_user="ann", x_hits="15").status == 429
    assert machine.call(x_user="ann", x_hits="14").status == 200


def test_a_limit_that_envoy_brings_along_is_obeyed(machine: Machine) -> None:
    """By its filter, from metadata: of an entry that the file does not list; counted in a metric of its own."""
    replies = [machine.call(x_brought="a") for _ in range(10)]
    assert [reply.status for reply in replies] == [200, 200, *[429] * 8]
    assert replies[0].headers["x-ratelimit-limit"] == "2, 2;w=3600"
    assert machine.call(x_brought="b").status == 200
    told = 'tollkeeper_descriptor_hits_total{limit="shop.brought",outcome="%s",source="request"}'
    assert machine.gate.metric(told % "over_limit") == 8
    assert machine.gate.metric(told % "within_limit") == 3


def test_hits_that_envoy_gives_back_and_the_largest_limit(machine: Machine) -> None:
    """Nothing has been counted, so nothing comes back; a week's limit of 32 bits is told whole."""
    reply = machine.call(x_back="a")
    assert (reply.status, reply.headers["x-ratelimit-remaining"]) == (200, "4294967295")


def test_a_changed_file_is_in_force_soon_and_a_bad_one_never(machine: Machine) -> None:
    """Without a restart; what is refused is told with its line and rule, and the limits before stay."""
    machine.file.write_text(FILE.replace("requests_per_unit: 20", "requests_per_unit: 30"))
    wait_until(lambda: machine.call(x_user="new").headers["x-ratelimit-limit"] == "30, 30;w=3600", timeout_s=10)
    machine.file.write_text(FILE.replace("unit: hour", "unit: fortnight"))
    wait_until(lambda: "descriptors_refused" in machine.gate.warnings(), timeout_s=10)
    (told,) = (one for one in machine.gate.ready()["warnings"] if one["code"] == "descriptors_refused")
    assert "line 9" in told["problem"]
    assert "fortnight" in told["problem"]
    assert machine.call(x_user="ann").headers["x-ratelimit-limit"] == "30, 30;w=3600"
    assert machine.gate.metric('tollkeeper_descriptor_loads_total{outcome="refused"}') == 1
