"""Probe calls through a real Envoy: a publication is live when Check was asked and named it, and only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from listener import SECRETS

from catalog.keys.probetext import is_probe
from extauth.answers.probing import answered
from extauth.edge import AnswerEncoder
from extauth.question import read_question
from extauth.reasons import Reason
from extauth.verdict import Verdict
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.sink import FilesSink
from publisher.plan import plan
from publisher.prober import Prober, Proofs
from runtime.clock import SystemClock
from tests.e2e.proxy import (
    Envoy,
    Gate,
    Upstream,
    denied,
    kserve_v2,
    openai,
    options_for,
    publication,
    short_folder,
    stripped,
)

ANSWER_S = 10.0
SHORT_S = 0.2


def answer(request: CheckRequest) -> CheckResponse:
    """Answer probes as the product does, and nobody else."""
    asked = read_question(request.SerializeToString())
    assert asked is not None
    call = asked.read()
    if not is_probe(call.api_key, SECRETS, now_ms=SystemClock().wall_ms()):
        return denied(401)
    encoder = AnswerEncoder(lambda probe: answered(probe, SECRETS))
    return CheckResponse.FromString(encoder.encode(Verdict(Reason.PROBED), call))


@dataclass
class Bench:
    """An Envoy, what is before and behind it, and who asks it."""

    envoy: Envoy
    gate: Gate
    up: Upstream
    admin: EnvoyAdmin
    proofs: Proofs

    @property
    def sink(self) -> FilesSink:
        """Writes its files and has them proved."""
        authorities = "/etc/ssl/certs/ca-certificates.crt"
        return FilesSink(self.envoy.folder, self.admin, upstream_ca=authorities, proofs=self.proofs)


@asynccontextmanager
async def benched(config: Any = None) -> AsyncIterator[Bench]:
    """``config``: makes of the options what Envoy is started with instead."""
    with short_folder() as folder, Gate(folder, answer=answer) as gate, Upstream("up") as up:
        options = options_for(folder, gate.target)
        FilesSink(folder, EnvoyAdmin(options.admin_socket), upstream_ca="").prepare()
        envoy = Envoy(options, config(options) if config else None)
        with envoy:
            url = f"http://127.0.0.1:{envoy.ports['http']}"
            async with (
                EnvoyAdmin(options.admin_socket) as admin,
                Prober(url, lambda: SECRETS, SystemClock(), answer_s=ANSWER_S) as prober,
            ):
                yield Bench(envoy, gate, up, admin, Proofs(prober))


async def test_every_kind_of_publication_is_proved_and_no_model_is_asked() -> None:
    """By its own path, and by its host's entry where a body or a path can name it; nested ones as well."""
    async with benched() as bench:
        made = plan(
            [
                publication("a", "/models/a", bench.up.url),
                publication("b", "/models/a/predict", bench.up.url),
                kserve_v2("c", "/models/c", bench.up.url),
                stripped("d", "/models", bench.up.url),
                openai("e", "/models/e", bench.up.url),
                openai("f", "/v1/models/f", bench.up.url),
            ]
        )
        assert await bench.sink.apply(made) == {}
        assert len(bench.gate.requests) == 8  # each entry once
        assert bench.up.seen == 0


async def test_without_a_gate_nothing_is_live_until_it_is_back() -> None:
    """What Envoy accepted is in force, and closed."""
    async with benched() as bench:
        bench.gate.stop()
        made = plan([publication("a", "/models/a", bench.up.url)])
        reasons = await bench.proofs.missing(made, within_s=SHORT_S)
        assert "404" in reasons["a"]
        assert "the gateway answers 503: the gate cannot be asked" in (await bench.sink.apply(made))["a"]
        with Gate(bench.envoy.folder, answer=answer):
            for _ in range(50):
                if not (reasons := await bench.sink.apply(made)):
                    break
        assert reasons == {}


def _open(options: Any) -> Any:
    """An Envoy that asks nobody: what must never be."""
    made = bootstrap(options)
    for listener in made["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            manager = chain["filters"][0]["typed_config"]
            manager["http_filters"] = [one for one in manager["http_filters"] if "ext_authz" not in one["name"]]
    return made


async def test_a_listener_that_asks_no_gate_is_told() -> None:
    """A model's own answer is not taken for the gate's, and the model does not get the probe's text."""
    async with benched(_open) as bench:
        made = plan([stripped("a", "/models/a", bench.up.url)])
        reasons = await bench.sink.apply(made)
        assert "somebody else than the gate answers (200): calls pass there without a check" in reasons["a"]
        assert bench.up.seen
        seen = bench.envoy.get("/models/a", "x-api-key: tkprobe_x")
        assert seen.upstream_headers("x-api-key") == []


@pytest.mark.parametrize("name", ["clusters.json", "routes.json"])
async def test_a_plan_that_is_proved_costs_nothing_again(name: str) -> None:
    """Applied anew it writes no file and asks nothing."""
    async with benched() as bench:
        made = plan([publication("a", "/models/a", bench.up.url)])
        sink = bench.sink
        assert await sink.apply(made) == {}
        asked, file = len(bench.gate.requests), Path(bench.envoy.folder) / name
        before = file.stat().st_ino
        assert await sink.apply(made) == {}
        assert (len(bench.gate.requests), file.stat().st_ino) == (asked, before)
