"""Calls that name a model by the path: whom they reach, what they cost, and what nobody learns by them."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from decisionworld import World, check
from msgspec import structs

from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import (
    HostRecord,
    KeyRecord,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    RouteRecord,
    TenantRecord,
)
from catalog.routes import route_id
from extauth.answers.answers import Denial
from extauth.edge import AnswerEncoder
from extauth.lanes.lane import Lane
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.request.call import Call
from extauth.verdict import Verdict, granted
from protos.external_auth_pb2 import CheckResponse
from ratelimit.windows.budgets import Answer, Grant

entropy = random.Random(18).randbytes  # noqa: S311  of tests
HOST = "api.example"
SECRETS = Secrets(
    peppers={1: entropy(32)},
    current_pepper=1,
    mac_keys={1: entropy(32)},
    current_mac_key=1,
    jwt_key=entropy(32),
    recovery_key=entropy(32),
)


def publication(tenant: str, model: str, protocol: Protocol, **fields: Any) -> PublicationRecord:
    """One that its own tenant alone may call, unless told otherwise."""
    kind = ModelType.OPENAI if protocol is Protocol.OPENAI else ModelType.TRADITIONAL
    made = PublicationRecord(
        uid=new_id(shard_of(tenant), entropy),
        tenant=tenant,
        model=model,
        url=f"http://{model}:80",
        type=kind,
        protocol=protocol,
        host=HOST,
        path=f"/models/{model}",
        limits=Limits(per_minute=5),
        require_api_key=True,
        allowed_tenants=(tenant,),
        key_id="",
        created_at_ms=0,
        updated_at_ms=0,
    )
    return structs.replace(made, **fields)


BOTH = ("tenant-a", "tenant-b")
IRIS = publication("tenant-a", "iris", Protocol.KSERVE_V1, aliases=("flowers",))
DIGITS = publication("tenant-a", "digits", Protocol.KSERVE_V2, model_id="digits-v7")
LLM = publication("tenant-a", "llm", Protocol.OPENAI)
PLAIN = publication("tenant-a", "plain", Protocol.HTTP)
FOREIGN = publication("tenant-b", "shared", Protocol.KSERVE_V2, allowed_tenants=BOTH)
HIDDEN = publication("tenant-b", "iris", Protocol.KSERVE_V1)
OPEN = publication("tenant-a", "open", Protocol.KSERVE_V2, require_api_key=False)
FORBIDDEN = publication("tenant-a", "forbidden", Protocol.KSERVE_V1)
ALL = [IRIS, DIGITS, LLM, PLAIN, FOREIGN, HIDDEN, OPEN, FORBIDDEN]
TEXT = mint(new_id(shard_of("tenant-a"), entropy), SECRETS, entropy)


def key() -> KeyRecord:
    """tenant-a's, for all but FORBIDDEN, HIDDEN's too, which it may not know of."""
    uids = tuple(one.uid for one in ALL if one is not FORBIDDEN)
    return KeyRecord(TEXT.reveal()[3:22], "tenant-a", "n", uids, hash_key(TEXT, SECRETS), 0, 0, limits=Limits(burst=3))


@pytest.fixture(params=["table", "routes"])
def world(request: pytest.FixtureRequest) -> World:
    """A host of all of them, whose names stand in its table or in records of their own."""
    world = World()
    names = {f"{one.tenant}/{name}": one.uid for one in ALL if one.is_said for name in one.names}
    routes = [RouteRecord(route_id(HOST, *name.split("/", 1)), uid) for name, uid in names.items()]
    host = HostRecord(HOST, {}, names) if request.param == "table" else HostRecord(HOST, None, None)
    tenants = [TenantRecord(name, shard_of(name), 0, 0, limits=Limits(per_hour=9)) for name in BOTH]
    world.put(key(), *tenants, *ALL, host, *(routes if request.param == "routes" else ()))
    return world


def call(
    path: str, method: str = "POST", *, own: PublicationRecord | None = None, text: str = "", **fields: Any
) -> Call:
    """A call by the key, to the host or below a publication's path."""
    api_key = text or TEXT.reveal()
    where = {"publication": own.uid, "openai_host": ""} if own else {"publication": "", "openai_host": HOST}
    return Call(
        api_key=api_key,
        key_fault=None,
        method=method,
        path=(own.path if own else "") + path,
        by_path=True,
        **where,
        **fields,
    )


def ask(world: World, *calls: Call) -> list[Verdict]:
    """What becomes of calls, one after the other: the second of two alike goes by a lane."""
    checker = world.checker(SECRETS)
    return [check(checker, one)[0] for one in calls]


def left_by(verdict: Verdict, asking: Call) -> str:
    """The path by which Envoy is told to have a call leave."""
    encoder = AnswerEncoder(lambda _call: Denial(200, [], ""))
    answer = CheckResponse.FromString(encoder.encode(verdict, asking))
    return next(one.header.value for one in answer.ok_response.headers if one.header.key == ":path")


@pytest.mark.parametrize(
    ("path", "model", "left"),
    [
        ("/v1/models/iris:predict", IRIS, "/:kserve/v1/models/iris:predict"),
        ("/v1/models/flowers:explain", IRIS, "/:kserve/v1/models/iris:explain"),
        ("/v1/models/tenant-a/iris:predict", IRIS, "/:kserve/v1/models/iris:predict"),
        ("/v2/models/digits/infer", DIGITS, "/:kserve/v2/models/digits-v7/infer"),
        ("/v2/models/digits-v7/versions/3/infer", DIGITS, "/:kserve/v2/models/digits-v7/versions/3/infer"),
        ("/v2/models/tenant-b/shared/generate", FOREIGN, "/:kserve/v2/models/shared/generate"),
        ("/v2/models/flowers/infer", IRIS, "/:kserve/v2/models/iris/infer"),
        ("/v1/models/digits:predict", DIGITS, "/:kserve/v1/models/digits-v7:predict"),
    ],
)
def test_a_name_in_the_path_means_a_model_to_its_caller(
    world: World, path: str, model: PublicationRecord, left: str
) -> None:
    """By whatever it is called, in either protocol, also the second time; a call of key, tenant and publication."""
    asked = [call(path, query="a=b%2f"), call(path, query="c")]
    for verdict, one in zip(ask(world, *asked), asked, strict=True):
        assert (verdict.reason, verdict.publication and verdict.publication.record) == (Reason.OK, model)
        assert left_by(verdict, one) == f"{left}?{one.query}"
        assert isinstance(verdict.asked, Lane)
        subjects = [subject.name[:2] for subject in verdict.asked.draw.charge.subjects]
        assert subjects == ["k:", "t:", "p:"]


def test_two_versions_by_one_lane_leave_by_their_own_paths(world: World) -> None:
    """What is decided once says nothing of the version, nor of the query."""
    asked = [call(f"/v2/models/digits/versions/{n}/infer") for n in (1, 2)]
    left = [left_by(verdict, one) for verdict, one in zip(ask(world, *asked), asked, strict=True)]
    assert left == [f"/:kserve/v2/models/digits-v7/versions/{n}/infer" for n in (1, 2)]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/iris", IRIS),
        ("/v2/models/digits", DIGITS),
        ("/v2/models/digits/ready", DIGITS),
        ("/v2/models/digits/versions/1", DIGITS),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_server_tells_of_a_model_costs_no_call_of_it(
    world: World, path: str, model: PublicationRecord, method: str
) -> None:
    """It goes to the server, and is priced as a list of models is; by any other method it is a call."""
    (told,) = ask(world, call(path, method))
    assert (told.reason, told.publication and told.publication.record) == (Reason.OK, model)
    assert isinstance(told.asked, Lane)
    subjects = [subject.name[:2] for subject in told.asked.draw.charge.subjects]
    assert subjects == ["m:"]
    (posted,) = ask(world, call(path, "POST"))
    assert isinstance(posted.asked, Lane)
    assert "p:" in [subject.name[:2] for subject in posted.asked.draw.charge.subjects]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", {"status": "alive"}),
        ("/v2", {"name": "tollkeeper", "version": "", "extensions": []}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
    ],
)
def test_that_a_server_is_there_the_gate_says(world: World, path: str, said: dict[str, Any]) -> None:
    """To a good key, on the host and below a path that it may call; it costs a question, and no call of a model."""
    for own in (None, IRIS):
        (verdict,) = ask(world, call(path, "GET", own=own))
        assert isinstance(verdict.asked, Telling)
        assert verdict.reason is Reason.MODELS_TOLD
        assert json.loads(verdict.asked.said) == said
        assert [subject.name[:2] for subject in verdict.asked.draw.charge.subjects] == ["m:"]
        assert ask(world, call(path, "POST", own=own))[0].reason is Reason.NO_PUBLICATION
    assert ask(world, call(path, "GET", own=FORBIDDEN))[0].reason is Reason.NOT_ALLOWED


@pytest.mark.parametrize(
    ("path", "own", "reason"),
    [
        ("/v1/models/nobody:predict", None, Reason.MODEL_NOT_FOUND),
        ("/v1/models/plain:predict", None, Reason.MODEL_NOT_FOUND),
        ("/v1/models/tenant-b/iris:predict", None, Reason.MODEL_NOT_FOUND),
        ("/v1/models/shared:predict", None, Reason.MODEL_NOT_FOUND),
        ("/v1/models/forbidden:predict", None, Reason.NOT_ALLOWED),
        ("/v2/models/llm/infer", None, Reason.ENDPOINT_NOT_ALLOWED),
        ("/v1/models/llm:predict", None, Reason.ENDPOINT_NOT_ALLOWED),
        ("/v2/repository/index", None, Reason.NO_PUBLICATION),
        ("/v2/models/digits/config", None, Reason.MODEL_NOT_FOUND),
        ("/v2/models/digits/infer", DIGITS, Reason.OK),
        ("/v2/models/digits-v7/infer", DIGITS, Reason.OK),
        ("/v2/models/iris/infer", DIGITS, Reason.MODEL_NOT_FOUND),
        ("/v2/models/tenant-a/digits/infer", DIGITS, Reason.MODEL_NOT_FOUND),
        ("/x/v2/models/digits/infer", DIGITS, Reason.NO_PUBLICATION),
        ("/v2/models/shared/infer", FOREIGN, Reason.OK),
        ("/v1/models/iris:predict", HIDDEN, Reason.NO_PUBLICATION),
        ("/v2", HIDDEN, Reason.NO_PUBLICATION),
    ],
)
def test_who_may_not(world: World, path: str, own: PublicationRecord | None, reason: Reason) -> None:
    """A foreign model is as absent as none; what another path or protocol calls is said only to who may call it."""
    for verdict in ask(world, *[call(path, own=own)] * 2):
        assert verdict.reason is reason


def test_what_n_is_decides_what_its_path_means(world: World) -> None:
    """``GET /v1/models/N``: OpenAI's card of an openai model, KServe's status of another, 404 of neither."""
    card, status, none = ask(world, *(call(f"/v1/models/{name}", "GET") for name in ("llm", "iris", "nobody")))
    assert isinstance(card.asked, Telling)
    assert [one.record for one in card.asked.models] == [LLM]
    assert isinstance(status.asked, Lane)
    assert none.reason is Reason.MODEL_NOT_FOUND
    (every,) = ask(world, call("/v1/models/", "GET"))  # a slash at the end is no matter
    assert isinstance(every.asked, Telling)
    assert [one.record for one in every.asked.models] == [LLM]


def test_without_a_key_nothing_is_learnt_of_names(world: World) -> None:
    """401 whatever the path names on a host; below an open model's path its address's budget is what it costs."""
    for path in ("/v1/models/iris:predict", "/v1/models/nobody:predict", "/v2/health/live", "/", "/nonsense"):
        keyless = structs.replace(call(path, "GET"), api_key="")
        assert ask(world, keyless)[0].reason is Reason.KEY_MISSING
    answers = {}
    for path in (
        "/v2/models/open/infer",
        "/v2/models/open/ready",
        "/v2/health/live",
        "/v2/models/other/infer",
        "/nonsense",
    ):
        method = "POST" if "infer" in path else "GET"
        (verdict,) = ask(world, structs.replace(call(path, method, own=OPEN, address="192.0.2.1"), api_key=""))
        answers[path] = verdict.reason
        if isinstance(verdict.asked, Lane | Telling):
            (subject,) = verdict.asked.draw.charge.subjects[:1]
            assert subject.name == f"{'a' if 'infer' in path else 'm'}:{OPEN.uid}:192.0.2.1"
    reasons = [Reason.OK, Reason.OK, Reason.MODELS_TOLD, Reason.MODEL_NOT_FOUND, Reason.NO_PUBLICATION]
    assert list(answers.values()) == reasons


def test_no_body_names_a_model_that_paths_name(world: World) -> None:
    """Chat with a model of KServe's is 404, as before its name was known on the host."""
    body = b'{"model": "iris", "messages": []}'
    chat = Call(TEXT.reveal(), None, "", HOST, "POST", "application/json", raw=body, path="/v1/chat/completions")
    assert [one.reason for one in ask(world, chat, chat)] == [Reason.MODEL_NOT_FOUND] * 2


@pytest.mark.parametrize(
    ("path", "is_text"),
    [
        ("/v2/models/nobody/infer", True),
        ("/v2/models/llm/infer", True),
        ("/v2/repository/index", True),
        ("/v1/models/nobody:predict", False),
        ("/v1/models/nobody", False),
    ],
)
def test_a_refusal_has_the_words_of_its_protocol(world: World, path: str, is_text: bool) -> None:  # noqa: FBT001  a row
    """The second one's ``error`` is a text, with what we say besides beside it; ``/v1/models/N`` may be OpenAI's."""
    encoder = AnswerEncoder(lambda _call: Denial(200, [], ""))
    for text in ("", "tk_nonsense"):
        asking = call(path, text=text)
        (verdict,) = ask(world, asking)
        answer = CheckResponse.FromString(encoder.encode(verdict, asking)).denied_response
        told = json.loads(answer.body)
        assert isinstance(told["error"], str) is is_text
        assert told["code" if is_text else "error"]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/models/tenant-b/{}:predict", "POST"),
        ("/v1/models/tenant-b/{}", "GET"),
        ("/v2/models/tenant-b/{}/infer", "POST"),
        ("/v2/models/tenant-b/{}", "GET"),
    ],
)
@pytest.mark.parametrize("version", [False, True])
def test_no_words_tell_a_foreign_model_from_none(
    world: World,
    path: str,
    method: str,
    version: bool,  # noqa: FBT001  a row
    full: bool,  # noqa: FBT001  a row
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever API its caller says that it speaks: to the last byte, also once these are too many."""
    if full:
        numbers = (0, world.now_ms + 1_000)
        refused = lambda draw, *_args, **_more: Grant(Answer.REFUSED, draw, numbers, place=1)  # noqa: E731
        monkeypatch.setattr(world, "_grant", refused)
    encoder = AnswerEncoder(lambda _call: Denial(200, [], ""))
    answers = []
    for name in ("iris", "none"):
        asking = call(path.format(name), method, names_version=version, request_id="1")
        (verdict,) = ask(world, asking)
        assert verdict.reason is (Reason.TOO_MANY_ERRORS if full else Reason.MODEL_NOT_FOUND)
        answers.append(CheckResponse.FromString(encoder.encode(verdict, asking)))
    assert answers[0] == answers[1]


def test_a_refusal_that_many_are_told_is_written_once_in_each_protocols_words(world: World) -> None:
    """In whichever order they come, also to a call at the model's own path, which shares the verdict."""
    encoder = AnswerEncoder(lambda _call: Denial(200, [], ""))
    first, second = call("/v1/models/iris:predict"), call("/v2/models/iris/infer")
    own = structs.replace(first, publication=IRIS.uid, openai_host="", path=f"{IRIS.path}/predict", by_path=False)
    for order in itertools.permutations([first, second, own]):
        (admitted,) = ask(world, first)
        assert isinstance(admitted.asked, Lane)
        draw = admitted.asked.draw
        numbers = (5, world.now_ms + 1_000) * len(draw.charge.budgets)
        grant = Grant(Answer.REFUSED, draw, numbers, place=1, retry_at_ms=world.now_ms + 500)
        verdict = granted(admitted.asked, grant, world.now_ms)
        told = {id(one): encoder.encode(verdict, one) for one in order}
        assert all(encoder.encode(verdict, one) is told[id(one)] for one in order)
        bodies = [json.loads(CheckResponse.FromString(told[id(one)]).denied_response.body) for one in (first, second)]
        assert told[id(first)] == told[id(own)]
        assert (isinstance(bodies[0]["error"], dict), isinstance(bodies[1]["error"], str)) == (True, True)
        assert bodies[1]["error"] == bodies[0]["error"]["message"]


def test_what_changes_meanwhile_is_heeded(world: World) -> None:
    """A lane ends with its publication, its name's record and its key."""
    checker = world.checker(SECRETS)
    one = call("/v1/models/flowers:predict")
    assert [check(checker, one)[0].reason for _ in range(2)] == [Reason.OK] * 2
    world.put(structs.replace(IRIS, type=ModelType.OPENAI))
    assert check(checker, one)[0].reason is Reason.ENDPOINT_NOT_ALLOWED
    world.put(IRIS)
    assert check(checker, one)[0].reason is Reason.OK
    world.put(HostRecord(HOST, {}, {}))
    assert check(checker, one)[0].reason is Reason.MODEL_NOT_FOUND
