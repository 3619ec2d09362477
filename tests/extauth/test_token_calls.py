"""Check of calls that cost tokens, over gRPC on a real Valkey: what is held and under which id, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from gatebench import HOST, NATIVE_UNIX, Asker, Catalog, Wire, question, status, wait_until
from tokenbench import BODY_BYTES, CONTEXT, HELD, Teller, ending, openai_publication, reservation_of, token_call

from catalog.records import Limits, ModelType, Protocol, PublicationRecord
from catalog.store import names
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckResponse
from ratelimit.names import taught_key
from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.ledger import Ledger
from ratelimit.tokens.terms import MAX_TOKENS, Asked, Terms


@pytest.fixture
def wire() -> Wire:
    """One transport: what is decided here is no matter of the wire."""
    return NATIVE_UNIX


@pytest.fixture
def llm(catalog: Catalog) -> PublicationRecord:
    """An openai model with room for twenty calls of 90 bytes and 10 tokens an hour."""
    catalog.tenant()
    return openai_publication(catalog)


@pytest.fixture
def key(catalog: Catalog, llm: PublicationRecord) -> str:
    """A key for it."""
    return catalog.key(llm)[1]


def error(answer: CheckResponse) -> dict[str, Any]:
    """The error object of a refusal."""
    found: dict[str, Any] = json.loads(answer.denied_response.body)["error"]
    return found


def test_two_hundred_at_once_on_a_budget_for_twenty(
    asker: Asker, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """Twenty pass, each with a reservation of its own; the others learn what they asked for and when it fits."""
    answers = asker.ask_many([token_call(key, llm, max_tokens=10)] * 200)
    admitted = [answer for answer in answers if status(answer) == 200]
    refused = [error(answer) for answer in answers if status(answer) == 429]
    assert (len(admitted), len(refused)) == (20, 180)
    ids = {reservation_of(answer) for answer in admitted}
    assert len(ids) == 20
    assert {one.decode() for one in store.hkeys(HELD)} == ids
    assert {(one["budget"], one["tokens"], one["remaining"]) for one in refused} == {("publication-tokens", 100, 0)}
    assert all(0 < one["retry_after_ms"] <= 3_660_000 for one in refused)


def test_a_reservation_tells_callers_apart(
    catalog: Catalog, asker: Asker, gate: Gate, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """By its id, whoever hears of its end: what a key's calls teach is counted as that key's, without naming it."""
    record, other = catalog.key(llm)
    mine, again, theirs = (
        reservation_of(asker.ask(token_call(one, llm, max_tokens=10))) or "" for one in (key, key, other)
    )
    callers = [Told(name, llm.uid, Ended(200)).caller for name in (mine, again, theirs)]
    assert callers[0] == callers[1] != callers[2]
    assert record.id not in theirs
    teller = Teller(gate.address)
    teller.tell(*(ending(name, llm, total="30", prompt="20", completion="10") for name in (mine, again, theirs)))
    by = taught_key("0", f"p:{llm.uid}")
    wait_until(lambda: bool(store.exists(by)))
    assert {name.decode(): int(calls) for name, calls in store.hgetall(by).items()} == {callers[0]: 2, callers[2]: 1}
    teller.close()


def test_one_call_after_another_is_not_told_to_give_up(catalog: Catalog, asker: Asker, gate: Gate) -> None:
    """The call before holds all the room until its end is settled: ask again in a second and a bit; then it passes.

    What is spent is told exactly, and is not worth a client's waiting.
    """
    catalog.tenant()
    small = openai_publication(catalog, limits=Limits(tokens_per_hour=150))
    asked = token_call(catalog.key(small)[1], small, max_tokens=10)
    teller = Teller(gate.address)
    for total in (20, 100):
        held = reservation_of(asker.ask(asked))
        refused = asker.ask(asked)
        headers = {option.header.key: option.header.value for option in refused.denied_response.headers}
        assert (status(refused), headers["retry-after-ms"], headers["x-should-retry"]) == (429, "1200", "true")
        assert "100 are held by calls in flight" in error(refused)["message"]
        teller.tell(ending(held or "", small, total=str(total)))
        wait_until(lambda: gate._settler.waiting == 0)
    refused = asker.ask(asked)
    headers = {option.header.key: option.header.value for option in refused.denied_response.headers}
    assert (status(refused), headers["x-should-retry"]) == (429, "false")
    assert int(headers["retry-after-ms"]) > 3_500_000
    teller.close()


def test_a_reservation_is_written_with_the_terms_of_its_call(
    asker: Asker, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """Its id begins with the publication's shard and has 128 random bits; who settles finds the terms."""
    answer = asker.ask(token_call(key, llm, max_tokens=7, max_completion_tokens=20, n=2))
    found = reservation_of(answer)
    assert found is not None
    assert (found[:3], len(found)) == (llm.uid[:3], 3 + 32 + 8)
    assert answer.dynamic_metadata.fields["publication"].string_value == llm.uid
    (raw,) = Ledger("0").terms(store.execute_command, [found])
    terms = Terms.unpack(raw or b"")
    assert terms.asked == Asked(BODY_BYTES, 20, 2)
    assert (terms.reserved, terms.bound, terms.ceiling) == (BODY_BYTES + 2 * 20, 2 * CONTEXT, MAX_TOKENS)


def test_a_body_of_unknown_size_holds_back_a_whole_context(
    asker: Asker, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """A proxy of the release before that does not tell how long a prompt is makes nobody's prompt free."""
    for size in (-1, 0):
        asked = question(key=key, publication=llm)
        asked.attributes.request.http.size = size
        told = asked.attributes.metadata_context.filter_metadata["tollkeeper.request"]
        told.update({"json": True, "model": llm.model, "max_tokens": 10})
        found = reservation_of(asker.ask(asked))
        (raw,) = Ledger("0").terms(store.execute_command, [found or ""])
        assert Terms.unpack(raw or b"").reserved == CONTEXT


def test_only_openai_calls_with_a_body_hold_tokens(catalog: Catalog, asker: Asker, store: redis.Redis) -> None:
    """With a token budget or without; neither GET nor a traditional call, though the key has one."""
    catalog.tenant()
    free = catalog.publication(model="free", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    iris = catalog.publication(model="iris", limits=Limits(tokens_per_hour=1))
    catalog.host(free)
    catalog.server(free)
    _, key = catalog.key(free, iris, limits=Limits(tokens_per_hour=10**6))
    for asked in (token_call(key, free), question(key=key, openai_host=HOST, model="free")):
        assert reservation_of(asker.ask(asked))
    bodiless = question(key=key, publication=free, method="GET")
    bodiless.attributes.request.http.path = f"{free.path}/responses/resp_1"
    for asked in (bodiless, question(key=key, publication=iris), token_call(key, iris, max_tokens=10)):
        assert reservation_of(asker.ask(asked)) is None
    assert store.hlen(HELD) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": -3}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_completion_tokens": 10**9 + 0.5}, "max_completion_tokens"),
        ({"max_output_tokens": [1]}, "max_output_tokens"),
        ({"max_output_tokens": {}}, "max_output_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
    ],
)
def test_counts_that_cannot_be_meant_are_refused(
    asker: Asker, store: redis.Redis, llm: PublicationRecord, key: str, body: dict[str, Any], param: str
) -> None:
    """400 in OpenAI's shape, which names the field; nothing is taken."""
    refused = asker.ask(token_call(key, llm, **body))
    assert (status(refused), error(refused)["param"]) == (400, param)
    assert error(refused)["type"] == "invalid_request_error"
    assert not store.exists(HELD)


def test_null_is_no_count(asker: Asker, llm: PublicationRecord, key: str) -> None:
    """As OpenAI's clients send it for what they leave out."""
    assert reservation_of(asker.ask(token_call(key, llm, max_tokens=None, n=None, max_output_tokens=10)))


@pytest.mark.parametrize(("encoding", "code"), [("gzip", 415), ("br", 415), ("gzip, identity", 415), ("identity", 200)])
def test_a_compressed_body_is_refused(asker: Asker, llm: PublicationRecord, key: str, encoding: str, code: int) -> None:
    """What cannot be read cannot be metered, whatever the proxy made of it."""
    asked = token_call(key, llm, max_tokens=10)
    asked.attributes.request.http.headers["content-encoding"] = encoding
    assert status(asker.ask(asked)) == code


def test_what_never_fits_says_how_much_it_asks_for(catalog: Catalog, asker: Asker) -> None:
    """400 with the bound that it asks for and the limit, no retry, and what to change."""
    catalog.tenant()
    small = catalog.publication(
        model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI, limits=Limits(tokens_per_hour=500)
    )
    _, key = catalog.key(small)
    refused = asker.ask(token_call(key, small, max_tokens=600))
    headers = {option.header.key: option.header.value for option in refused.denied_response.headers}
    assert (status(refused), headers["x-should-retry"]) == (400, "false")
    assert "690 tokens" in error(refused)["message"]
    assert "'max_tokens'" in error(refused)["message"]
    assert error(refused)["limit"] == 500
    assert status(asker.ask(token_call(key, small, max_tokens=400))) == 200


def test_a_call_decided_again_holds_once(asker: Asker, store: redis.Redis, llm: PublicationRecord, key: str) -> None:
    """A change behind the feed's back makes it be decided anew: one reservation, the one that the answer names."""
    assert reservation_of(asker.ask(token_call(key, llm, max_tokens=10)))
    store.delete(HELD)
    store.set(names.epoch("0"), "99-0123456789abcdef")
    found = reservation_of(asker.ask(token_call(key, llm, max_tokens=10)))
    assert [one.decode() for one in store.hkeys(HELD)] == [found]
