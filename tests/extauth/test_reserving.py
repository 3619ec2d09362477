"""What a call holds back, and what its caller is told of it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import structs

from catalog.records import Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from extauth.answers.answers import denial, limit_headers
from extauth.decide import Admission
from extauth.lanes.lane import lane_of
from extauth.reasons import Reason
from extauth.records.entries import PublicationEntry, entry_of
from extauth.request.body import Body
from extauth.request.call import Call
from extauth.reserving import NONCE_BYTES, RESERVE_UNLEARNED, Reserver
from ratelimit.tokens.estimates import Framing
from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import Asked, Policy, Terms, Work, terms_of
from ratelimit.windows.budgets import Answer, Budget, BudgetState, Hold, Subject, Window
from tests.support.draws import draw, granted

NOW_MS = 1_800_000_000_000


def _state(name: str, window: Window, limit: int, remaining: int) -> BudgetState:
    return BudgetState(Subject(name, ()), Budget(window, limit), remaining, NOW_MS + 90_000)


def _hold(asked: Asked) -> Hold:
    """What a call holds at a publication of the usual settings."""
    terms = terms_of(asked, Policy())
    return Hold("0a1", terms.ceiling, terms.presumed, 1_000, terms.pack())


def test_token_budgets_have_headers_of_their_own() -> None:
    """OpenAI's names tell calls and tokens apart; X-RateLimit-* is about calls; a tenant's budget is in none."""
    states = [
        _state("k:1", Window.MINUTE, 60, 7),
        _state("k:1", Window.TOKENS_HOUR, 9_000, 3_000),
        _state("t:a", Window.TOKENS_HOUR, 500, 1),
        _state("p:1", Window.TOKENS_HOUR, 100_000, 2_500),
    ]
    headers = dict(limit_headers(states, NOW_MS, ModelType.OPENAI))
    assert headers["x-ratelimit-limit"] == headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert (headers["x-ratelimit-remaining-tokens"], headers["x-ratelimit-reset-tokens"]) == ("2500", "90s")
    assert '"publication-tokens";q=100000;w=3600' in headers["ratelimit-policy"]
    assert "500" not in headers["ratelimit-policy"]


def test_where_nobody_counts_tokens_nothing_tells_of_them() -> None:
    """A key's token budget is no business of a traditional call."""
    headers = dict(limit_headers([_state("k:1", Window.TOKENS_HOUR, 9, 3)], NOW_MS, ModelType.TRADITIONAL))
    assert headers == {}


def test_a_refusal_says_what_the_call_may_cost() -> None:
    """How many tokens it asked for, how many are left, when it fits, and what to change."""
    state = _state("p:1", Window.TOKENS_HOUR, 1_000, 40)
    refused = denial(
        Reason.LIMITED,
        grant=granted(Answer.REFUSED, (state,), 1, NOW_MS + 90_000),
        now_ms=NOW_MS,
        hold=_hold(Asked(100, 200)),
    )
    error = json.loads(refused.body)["error"]
    assert refused.status == 429
    assert (error["budget"], error["tokens"], error["remaining"]) == ("publication-tokens", 300, 40)
    assert "300 tokens" in error["message"]
    assert "'max_tokens'" in error["message"]
    assert ("retry-after", "90") in refused.headers


@pytest.mark.parametrize(
    ("asked", "says", "advises"),
    [
        (Asked(100, 200), "may cost 300 tokens (its prompt and the completion it asks for)", "fewer by 'max_tokens'."),
        (Asked(100, 200, choices=3), "may cost 700 tokens (its prompt", "fewer by 'max_tokens' or 'n'."),
        (Asked(100, work=Work.READS), "may cost 100 tokens (what it gives the model to read)", "send less at once."),
        (
            Asked(9_000, work=Work.FORM),
            "holds 1 token (what a form costs is known only when it has ended)",
            "90000 ms.",
        ),
    ],
    ids=["a prompt", "choices", "what is only read", "a form"],
)
def test_a_refusal_says_what_is_true_of_its_call(asked: Asked, says: str, advises: str) -> None:
    """Nobody is told to lower what the call does not have."""
    state = _state("k:1", Window.TOKENS_HOUR, 1_000, 0)
    grant = granted(Answer.REFUSED, (state,), 1, NOW_MS + 90_000)
    refused = denial(Reason.LIMITED, grant=grant, now_ms=NOW_MS, hold=_hold(asked))
    message = json.loads(refused.body)["error"]["message"]
    assert says in message
    assert message.endswith(advises)


def test_a_refusal_by_held_tokens_says_that_they_come_back() -> None:
    """How many are held, and that it is worth asking again; of a tenant's budget not how many."""
    told = {}
    for name in ("k:1", "t:a"):
        state = _state(name, Window.TOKENS_HOUR, 12_000, 3_808)
        grant = granted(Answer.REFUSED, (state,), 1, NOW_MS + 1_000, held=8_192)
        told[name] = denial(Reason.LIMITED, grant=grant, now_ms=NOW_MS, hold=_hold(Asked(192, 8_000)))
    for refused in told.values():
        assert (("x-should-retry", "true") in refused.headers, ("retry-after-ms", "1000") in refused.headers) == (
            True,
        ) * 2
        assert "held by calls in flight" in refused.body
    assert "3808 of 12000 an hour are left and 8192 are held by calls in flight" in told["k:1"].body
    assert "3808" not in told["t:a"].body


def test_a_call_that_never_fits_says_so() -> None:
    """400 with the bound, and no retry."""
    state = _state("p:1", Window.TOKENS_HOUR, 1_000, 1_000)
    refused = denial(
        Reason.NEVER_FITS, grant=granted(Answer.NEVER_FITS, (state,), 1), now_ms=NOW_MS, hold=_hold(Asked(192, 8_000))
    )
    message = json.loads(refused.body)["error"]["message"]
    assert (refused.status, ("x-should-retry", "false") in refused.headers) == (400, True)
    assert "8192 tokens" in message
    assert "never fits" in message


def test_a_tenants_tokens_are_its_own_business() -> None:
    """Its refusal tells level and wait only."""
    state = _state("t:a", Window.TOKENS_HOUR, 77_777, 40)
    refused = denial(
        Reason.LIMITED,
        grant=granted(Answer.REFUSED, (state,), 1, NOW_MS + 1_000),
        now_ms=NOW_MS,
        hold=_hold(Asked(100, 200)),
    )
    assert "77777" not in refused.body
    assert '"remaining"' not in refused.body


RECORD = PublicationRecord(
    "0a1pub", "t", "llm", "http://a:1", ModelType.OPENAI, Protocol.OPENAI, "h.test", "/v1/models/llm", Limits(),
    require_api_key=True, allowed_tenants=("t",), key_id="0a1key", created_at_ms=1, updated_at_ms=1,
)  # fmt: skip


def _reserved(
    path: str, body: Body | None, method: str = "POST", *, record: PublicationRecord = RECORD, raw: bytes = b"x"
) -> Terms | None:
    publication = entry_of(record)
    assert isinstance(publication, PublicationEntry)
    call = Call("", None, RECORD.uid, "", method, path=path, body=body, raw=b"" if body else raw)
    drawn = RESERVE_UNLEARNED(lane_of(Admission(None, None, publication, draw(subjects=()))), call)
    hold = drawn.hold
    if hold is None:
        return None
    terms = Terms.unpack(hold.terms)
    assert (drawn.tokens, hold.ceiling, hold.presumed) == (terms.reserved, terms.ceiling, terms.presumed)
    return terms


@pytest.mark.parametrize(
    ("path", "held", "work"),
    [
        ("/v1/chat/completions", 510, Work.GENERATES),
        ("/v1/models/llm/chat/completions", 510, Work.GENERATES),
        ("/v1/embeddings", 500, Work.READS),
        ("/v1/Embeddings/", 500, Work.READS),
        ("/v1//models/llm//rerank", 510, Work.GENERATES),  # of no publication's path: nothing is known of it
        ("/v1/models/llm//rerank", 500, Work.READS),
        ("/v1/models/llm/score", 500, Work.READS),
        ("/v1/moderations", 500, Work.READS),
        ("/v1/audio/speech", 500, Work.READS),
        ("/v1/images/generations", 510, Work.DRAWS),
        ("/v1/models/llm/audio/transcriptions", 1, Work.FORM),
        ("/v1/models/llm/images/edits", 1, Work.FORM),
        ("/v1/models/llm/whatever", 510, Work.GENERATES),
        ("/v1/models/llm/chat/completions/batch", 510, Work.GENERATES),
        ("/v1/models/llm/threads/runs", 510, Work.GENERATES),
    ],
)
def test_what_an_endpoint_does_decides_what_is_held(path: str, held: int, work: Work) -> None:
    """Slashes and case aside; whatever is not known generates."""
    terms = _reserved(path, Body("llm", 500, max_tokens=10))
    assert terms is not None
    assert (terms.reserved, terms.asked.work) == (held, work)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/Tokenize",
        "/v1/models/llm/messages/count_tokens/",
        "/v1/responses/input_tokens",
        "/v1/models/llm/vector_stores",
        "/v1/models/llm/batches",
    ],
)
def test_where_no_model_runs_no_tokens_are_held(path: str) -> None:
    """It costs a call."""
    assert _reserved(path, Body("llm", 500, max_tokens=10)) is None


def test_all_that_a_body_says_is_held() -> None:
    """Nothing of it is left for whoever settles to know."""
    body = Body("llm", 500, None, choices=3, prompts=2, stream=True, media_parts=1, says_usage=True)
    terms = _reserved("/v1/messages", body)
    assert terms is not None
    framing = Framing.MESSAGES
    assert terms.asked == Asked(500, None, 3, 2, media_parts=1, framing=framing, says_usage=True)
    assert terms.is_clamped
    assert terms.reserved == 500 + 2_048 + 6 * 4_096


def test_work_that_goes_on_is_known_as_such() -> None:
    """It is charged what it holds unless its answer tells."""
    terms = _reserved("/v1/responses", Body("llm", 500, 10, background=True))
    assert terms is not None
    assert terms.asked.is_background


BACKGROUND = structs.replace(RECORD, allow_background=True)


@pytest.mark.parametrize(
    ("method", "path", "is_result"),
    [
        ("GET", "/v1/models/llm/responses/resp_1", True),
        ("GET", "/v1/models/llm//Responses/resp_1/", True),
        ("POST", "/v1/models/llm/responses/resp_1/cancel", True),
        ("GET", "/v1/models/llm/responses/resp_1/input_items", False),
        ("GET", "/v1/models/llm/responses/resp_1/cancel/x", False),
        ("GET", "/v1/models/llm/responses", False),
        ("GET", "/v1/models/llm/chat/completions/c_1", False),
        ("GET", "/v1/models/llm/files/f_1", False),
    ],
)
def test_who_fetches_a_result_holds_nothing_and_is_heard(method: str, path: str, is_result: bool) -> None:  # noqa: FBT001
    """Where work may be left to the background; its end tells what that cost."""
    terms = _reserved(path, None, method, record=BACKGROUND, raw=b"")
    assert (terms is not None) == is_result
    assert _reserved(path, None, method, raw=b"") is None
    if terms:
        assert (terms.reserved, terms.ceiling, terms.presumed, terms.asked.work) == (0, 0, 0, Work.FETCHES)


def test_who_sends_a_body_there_holds_what_it_says() -> None:
    """A server may run its model for it."""
    path = "/v1/models/llm/responses/resp_1"
    terms = _reserved(path, Body("llm", 500, max_tokens=10), record=BACKGROUND)
    assert terms is not None
    assert (terms.reserved, terms.asked.work) == (510, Work.GENERATES)
    assert _reserved(path, None, record=BACKGROUND, raw=b"x") is None


def test_what_cannot_be_read_holds_nothing() -> None:
    """At an endpoint that its publication opened, whose body is no JSON."""
    assert _reserved("/v1/models/llm/whatever", None) is None


def test_no_id_is_given_out_twice() -> None:
    """Some are drawn at once, of as much randomness as each has alone; threads that ask at once get others."""
    drawn: list[bytes] = []

    def entropy(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    publication = entry_of(RECORD)
    assert isinstance(publication, PublicationEntry)
    lane = lane_of(Admission(None, None, publication, draw(subjects=())))
    reserve, body = Reserver(entropy), Body("llm", 100)
    with ThreadPoolExecutor(8) as threads:
        holds = list(threads.map(lambda _: reserve.draw(lane, body, "/v1/models/llm/embeddings").hold, range(4_000)))
    nonces = {hold.id[len(lane.shard) :] for hold in holds if hold}
    assert len(nonces) == 4_000
    assert {len(nonce) for nonce in nonces} == {2 * NONCE_BYTES}
    assert nonces <= {each[at : at + NONCE_BYTES].hex() for each in drawn for at in range(0, len(each), NONCE_BYTES)}


def test_the_next_call_goes_by_what_was_learned_or_changed_meanwhile() -> None:
    """What a publication's calls have in common is kept only for as long as it is the same."""
    learned = [UNLEARNED]
    reserve = Reserver(lambda count: b"1" * count, lambda _uid: learned[0])
    call = Call("", None, RECORD.uid, "", "POST", path="/v1/models/llm/embeddings", body=Body("llm", 1_000))

    def presumed(record: PublicationRecord) -> int | None:
        publication = entry_of(record)
        assert isinstance(publication, PublicationEntry)
        hold = reserve(lane_of(Admission(None, None, publication, draw(subjects=()))), call).hold
        return hold.presumed if hold else None

    assert presumed(RECORD) == 400
    learned[0] = Learned(prompt_tokens_per_byte=0.1)
    assert presumed(RECORD) == 100
    learned[0] = UNLEARNED
    assert presumed(RECORD) == 400
    assert presumed(structs.replace(RECORD, tokens=TokenPolicy(bytes_per_token=10))) == 100
