"""Probe calls from the publisher's side: what is asked, who is believed, and what is said of everything else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from authority import Authority
from listener import SECRETS, Listener, listening
from msgspec import structs

from catalog.keys.secrets import Secrets
from catalog.records import PublicationRecord
from extauth.answers.probing import OPENAI_HOST, PUBLICATION
from publisher.plan import Plan, Route, plan
from publisher.prober import AT_ONCE, Prober, Proofs
from publisher.probes import Question, bases
from runtime.clock import SystemClock
from tests.e2e.proxy import HOST, kserve_v2, openai, publication, stripped

ENTRY = f"{HOST}/v2/:probe"

FEW_S = 0.05
"""Where a test waits for something that will not come."""
AMPLE_S = 10.0
QUESTION = Question(HOST, "/models/a", PUBLICATION, "a")

NESTED = (
    publication("a", "/models/a"),
    publication("b", "/models/a/predict"),
    kserve_v2("c", "/models/a/predict/infer"),
    stripped("d", "/models"),
    stripped("e", "/models/llm/models"),
    openai("llm", "/models/llm"),
    openai("bare", "/v1/models/bare"),
    openai("deep", "/v1/models/bare/models"),
    stripped("root", "/v1"),
)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """A gateway that serves nothing yet."""
    async with listening() as made:
        yield made


@pytest.fixture
async def prober(listener: Listener) -> AsyncIterator[Prober]:
    """Asks it."""
    async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=AMPLE_S) as made:
        yield made


@pytest.fixture
def proofs(prober: Prober) -> Proofs:
    """What was proved: nothing yet."""
    return Proofs(prober)


def _first(made: Plan, host: str, path: str) -> Route | None:
    """The route that a gateway takes, by the plan's order; none that only a body can choose."""
    routes = next(one.routes for one in made.hosts if one.name == host)
    fits = (one for one in routes if (path.startswith(f"{one.path}/") if one.below else path == one.path))
    return next((one for one in fits if not one.chosen), None)


@pytest.mark.parametrize("records", [NESTED, NESTED[:-1]])
def test_a_publication_is_asked_for_where_its_own_route_is_taken(records: Sequence[PublicationRecord]) -> None:
    """However publications are nested in each other."""
    made = plan(records)
    found = bases(made)
    assert found.keys() == {record.uid for record in records}
    for uid, basis in found.items():
        own, *entries = basis.questions()
        route = _first(made, own.host, own.path)
        assert route is not None
        assert (route.publication, own.kind, own.name) == (uid, PUBLICATION, uid)
        assert own.reads_body is route.reads_body is any(one.reads_body for one in basis.routes)
        assert {(one.kind, one.name) for one in entries} <= {(OPENAI_HOST, HOST)}
        is_hidden = NESTED[-1] in records
        read = [one for one in entries if one.reads_body]
        assert bool(read) == (uid in {"llm", "bare", "deep"} and not is_hidden)
        assert ([one.path for one in entries] == ["/v2/:probe"]) == any(one.waits for one in basis.routes)


def test_the_entry_is_asked_for_where_no_publication_answers() -> None:
    """Below /v1, and below /v2 where a path names the model, at paths that can be nobody's."""
    made = plan(NESTED[:-1])
    entries = {one for basis in bases(made).values() for one in basis.questions() if one.kind == OPENAI_HOST}
    assert len(entries) == 2
    assert [_first(made, entry.host, entry.path) for entry in entries] == [None, None]


async def test_who_is_named_is_live(listener: Listener, prober: Prober) -> None:
    """And another publication at that path is not."""
    listener.routes = {(HOST, "/models/a"): (PUBLICATION, "a")}
    assert await prober.ask([QUESTION]) == {}
    listener.routes = {(HOST, "/models/a"): (PUBLICATION, "b")}
    assert await prober.ask([QUESTION]) == {QUESTION: f"{HOST}/models/a leads to publication b"}
    listener.routes = {(HOST, "/models/a"): (OPENAI_HOST, HOST)}
    assert await prober.ask([QUESTION]) == {QUESTION: f"{HOST}/models/a leads to the openai models of {HOST}"}


async def test_bodies_must_be_read_where_the_gate_needs_them(listener: Listener, prober: Prober) -> None:
    """A gateway whose routes lead right but read no body refuses every call of an openai model: it is not live."""
    made = plan([publication("iris", "/models/iris"), openai("llm", "/models/llm")])
    listener.serve(made)
    questions = {uid: basis.questions() for uid, basis in bases(made).items()}
    listener.reads_bodies = False
    assert await prober.ask(questions["iris"]) == {}
    faults = await prober.ask(questions["llm"])
    assert faults.keys() == set(questions["llm"])
    assert all(
        "hears no bodies, so every call is refused; is the policy that brings them in force?" in why
        for why in faults.values()
    )
    listener.reads_bodies = True
    assert await prober.ask(questions["llm"]) == {}


def _refusal(reason: str) -> str:
    return json.dumps({"error": {"reason": reason}})


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, "", "no route leads to it (404)"),
        (404, _refusal("no_publication"), "the gate does not know where its route leads (404)"),
        (401, _refusal("unauthenticated"), "the same --secrets-file, and clocks less than 60 s apart"),
        (301, "", "the listener redirects (301)"),
        (503, "", "the gateway answers 503: the gate cannot be asked"),
        (503, _refusal("store_away"), "the gateway answers 503 (store_away)"),
        (200, '{"publication":"a","proof":"00"}', "somebody else than the gate answers (200)"),
        (200, "[" * 20_000, "somebody else than the gate answers (200)"),
        (204, "", "somebody else than the gate answers (204): calls pass there without a check"),
        (403, "<html>", "no gate has answered, but somebody (403)"),
        (429, _refusal("overloaded"), "the gate refuses the probe (429, overloaded)"),
    ],
)
async def test_what_is_no_gates_answer_is_said(
    listener: Listener, prober: Prober, status: int, body: str, told: str
) -> None:
    """Each with what its operator can make of it; a server that poses as the gate is no gate."""
    listener.instead = status, body
    assert told in (await prober.ask([QUESTION]))[QUESTION]


async def test_a_gate_with_other_secrets_is_not_believed(listener: Listener, prober: Prober) -> None:
    """It refuses what it does not know."""
    listener.routes = {(HOST, "/models/a"): (PUBLICATION, "a")}
    listener.secrets = replace(SECRETS, mac_keys={1: b"x" * 32})
    assert "401" in (await prober.ask([QUESTION]))[QUESTION]


async def test_silence_is_bounded(listener: Listener) -> None:
    """A listener that never answers holds nobody up."""
    listener.silent = True
    async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=FEW_S) as prober:
        assert await prober.ask([QUESTION]) == {QUESTION: f"{listener.url} did not answer within 0.05 s"}


async def test_a_silent_listener_is_not_asked_for_all(listener: Listener) -> None:
    """However many publications there are: those that were not asked are said not to be, and are asked next time."""
    uids = [f"p{number}" for number in range(5 * AT_ONCE)]
    made = plan([publication(uid, f"/models/{uid}") for uid in uids])
    listener.silent = True
    async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=AMPLE_S) as prober:
        proofs = Proofs(prober)
        async with asyncio.timeout(AMPLE_S / 2):
            reasons = await proofs.missing(made, within_s=FEW_S)
        assert reasons == dict.fromkeys(uids, f"not asked yet: {listener.url} does not answer")
        listener.silent = False
        listener.serve(made)
        assert await proofs.missing(made, within_s=AMPLE_S) == {}


async def test_a_listener_that_answers_is_asked_for_all(listener: Listener) -> None:
    """Though it takes longer for all of them than it may be silent."""
    made = plan([publication(f"p{number}", f"/models/p{number}") for number in range(4 * AT_ONCE)])
    listener.serve(made)
    listener.slow_s = 0.5
    async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=AMPLE_S) as prober:
        assert await Proofs(prober).missing(made, within_s=1.5) == {}


async def test_a_pass_ends_however_many_there_are(listener: Listener) -> None:
    """What changes meanwhile has its turn; those that were not asked are asked next time, and the new ones first."""
    made = plan([publication(f"p{number:02}", f"/models/p{number}") for number in range(6 * AT_ONCE)])
    listener.serve(made)
    listener.slow_s = 0.4
    async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=AMPLE_S) as prober:
        proofs = Proofs(prober)
        reasons = await proofs.missing(made, within_s=0.9, longest_s=1)
        assert 0 < len(reasons) < 6 * AT_ONCE
        listener.asked.clear()
        listener.slow_s = 0
        more = plan(
            [publication("p99", "/models/p99"), *(publication(uid, f"/models/p{int(uid[1:])}") for uid in reasons)]
        )
        listener.serve(more)
        assert await proofs.missing(more, within_s=AMPLE_S, longest_s=AMPLE_S) == {}
        assert listener.asked[:AT_ONCE].count(f"{HOST}/models/p99") == 1


async def test_nobody_there_is_said() -> None:
    """It is no refusal of the gate's."""
    async with listening() as gone:
        pass
    async with Prober(gone.url, lambda: SECRETS, SystemClock()) as prober:
        assert f"{gone.url} cannot be asked" in (await prober.ask([QUESTION]))[QUESTION]


async def test_few_are_asked_at_once_and_each_once(listener: Listener, prober: Prober) -> None:
    """A gateway with many publications is not flooded."""
    questions = [Question(HOST, f"/models/{number}", PUBLICATION, str(number)) for number in range(50)]
    listener.routes = {(one.host, one.path): (one.kind, one.name) for one in questions}
    assert await prober.ask([*questions, *questions]) == {}
    assert len(listener.asked) == 50
    assert 1 < listener.most_at_once <= AT_ONCE


async def test_any_certificate_will_do(tmp_path: Path) -> None:
    """The answer is proved by itself; what is overheard is of no use."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*Authority(tmp_path, "nobody").give("elsewhere.test"))
    async with listening(tls) as listener:
        listener.routes = {(HOST, "/models/a"): (PUBLICATION, "a")}
        async with Prober(listener.url, lambda: SECRETS, SystemClock(), answer_s=AMPLE_S) as prober:
            assert await prober.ask([QUESTION]) == {}


async def test_only_what_changed_is_asked_again(listener: Listener, proofs: Proofs) -> None:
    """A change of one costs its own questions, and nothing is known of those of another process."""
    records = [publication("a", "/models/a"), publication("b", "/models/b")]
    listener.serve(plan(records))
    assert await proofs.missing(plan(records)) == {}
    listener.asked.clear()
    moved = [records[0], structs.replace(records[1], path="/elsewhere")]
    listener.serve(plan(moved))
    assert await proofs.missing(plan(moved)) == {}
    assert listener.asked == [f"{HOST}/elsewhere", ENTRY]
    listener.asked.clear()
    assert await proofs.missing(plan(moved)) == {}
    assert listener.asked == []
    assert await proofs.missing(plan([])) == {}
    assert await proofs.missing(plan(moved)) == {}
    assert sorted(listener.asked) == [f"{HOST}/elsewhere", f"{HOST}/models/a", ENTRY]


async def test_a_server_that_moved_is_asked_for_again(listener: Listener, proofs: Proofs) -> None:
    """Though its path stays."""
    record = publication("a", "/models/a")
    listener.serve(plan([record]))
    await proofs.missing(plan([record]))
    await proofs.missing(plan([structs.replace(record, url="http://127.0.0.1:10")]))
    assert listener.asked == [f"{HOST}/models/a", ENTRY] * 2


async def test_what_is_new_is_waited_for(listener: Listener, proofs: Proofs) -> None:
    """Until it answers, and it is told meanwhile."""
    made = plan([publication("a", "/models/a")])
    asking = asyncio.create_task(proofs.missing(made, within_s=AMPLE_S))
    async with asyncio.timeout(AMPLE_S):
        while not listener.asked or not proofs.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert proofs.waiting == "1 of 1 publications are not reached yet"
    listener.serve(made)
    assert await asking == {}
    assert proofs.waiting == ""


async def test_what_failed_before_holds_nobody_up(listener: Listener, proofs: Proofs) -> None:
    """It is asked once each time, and is live as soon as it answers."""
    made = plan([publication("a", "/models/a")])
    assert await proofs.missing(made, within_s=FEW_S) == {"a": "no route leads to it (404)"}
    listener.asked.clear()
    assert await proofs.missing(made, within_s=AMPLE_S) == {"a": "no route leads to it (404)"}
    assert listener.asked == [f"{HOST}/models/a", ENTRY]
    listener.serve(made)
    assert await proofs.missing(made, within_s=AMPLE_S) == {}


async def test_an_openai_publication_is_live_by_path_and_by_body(listener: Listener, proofs: Proofs) -> None:
    """Its host's entry is asked once for all of them."""
    made = plan([openai("x", "/models/x"), openai("y", "/v1/models/y")])
    listener.serve(made)
    assert await proofs.missing(made) == {}
    assert sorted(listener.asked) == [f"{HOST}/models/x/:probe", f"{HOST}/v1/:probe", f"{HOST}/v1/models/y/:probe"]
    del listener.routes[HOST, "/v1/:probe"]
    changed = plan([openai("x", "/elsewhere/x"), openai("y", "/v1/models/y")])
    listener.routes[HOST, "/elsewhere/x/:probe"] = (PUBLICATION, "x")
    assert await proofs.missing(changed, within_s=FEW_S) == {"x": "no route leads to it (404)"}


async def test_secrets_are_those_of_the_moment(listener: Listener) -> None:
    """A MAC key that is rotated in a running publisher is used from then on."""
    listener.routes = {(HOST, "/models/a"): (PUBLICATION, "a")}
    current: list[Secrets] = [replace(SECRETS, mac_keys={2: b"x" * 32}, current_mac_key=2)]
    async with Prober(listener.url, lambda: current[0], SystemClock(), answer_s=AMPLE_S) as prober:
        assert await prober.ask([QUESTION])
        current[0] = SECRETS
        assert await prober.ask([QUESTION]) == {}
