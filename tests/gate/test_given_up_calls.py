"""Calls that Envoy gives up while Check decides them: admitted in the store, heard by nobody."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
import redis
from gatebench import WIRES, Asker, Catalog, Wire, wait_until
from prometheus_client import CollectorRegistry
from tokenbench import HELD, openai_publication, reservation_of, token_call

from catalog.records import PublicationRecord
from extauth.edge import CHECK_PATH
from gate.assembly import Gate
from ratelimit.names import usage_key

Method = grpc.UnaryUnaryMultiCallable


@pytest.fixture(params=["native-unix", "grpcio-tcp"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Both transports: each has its own way to learn that nobody waits."""
    return WIRES[request.param]


@pytest.fixture
def llm(catalog: Catalog) -> PublicationRecord:
    """An openai model."""
    catalog.tenant()
    return openai_publication(catalog)


@pytest.fixture
def key(catalog: Catalog, llm: PublicationRecord) -> str:
    """A key for it."""
    return catalog.key(llm)[1]


@pytest.fixture
def check(gate: Gate) -> Iterator[Method]:
    """Check, as Envoy calls it."""
    with grpc.insecure_channel(gate.address) as channel:
        yield channel.unary_unary(CHECK_PATH)


def await_its_end(call: grpc.Future) -> None:
    """Wait until a call was given up."""
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()


def uses(store: redis.Redis, publication: PublicationRecord) -> tuple[int, int]:
    """How many calls and tokens are counted."""
    calls, tokens = store.hmget(usage_key("0", f"p:{publication.uid}"), "total", "tokens")
    return int(calls or 0), int(tokens or 0)


def test_a_call_given_up_before_its_answer_holds_nothing(
    gate: Gate,
    asker: Asker,
    check: Method,
    store: redis.Redis,
    registry: CollectorRegistry,
    llm: PublicationRecord,
    key: str,
) -> None:
    """Its caller left while the script admits it: its tokens come back, its request stays used.

    (A call that Envoy waits for no longer is not admitted at all: the script has the same deadline.)
    """
    asked = token_call(key, llm, max_tokens=10).SerializeToString()
    kept = reservation_of(asker.ask(token_call(key, llm, max_tokens=10)))
    store.client_pause(20_000, all=False)  # whatever writes waits
    try:
        call = check.future(asked, timeout=10)
        wait_until(lambda: gate._front.in_flight == 1)
        call.cancel()
        await_its_end(call)
        await_its_end(check.future(asked, timeout=0.3))  # by now the gate's side knows of it
    finally:
        store.client_unpause()
    wait_until(lambda: registry.get_sample_value("tollkeeper_reservations_released_total") == 1)
    wait_until(lambda: store.hlen(HELD) == 1)
    assert [one.decode() for one in store.hkeys(HELD)] == [kept]
    wait_until(lambda: uses(store, llm) == (2, 0))


def test_an_answer_that_was_heard_keeps_its_reservation(
    asker: Asker, store: redis.Redis, registry: CollectorRegistry, llm: PublicationRecord, key: str
) -> None:
    """Whatever its client does afterwards: from then on only how the call ended, or the sweep, ends it."""
    kept = {reservation_of(answer) for answer in asker.ask_many([token_call(key, llm, max_tokens=10)] * 5)}
    asker.close()
    assert {one.decode() for one in store.hkeys(HELD)} == kept
    assert registry.get_sample_value("tollkeeper_reservations_released_total") == 0
