"""Hundreds of publications with paths inside paths: Envoy finds what the plan's list says, and so Check is told."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from envoymatching import found_by_list

from catalog.records import PublicationRecord
from extauth.kserve.paths import asked_of
from extauth.request.routed import BY_PATH
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.kserve.paths import WAITS
from publisher.plan import Host, plan
from tests.e2e.proxy import (
    HOST,
    Caller,
    Envoy,
    Gate,
    Reply,
    Upstream,
    kserve_v2,
    openai,
    options_for,
    publication,
    route_fields,
    short_folder,
    stripped,
)

PUBLICATIONS, CALLS, SEED = 400, 3_000, 20_262
OTHER = "other.test"
SEGMENTS = ["a", "ab", "b", "models", "v1", "predict", "chat", "x"]
TAILS = [
    "",
    "",
    "/",
    "/predict",
    "/infer",
    "/status",
    "/completions",
    "/a/b",
    "b",
    "?x=/v1/a",
    "?",
    "/?a",
    "x?/predict",
]
"""Behind a path of the catalog, or of none."""


@dataclass(frozen=True)
class Call:
    """A POST, and the publication that its body's model stands for, if any."""

    host: str
    path: str
    model: str


def _path(chance: random.Random) -> str:
    return "".join(f"/{chance.choice(SEGMENTS)}" for _ in range(chance.randint(1, 4)))


def _catalog(chance: random.Random, url: str) -> list[PublicationRecord]:
    """On one of the hosts a publication may have all that is below ``/v1``: there no body ever decides."""
    made = []
    for n in range(PUBLICATIONS):
        maker, host = chance.choice([publication, kserve_v2, openai, stripped]), chance.choice([HOST, OTHER])
        path = _path(chance)
        made.append(maker(f"p{n}", "/a" if (host, path) == (HOST, "/v1") else path, url, host=host, created_at_ms=n))
    return made


def _calls(chance: random.Random, catalog: Sequence[PublicationRecord]) -> list[Call]:
    starts = [*(record.path for record in catalog), *(_path(chance) for _ in range(len(catalog) // 2))]
    starts += ["/v1/elsewhere"] * (len(catalog) // 4)
    models = [*(record.uid for record in catalog), *["nobody"] * (len(catalog) // 2)]
    return [
        Call(chance.choice([HOST, OTHER]), chance.choice(starts) + chance.choice(TAILS), chance.choice(models))
        for _ in range(CALLS)
    ]


def _reply(envoy: Caller, number: int, call: Call) -> Reply:
    """Send it; its key is its number."""
    return envoy.post(call.path, json.dumps({"model": call.model}).encode(), f"x-api-key: {number}", host=call.host)


def _listed(host: Host, call: Call, models: Sequence[str]) -> tuple[dict[str, str], str]:
    """What Check is told, and the publication reached, where a host's routes are tried one after the other."""
    first = found_by_list(host, {":path": call.path}, named_by=PUBLICATION_HEADER)
    named, _, part = first.rpartition("/")
    if part == "kserve" and named == host.name:
        return {"openai_host": named, BY_PATH: "yes"}, ""
    if part == WAITS:
        asked = asked_of(call.path.partition("?")[0], is_own=True)
        is_reached = asked is not None and asked.name == named
        return {"publication": named, BY_PATH: "yes"}, named if is_reached else ""
    if part != "openai":
        return ({"publication": named}, named) if first else ({}, "")
    model = call.model if call.model in models else ""
    again = found_by_list(host, {":path": call.path, PUBLICATION_HEADER: model}, named_by=PUBLICATION_HEADER)
    return {"openai_host": host.name}, again.rpartition("/")[0] if model else ""


@pytest.mark.slow
def test_what_a_list_would_find_is_decided_and_reached() -> None:
    """The list's route, the route that Check is told and the publication that the server is told are one, always."""
    chance = random.Random(SEED)  # noqa: S311  a repeatable sequence, no secret
    with short_folder() as folder, Gate(folder) as gate, Upstream("all") as upstream:
        catalog = _catalog(chance, upstream.url)
        hosts = {host.name: host for host in plan(catalog).hosts}
        models = {name: [one.publication for one in host.routes if one.chosen_by_body] for name, host in hosts.items()}
        gate.models = {(name, uid): uid for name, uids in models.items() for uid in uids}
        calls = _calls(chance, catalog)
        envoy = Envoy(options_for(folder, gate.target))
        envoy.publish(catalog)
        with envoy:
            replies = [_reply(envoy, number, call) for number, call in enumerate(calls)]
        told = {int(asked.attributes.request.http.headers["x-api-key"]): route_fields(asked) for asked in gate.requests}
    found = [
        (told.get(number, {}), "".join(reply.upstream_headers(PUBLICATION_HEADER)) if reply.status == 200 else "")
        for number, reply in enumerate(replies)
    ]
    expected = [_listed(hosts[call.host], call, models[call.host]) for call in calls]
    assert [pair for pair in zip(calls, found, expected, strict=True) if pair[1] != pair[2]] == []
    ends = [("openai_host" in route, bool(reached)) for route, reached in found]
    assert min(ends.count(end) for end in [(False, False), (False, True), (True, False), (True, True)]) >= 10
