"""What each filter and setting of plain Envoy costs a call: ours as it is, and once without each of them.

    python -m benchmarks.envoy_share [--rounds 7] [--calls 3000] [--only WORD]

One Envoy of one thread for each form of the configuration, in front of one stub gate, which answers every Check at once
with what the product's gate answers (headers of limits, metadata, for a chat a reservation), and one stub server. Both
are processes of their own and not counted, nor is the generator (h2load, HTTP/1.1, 16 connections). The forms take
turns, round by round. Microseconds of user and system time of the whole Envoy process a call: medians, and the median
of the rounds' differences to ours as it is: what is saved without the part.

A form may be one that nobody should run: without Check, say. It is there to tell what its part costs.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from benchmarks.ground import h2load, plain_authz
from benchmarks.ground.envoys import model_server
from benchmarks.ground.h2load import Target
from benchmarks.ground.processes import cpu_us
from benchmarks.many_publications import process
from publisher.envoy.bodies import CHECK_FILTER
from publisher.envoy.bootstrap import ROUTES_FILE, bootstrap
from tests.e2e.proxy import HOST, Envoy, admitted, openai, options_for, publication, short_folder

CONNECTIONS: Final = 16
KEY: Final = "x-api-key: tk_0a1b2c3d_4e5f60718293a4b5c6d7e8f9"
LIMITS: Final = {
    "ratelimit": '"key-second";r=9;t=1, "key-minute";r=599;t=60, "key-hour";r=9999;t=3600',
    "ratelimit-policy": '"key-second";q=10;w=1, "key-minute";q=600;w=60, "key-hour";q=10000;w=3600',
    "x-ratelimit-limit": "10",
    "x-ratelimit-remaining": "9",
    "x-ratelimit-reset": "1",
}
"""What a caller is told."""

OURS: Final = "as it is"
UNNAMED: Final = ("Check", "Check's clearing of the route", "bodies in Check", "everything but the router")
"""Without these a chat reaches no model: nobody names its publication."""

Json = dict[str, Any]


@dataclass
class Form:
    """A configuration, before Envoy is started with it."""

    config: Json
    routes: Json

    @property
    def manager(self) -> Json:
        """How the http listener reads calls."""
        (chain,) = self.config["static_resources"]["listeners"][0]["filter_chains"]
        manager: Json = chain["filters"][0]["typed_config"]
        return manager

    def filter(self, name: str) -> Json:
        """The settings of a filter."""
        (found,) = (one for one in self.manager["http_filters"] if one["name"] == name)
        settings: Json = found["typed_config"]
        return settings

    def without_filters(self, *words: str) -> None:
        """Take out all whose name has one of these words."""
        kept = [one for one in self.manager["http_filters"] if not any(word in one["name"] for word in words)]
        self.manager["http_filters"] = kept

    def each_route(self) -> Iterator[Json]:
        """Every route of every host."""
        yield from _routes(self.routes)


def _routes(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if str(value.get("@type", "")).endswith("RouteList"):
            yield from value["routes"]
        else:
            for one in value.values():
                yield from _routes(one)
    elif isinstance(value, list):
        for one in value:
            yield from _routes(one)


def forms() -> dict[str, Callable[[Form], object]]:
    """Every form by its name: what is done to ours."""
    return {
        OURS: lambda _: None,
        "Check": lambda form: form.without_filters(CHECK_FILTER),
        "Check's clearing of the route": lambda form: form.filter(CHECK_FILTER).update(clear_route_cache=False),
        "bodies in Check": lambda form: form.filter(CHECK_FILTER).pop("with_request_body"),
        "route metadata in Check": lambda form: form.filter(CHECK_FILTER).pop("route_metadata_context_namespaces"),
        "CORS and its header mutation": lambda form: form.without_filters("cors", "header_mutation"),
        "Lua meter": lambda form: form.without_filters("lua"),
        "log of endings": lambda form: form.manager.update(access_log=[]),
        "removal of headers": lambda form: form.manager.pop("early_header_mutation_extensions"),
        "local replies": lambda form: form.manager.pop("local_reply_config"),
        "overload manager": lambda form: form.config.pop("overload_manager"),
        "request ids": _no_request_ids,
        "caller's address": _no_addresses,
        "normal paths": _no_normalising,
        "bounds of time": _no_timers,
        "routes' timers": _no_route_timers,
        "publication header": lambda form: [route.pop("request_headers_to_add", 0) for route in form.each_route()],
        "host and path rewrites": _no_rewrites,
        "dynamic stats of the router": _no_dynamic_stats,
        "cluster stats": _no_cluster_stats,
        "everything but the router": _bare,
    }


def _no_request_ids(form: Form) -> None:
    form.manager.update(generate_request_id=False, always_set_request_id_in_response=False)


def _no_addresses(form: Form) -> None:
    for name in ("use_remote_address", "internal_address_config", "xff_num_trusted_hops"):
        form.manager.pop(name)


def _no_normalising(form: Form) -> None:
    for name in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"):
        form.manager.pop(name)
    for name in ("strip_any_host_port", "strip_trailing_host_dot"):
        form.manager.pop(name)


def _no_timers(form: Form) -> None:
    for name in ("request_timeout", "stream_idle_timeout", "request_headers_timeout"):
        form.manager[name] = "0s"


def _no_route_timers(form: Form) -> None:
    for route in form.each_route():
        route["route"].pop("max_stream_duration", None)
        route["route"].pop("idle_timeout", None)


def _no_rewrites(form: Form) -> None:
    for route in form.each_route():
        for name in ("host_rewrite_literal", "append_x_forwarded_host", "prefix_rewrite"):
            route["route"].pop(name, None)


def _no_dynamic_stats(form: Form) -> None:
    form.filter("envoy.filters.http.router")["dynamic_stats"] = False


def _no_cluster_stats(form: Form) -> None:
    form.config["stats_config"] = {"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "cluster."}]}}}


def _bare(form: Form) -> None:
    """Only what a proxy cannot do without."""
    form.without_filters(CHECK_FILTER, "cors", "header_mutation", "lua")
    form.manager.update(access_log=[])
    for name in ("early_header_mutation_extensions", "local_reply_config"):
        form.manager.pop(name)
    form.config.pop("overload_manager")
    for change in (_no_request_ids, _no_addresses, _no_normalising, _no_timers, _no_route_timers, _no_rewrites):
        change(form)
    for route in form.each_route():
        for name in ("request_headers_to_add", "typed_per_filter_config"):
            route.pop(name, None)


def answer(*, reserves: bool) -> bytes:
    """What the gate says to a call that is admitted."""
    made = admitted({"x-tollkeeper-publication": "chat"}) if reserves else admitted({})
    for name, value in LIMITS.items():
        option = made.ok_response.response_headers_to_add.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.value = name, value
    told = {"publication": "chat" if reserves else "old", "tenant": "tenant-a", "key": "0a1b2c3d"}
    made.dynamic_metadata.update(told | ({"reservation": "0a1f00d0a1f00d0a1f00d"} if reserves else {}))
    return made.SerializeToString()


def serve_gate(target: str, ready: Any) -> None:
    """Answer every Check at once; a call with a body gets a reservation."""
    plain, reserving = answer(reserves=False), answer(reserves=True)
    plain_authz.serve(target, lambda asked: reserving if b'"messages"' in asked else plain, partial(ready.send, True))


def targets(port: int) -> dict[str, Target]:
    """The calls, by name."""
    headers = (f"host: {HOST}", KEY, "content-type: application/json")
    chat = {"model": "chat", "messages": [{"role": "user", "content": "Hello, who are you?"}], "max_tokens": 100}
    return {
        "traditional": Target(port, "/models/old/predict", b'{"instances":[1]}', headers, is_grpc=False),
        "chat": Target(port, "/v1/chat/completions", json.dumps(chat).encode(), headers, is_grpc=False),
    }


@contextmanager
def envoys(chosen: dict[str, Callable[[Form], object]]) -> Iterator[dict[str, Envoy]]:
    """One for each form."""
    with ExitStack() as stack:
        server = f"http://127.0.0.1:{stack.enter_context(model_server())}"
        gate = stack.enter_context(short_folder())
        stack.enter_context(process(serve_gate, f"unix:{gate}/gate.sock"))
        made = {}
        for name, change in chosen.items():
            folder = stack.enter_context(short_folder())
            options = options_for(folder, f"unix:{gate}/gate.sock")
            envoy = Envoy(options)
            envoy.publish([publication("old", "/models/old", server), openai("chat", "/v1/models/chat", server)])
            form = Form(copy.deepcopy(bootstrap(options)), json.loads((folder / ROUTES_FILE).read_text()))
            change(form)
            (folder / ROUTES_FILE).write_text(json.dumps(form.routes))
            made[name] = stack.enter_context(Envoy(options, form.config))
        yield made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--only", default="", help="of the forms, those with this word, beside ours as it is")
    options = parser.parse_args()
    h2load.require()
    chosen = {name: change for name, change in forms().items() if name == OURS or options.only in name}
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    with envoys(chosen) as made:
        for turn in range(options.rounds + 1):
            for name, envoy in made.items():
                for kind, target in targets(envoy.ports["http"]).items():
                    if kind == "chat" and name in UNNAMED:
                        continue
                    begun = cpu_us([envoy.pid])
                    h2load.load(target, options.calls, connections=CONNECTIONS, streams=1)
                    if turn:  # the first opens connections
                        costs[kind, name].append((cpu_us([envoy.pid]) - begun) / options.calls)
    for kind in ("traditional", "chat"):
        print(f"| {kind}, without | us a call | saved, us |\n|---|---|---|")
        ours = costs[kind, OURS]
        for name in chosen:
            if found := costs.get((kind, name)):
                saved = statistics.median(one - other for one, other in zip(ours, found, strict=True))
                print(f"| {name} | {statistics.median(found):.1f} | {saved:.1f} |")


if __name__ == "__main__":
    main()
