"""Probe calls: the gate names what a route leads to, to its own publisher alone, and nothing is taken."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import replace

import pytest
import redis
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, make_gate, question, status, wait_until, with_body
from prometheus_client import CollectorRegistry

from catalog.keys.keytext import KeyText
from catalog.keys.probetext import LIFE_S, mint_probe
from catalog.keys.secrets import Secrets
from catalog.records import Kind, Limits
from extauth.answers.probing import OPENAI_HOST, PUBLICATION, Told, read_answer
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckResponse
from runtime.clock import SystemClock


def _probe(secrets: Secrets, *, ago_s: int = 0) -> KeyText:
    return mint_probe(secrets, now_ms=SystemClock().wall_ms() - 1000 * ago_s)


def _told(answer: CheckResponse, probe: KeyText, secrets: Secrets) -> Told | None:
    assert answer.status.code != 0, "no probe is ever let through"
    assert status(answer) == 200
    return read_answer(answer.denied_response.body.encode(), probe, secrets)


@pytest.mark.parametrize("fields", [{}, {"require_api_key": False}, {"limits": Limits(per_minute=1)}])
def test_a_probe_is_told_the_publication_and_takes_nothing(
    catalog: Catalog, asker: Asker, secrets: Secrets, store: redis.Redis, fields: dict[str, object]
) -> None:
    """As often as it is asked, whatever the publication asks of its callers."""
    catalog.tenant()
    publication = catalog.publication(**fields)
    probe = _probe(secrets)
    before = set(store.scan_iter("tk:*"))
    for _ in range(3):
        answer = asker.ask(question(key=probe.reveal(), publication=publication))
        assert _told(answer, probe, secrets) == Told(PUBLICATION, publication.uid, body_read=False)
    assert {name for name in set(store.scan_iter("tk:*")) - before if b"epoch" not in name} == set()


def test_a_probe_is_told_the_host_of_an_entry(asker: Asker, secrets: Secrets) -> None:
    """Where the body would decide, the route names a host."""
    probe = _probe(secrets)
    answer = asker.ask(question(key=probe.reveal(), openai_host=HOST, method="GET"))
    assert _told(answer, probe, secrets) == Told(OPENAI_HOST, HOST, body_read=False)


@pytest.mark.parametrize("body", [{}, {"model": "any"}])
def test_a_probe_is_told_that_its_body_was_read(
    catalog: Catalog, asker: Asker, secrets: Secrets, body: dict[str, str]
) -> None:
    """Whatever it says: no model is asked for."""
    catalog.tenant()
    publication = catalog.publication()
    probe = _probe(secrets)
    asked = with_body(question(key=probe.reveal(), publication=publication), **body)
    assert _told(asker.ask(asked), probe, secrets) == Told(PUBLICATION, publication.uid, body_read=True)


def test_a_publication_that_the_gate_does_not_know_is_404(catalog: Catalog, asker: Asker, secrets: Secrets) -> None:
    """A route that outlives its publication is not said to be live; nor is one that names nothing."""
    catalog.tenant()
    publication = catalog.publication()
    probe = _probe(secrets).reveal()
    assert status(asker.ask(question(key=probe, publication=publication))) == 200
    catalog.remove(Kind.PUBLICATION, publication)
    assert status(asker.ask(question(key=probe, publication=publication))) == 404
    assert status(asker.ask(question(key=probe))) == 404


def test_forged_and_stale_probes_are_the_ordinary_401(catalog: Catalog, asker: Asker, secrets: Secrets) -> None:
    """Nothing tells a probe that is not good from a key that is not."""
    catalog.tenant()
    publication = catalog.publication()
    foreign = dataclasses.replace(secrets, mac_keys={1: b"x" * 32})
    texts = [
        _probe(foreign).reveal(),
        _probe(secrets, ago_s=LIFE_S + 60).reveal(),
        _probe(secrets, ago_s=-LIFE_S - 60).reveal(),
        _probe(secrets).reveal()[:-1],
    ]
    ordinary = asker.ask(question(key="nonsense", publication=publication))
    assert status(ordinary) == 401
    for text in texts:
        assert asker.ask(question(key=text, publication=publication)) == ordinary


def test_probes_have_a_reason_of_their_own(
    catalog: Catalog, asker: Asker, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """Whoever counts calls can leave them out."""
    catalog.tenant()
    publication = catalog.publication()
    asker.ask(question(key=_probe(secrets).reveal(), publication=publication))
    labels = {"outcome": "allowed", "publication": "tenant-a/my-model", "tenant": ""}
    wait_until(lambda: registry.get_sample_value("tollkeeper_decisions_total", labels | {"reason": "probed"}) == 1)


def test_a_probe_is_answered_by_what_is_in_the_store_now(
    catalog: Catalog, asker: Asker, secrets: Secrets, gate: Gate
) -> None:
    """Secrets that are changed in a running gate hold for probes and for the proofs of their answers too."""
    catalog.tenant()
    publication = catalog.publication()
    rotated = replace(secrets, mac_keys={2: b"y" * 32}, current_mac_key=2)
    probe = _probe(rotated)
    asked = question(key=probe.reveal(), publication=publication)
    assert status(asker.ask(asked)) == 401
    gate.use_secrets(rotated)
    assert _told(asker.ask(asked), probe, rotated) == Told(PUBLICATION, publication.uid, body_read=False)


def test_without_a_store_nothing_is_said(redis_url: str, secrets: Secrets, registry: CollectorRegistry) -> None:
    """A gate that cannot look cannot say that a publication is there."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(NATIVE_UNIX.target(folder), "redis://127.0.0.1:1/0", secrets, registry)
        gate.start()
        asker = Asker(gate.address)
        try:
            catalog = Catalog(redis_url, secrets)
            catalog.tenant()
            asked = question(key=_probe(secrets).reveal(), publication=catalog.publication())
            assert status(asker.ask(asked)) == 503
        finally:
            asker.close()
            gate.stop()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"publication":"a"}', b'{"publication":"a","proof":1}', b'{"proof":"x"}', b"[" * 9999]
)
def test_answers_of_others_are_none(secrets: Secrets, body: bytes) -> None:
    """A model server that says what a gate would say has no proof of it."""
    assert read_answer(body, _probe(secrets), secrets) is None


def test_an_answer_to_another_probe_is_none(asker: Asker, secrets: Secrets) -> None:
    """What was overheard cannot be told again."""
    probe, other = _probe(secrets), _probe(secrets, ago_s=5)
    answer = asker.ask(question(key=probe.reveal(), openai_host=HOST))
    body = json.loads(answer.denied_response.body)
    assert read_answer(json.dumps(body).encode(), probe, secrets) == Told(OPENAI_HOST, HOST, body_read=False)
    assert read_answer(json.dumps(body).encode(), other, secrets) is None
    for change in ({OPENAI_HOST: "elsewhere.test"}, {"body_read": True}):
        assert read_answer(json.dumps(body | change).encode(), probe, secrets) is None
