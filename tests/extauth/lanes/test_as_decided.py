"""A call that goes by a lane comes to what ``decide`` says of it, in every history of changes, times and secrets."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from decisionworld import World, check
from hypothesis import currently_in_test_context, event, given, settings
from hypothesis import strategies as st
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
    ServerRecord,
    TenantRecord,
)
from catalog.routes import route_id
from extauth.batches import deciding
from extauth.decide import Admission
from extauth.kserve.telling import asked_by, is_question
from extauth.lanes.lane import Lane, lane_of
from extauth.reasons import Reason
from extauth.records.cache import RecordCache
from extauth.records.marks import stand
from extauth.request.body import Body
from extauth.request.call import Call
from extauth.verdict import Verdict
from ratelimit.tokens.terms import Terms

entropy = random.Random(17).randbytes  # noqa: S311  of tests
"""The same catalog each time."""
HOST = "api.example"
SECRETS = Secrets(
    peppers={1: entropy(32), 2: entropy(32)},
    current_pepper=1,
    mac_keys={1: entropy(32), 2: entropy(32)},
    current_mac_key=1,
    jwt_key=entropy(32),
    recovery_key=entropy(32),
)
OTHERS = {
    "same": SECRETS,
    "no pepper": dataclasses.replace(SECRETS, peppers={2: SECRETS.peppers[2]}, current_pepper=2),
    "no MAC key": dataclasses.replace(SECRETS, mac_keys={2: SECRETS.mac_keys[2]}, current_mac_key=2),
}


def publication(tenant: str, model: str, kind: ModelType) -> PublicationRecord:
    """One that its own tenant may call, and tenant-a."""
    return PublicationRecord(
        uid=new_id(shard_of(tenant), entropy),
        tenant=tenant,
        model=model,
        url=f"http://{model}:80",
        type=kind,
        protocol=Protocol.OPENAI,
        host=HOST,
        path=f"/models/{model}",
        limits=Limits(per_minute=5, tokens_per_hour=10**6),
        require_api_key=True,
        allowed_tenants=tuple(sorted({tenant, "tenant-a"})),
        key_id="",
        created_at_ms=0,
        updated_at_ms=0,
    )


PUBLICATIONS = [
    publication("tenant-a", "plain", ModelType.TRADITIONAL),
    structs.replace(publication("tenant-a", "llm", ModelType.OPENAI), model_id="org/llm:8b", aliases=("gpt-4o",)),
    publication("tenant-b", "llm", ModelType.OPENAI),
    structs.replace(
        publication("tenant-a", "iris", ModelType.TRADITIONAL),
        protocol=Protocol.KSERVE_V2,
        model_id="iris-v2",
        aliases=("flowers",),
    ),
]
UIDS = tuple(one.uid for one in PUBLICATIONS)
KEY_IDS = [new_id(shard_of("tenant-a"), entropy) for _ in range(2)]
TEXTS = [[mint(one, SECRETS, entropy) for _ in range(2)] for one in KEY_IDS]


def catalog() -> list[Any]:
    """The records at the beginning."""
    keys = [
        KeyRecord(one, "tenant-a", "n", UIDS, hash_key(texts[0], SECRETS), 0, 0, limits=Limits(burst=3))
        for one, texts in zip(KEY_IDS, TEXTS, strict=True)
    ]
    models = {f"{one.tenant}/{name}": one.uid for one in PUBLICATIONS[1:] for name in one.names}
    routes = [RouteRecord(route_id(HOST, *name.split("/", 1)), uid) for name, uid in models.items()]
    tenants = [TenantRecord(name, shard_of(name), 0, 0) for name in ("tenant-a", "tenant-b")]
    return [*keys, *tenants, *PUBLICATIONS, *routes, HostRecord(HOST, {}, models), ServerRecord("llm:80", {})]


_Change = Callable[[World], None]


def alter(name: str, **fields: Any) -> _Change:
    """Write a changed record; what was removed comes back as it was at the beginning."""

    def change(world: World) -> None:
        record: Any = world.records.get(name) or next(one for one in catalog() if name.endswith(f":{one.id}"))
        world.put(structs.replace(record, **fields))

    return change


def remove(name: str) -> _Change:
    """Delete a record."""
    return lambda world: world.remove(name)


def lead(name: str, uid: str) -> _Change:
    """Let tenant-a's callers mean a publication by a name, where routes are records; "": none any more."""
    route = route_id(HOST, "tenant-a", name)
    return lambda world: world.put(RouteRecord(route, uid)) if uid else world.remove(f"route:{route}")


def rotate(which: int, grace_ms: int) -> _Change:
    """Give a key its other text; the one before is good for a while."""
    name = f"key:{KEY_IDS[which]}"

    def change(world: World) -> None:
        record: Any = world.records.get(name)
        if record is not None:
            old = structs.replace(record.current, valid_until_ms=world.now_ms + grace_ms)
            alter(name, current=hash_key(TEXTS[which][1], SECRETS), previous=old)(world)

    return change


def _altering(names: st.SearchStrategy[str], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[_Change]:
    return st.builds(lambda name, values: alter(name, **values), names, st.fixed_dictionaries(fields))


_limits = st.sampled_from([Limits(), Limits(per_minute=7), Limits(burst=2, tokens_per_hour=50)])
_keys = st.sampled_from([f"key:{one}" for one in KEY_IDS])
_tenants = st.sampled_from(["tenant:tenant-a", "tenant:tenant-b"])
_pubs = st.sampled_from([f"pub:{uid}" for uid in UIDS])
_changes: st.SearchStrategy[_Change] = st.one_of(
    _altering(_keys, disabled=st.booleans()),
    _altering(_keys, limits=_limits),
    _altering(_keys, publications=st.sampled_from([(), UIDS[:1], UIDS])),
    _altering(_keys, expires_at_ms=st.sampled_from([None, 1_800_000_000_500, 1_800_000_000_010])),
    _altering(_tenants, disabled=st.booleans()),
    _altering(_tenants, limits=_limits),
    _altering(_pubs, limits=_limits),
    _altering(_pubs, allowed_tenants=st.sampled_from([("tenant-b",), ("tenant-a", "tenant-b")])),
    _altering(_pubs, type=st.sampled_from(list(ModelType))),
    _altering(st.just(f"pub:{UIDS[3]}"), protocol=st.sampled_from([Protocol.KSERVE_V1, Protocol.KSERVE_V2])),
    _altering(_pubs, allow_background=st.booleans(), require_api_key=st.booleans()),
    _altering(st.just(f"host:{HOST}"), models=st.sampled_from([{}, {"tenant-b/llm": UIDS[2]}])),
    _altering(st.just(f"host:{HOST}"), paths=st.just(None), models=st.just(None)),
    st.builds(lead, st.sampled_from(["llm", "gpt-4o", "tenant-b/llm", "org/llm:8b"]), st.sampled_from([*UIDS[1:], ""])),
    _altering(_pubs, model_id=st.sampled_from(["", "llm", "org/llm:8b"]), aliases=st.sampled_from([(), ("gpt-4o",)])),
    _altering(st.just("server:llm:80"), callers=st.just({UIDS[1]: "tenant-a"})),
    st.builds(remove, st.one_of(_keys, _tenants, _pubs)),
    st.builds(rotate, st.sampled_from([0, 1]), st.sampled_from([9, 900])),
)


def call_of(who: tuple[int, int], how: str, where: int, what: dict[str, Any], path: str, method: str) -> Call:
    """A call of one of the keys' texts, to a publication or to the host."""
    text = TEXTS[who[0]][who[1]].reveal()
    forged = text[:-1] + ("0" if text[-1] != "0" else "1")
    api_key, fault = {
        "key": (text, None),
        "forged": (forged, None),
        "none": ("", None),
        "twice": (text, Reason.KEY_REPEATED),
        "in url": (text, Reason.KEY_IN_URL),
    }[how]
    one = PUBLICATIONS[where] if where < len(PUBLICATIONS) else None
    uid, root = (one.uid, one.path) if one else ("", "/v1")
    body = json.dumps(what).encode()
    host = "" if one else HOST
    return Call(api_key, fault, uid, host, method, "application/json", raw=body, path=root + path)


_calls = st.builds(
    call_of,
    st.sampled_from([(0, 0), (0, 0), (0, 0), (0, 1), (1, 0)]),
    st.sampled_from(["key", "key", "key", "key", "forged", "none", "twice", "in url"]),
    st.integers(0, 4),
    st.sampled_from(
        [
            *({"model": "llm"}, {"model": "llm"}, {"model": "tenant-b/llm"}, {"model": "other"}, {}, {"model": 1}),
            *({"model": "gpt-4o"}, {"model": "org/llm:8b"}, {"model": "tenant-a/gpt-4o"}),
            *({"model": "llm", "background": True}, {"model": "llm", "previous_response_id": "r"}),
        ]
    ),
    st.sampled_from(["/chat/completions", "/chat/completions", "/Embeddings/", "/files", "/responses/r1"]),
    st.sampled_from(["POST", "POST", "POST", "GET"]),
)


def by_path(who: tuple[int, int], how: str, base: str, said: str, what: str, method: str, query: str = "") -> Call:
    """A call whose path names the model, in KServe's words; ``base``: of a publication, or "" for the host."""
    iris = PUBLICATIONS[3]
    made = call_of(who, how, 3 if base else 4, {"model": "llm"}, "", method)
    return structs.replace(
        made, path=base + what.replace("NAME", said), by_path=True, query=query, publication=iris.uid if base else ""
    )


_by_path = st.builds(
    by_path,
    st.sampled_from([(0, 0), (0, 0), (0, 1), (1, 0)]),
    st.sampled_from(["key", "key", "key", "key", "forged", "none", "twice"]),
    st.sampled_from(["", "", "/models/iris", "/models/other"]),
    st.sampled_from(["iris", "iris", "iris-v2", "flowers", "tenant-a/iris", "llm", "other"]),
    st.sampled_from(
        [
            *("/v2/models/NAME/infer", "/v2/models/NAME/infer", "/v2/models/NAME/versions/2/infer", "/v2/models/NAME"),
            *("/v2/models/NAME/ready", "/v1/models/NAME:predict", "/v1/models/NAME", "/v2", "/v2/health/live", "/"),
            "/v2/repository/index",
        ]
    ),
    st.sampled_from(["POST", "GET"]),
    st.sampled_from(["", "a=b"]),
)
INFER = by_path((0, 0), "key", "", "iris", "/v2/models/NAME/infer", "POST")
INFER_THERE = by_path((0, 0), "key", "/models/iris", "iris", "/v2/models/NAME/infer", "POST")
READY = by_path((0, 0), "key", "", "iris", "/v2/models/NAME/ready", "GET")
PLAIN = call_of((0, 0), "key", 0, {}, "/predict", "POST")
CHAT = call_of((0, 0), "key", 4, {"model": "llm"}, "/chat/completions", "POST")
SHARED = call_of((0, 0), "key", 1, {"model": "llm"}, "/chat/completions", "POST")
ROTATED = call_of((0, 1), "key", 0, {}, "/predict", "POST")
OTHERWISE = [structs.replace(SHARED, method="GET"), structs.replace(SHARED, content_encoding="gzip")]
_usual = st.sampled_from([PLAIN, CHAT, SHARED, ROTATED, INFER, INFER_THERE, READY, *OTHERWISE])
_asked = st.tuples(st.just("call"), st.lists(st.one_of(_usual, _usual, _calls, _by_path), min_size=1, max_size=4))
_steps = st.one_of(
    _asked,
    _asked,
    st.tuples(st.just("change"), _changes),
    st.tuples(st.just("change before the script"), _changes),
    st.tuples(st.just("follow"), st.none()),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("feed lost"), st.booleans()),
    st.tuples(st.just("secrets"), st.sampled_from(list(OTHERS))),
    st.tuples(st.just("time"), st.sampled_from([0, 1, 20, 1_000, 700_000])),
)


def said(verdict: Verdict) -> tuple[Any, ...]:
    """What is to be the same of two verdicts: all that is taken, but the random id of a reservation."""
    if verdict.reason is not Reason.OK or verdict.grant is None:
        return (verdict.reason,)
    draw = verdict.grant.draw
    charge, hold = draw.charge, draw.hold
    subjects = [(subject.name, subject.budgets) for subject in charge.subjects]
    terms = Terms.unpack(hold.terms) if hold else None
    written = verdict.asked.upstream_model if isinstance(verdict.asked, Lane) else ""
    return verdict.reason, subjects, charge.refs, charge.valid_until_ms, charge.usage, draw.tokens, terms, written


class History:
    """A checker that keeps lanes, and beside it one that is made anew for every call."""

    def __init__(self, lane_bytes: int = 2**20) -> None:
        self.world, self.secrets = World(), SECRETS
        self.cache = RecordCache(max_absent=0)  # what is absent may be told so for seconds after it came
        self.world.put(*catalog())
        self.checker = self.world.checker(SECRETS, lane_bytes=lane_bytes, cache=self.cache)

    def call(self, calls: list[Call]) -> None:
        """Both say the same; of a change in between, what was refused may be told as it was, or to be asked again."""
        changes = self.world.before_take
        by_lane, was_said = [self.has_lane(call) for call in calls], self.plainly(calls)
        self.world.before_take = changes
        verdicts = check(self.checker, *calls)
        is_said = self.plainly(calls)
        for call, verdict, has_lane, was, now in zip(calls, verdicts, by_lane, was_said, is_said, strict=True):
            if has_lane and currently_in_test_context():
                event(f"by a lane: {verdict.reason}")
            if not call.api_key and verdict.reason is Reason.KEY_MISSING:
                continue  # by the publication as the cache has it: no store hears of these
            if changes is None or verdict.reason is Reason.OK:
                assert said(verdict) == now
            else:
                assert said(verdict) in (was, now, (Reason.RECORDS_CHANGING,))

    def plainly(self, calls: list[Call]) -> list[tuple[Any, ...]]:
        """What one says who has decided nothing before."""
        self.world.before_take = None
        return [said(check(self.world.checker(self.secrets, lane_bytes=0), call)[0]) for call in calls]

    def has_lane(self, call: Call) -> bool:
        """Whether a lane stands for this call."""
        lanes = self.checker.lanes
        kind = f"{'p' if call.publication else 'h'}{call.publication or call.openai_host}\0"
        if (asked := asked_by(call)) is not None:
            kind = f"n{kind}{asked.base}\0{is_question(asked, call)}\0{asked.name}\0"
        return call.key_fault is None and lanes.find(lanes.name(f"{kind}{call.api_key}"), 0) is not None

    def step(self, what: str, how: Any = None) -> None:
        """Something happens."""
        world = self.world
        match what:
            case "call":
                self.call(how)
            case "change":
                how(world)
            case "change before the script":
                world.before_take = how
            case "follow":
                seen = self.cache.epoch
                if (changed := world.changed_since(seen)) is not None:
                    self.cache.advance(seen, world.epoch, changed)
            case "reset":
                self.cache.reset(world.epoch)
            case "feed lost":
                world.feed_is_lost = how
            case "secrets":
                self.secrets = OTHERS[how]
                self.checker.use_secrets(self.secrets)
            case "time":
                world.now_ms += how


@settings(max_examples=400, deadline=None)
@given(lane_bytes=st.sampled_from([2**20, 2**20, 6_000]), steps=st.lists(_steps, min_size=10, max_size=60))
def test_a_lane_says_what_decide_says(lane_bytes: int, steps: list[tuple[str, Any]]) -> None:
    """The same verdict, the same budgets, the same records compared; or at most: records are changing, ask again."""
    history = History(lane_bytes)
    for what, how in steps:
        history.step(what, how)


DIFFERENT = [
    INFER,
    INFER_THERE,
    READY,
    structs.replace(READY, method="POST"),
    by_path((0, 0), "key", "", "llm", "/v2/models/NAME/infer", "POST"),
    by_path((0, 0), "key", "/models/other", "iris", "/v2/models/NAME/infer", "POST"),
    by_path((1, 0), "key", "", "iris", "/v2/models/NAME/infer", "POST"),
    call_of((0, 0), "key", 3, {}, "/infer", "POST"),
    CHAT,
]


@pytest.mark.parametrize(("first", "then"), list(itertools.permutations(DIFFERENT, 2)))
def test_no_call_goes_by_the_lane_of_another(first: Call, then: Call) -> None:
    """Of another model, protocol, place or key, or one that asks about a model instead of calling it."""
    history = History()
    history.call([first, first])
    history.call([then])


ENDS = {
    "its key is disabled": (alter(f"key:{KEY_IDS[0]}", disabled=True), Reason.KEY_DISABLED),
    "its key is gone": (remove(f"key:{KEY_IDS[0]}"), Reason.KEY_UNKNOWN),
    "its tenant is disabled": (alter("tenant:tenant-a", disabled=True), Reason.TENANT_DISABLED),
}


@pytest.mark.parametrize("call", [PLAIN, CHAT, INFER, INFER_THERE, READY])
@pytest.mark.parametrize("moved", ["before the script", "not heard of", "follow", "reset"])
@pytest.mark.parametrize("end", ENDS)
def test_a_lane_ends_with_what_it_rests_on(call: Call, moved: str, end: str) -> None:
    """Whether the feed told of the change, never did, or it came between the look at the lane and the script."""
    history, (change, reason) = History(), ENDS[end]
    assert [one.reason for one in check(history.checker, call, call)] == [Reason.OK] * 2
    assert history.has_lane(call)
    history.step("change before the script" if moved == "before the script" else "change", change)
    history.step(moved)
    assert [one.reason for one in check(history.checker, call)] == [reason]
    assert not history.has_lane(call)


def by_host(what: dict[str, Any], path: str = "/chat/completions", method: str = "POST") -> Call:
    """A call of the first key to the host."""
    return call_of((0, 0), "key", 4, what, path, method)


@pytest.mark.parametrize("named", [{}, {"model": ""}, {"model": None}])
def test_a_body_that_names_no_model_is_refused_where_others_were_admitted(named: dict[str, Any]) -> None:
    """What lets a body be read says nothing of where its call goes."""
    history = History()
    for _ in range(2):
        assert [one.reason for one in check(history.checker, by_host({"model": "llm"}))] == [Reason.OK]
        assert [one.reason for one in check(history.checker, by_host(named))] == [Reason.MODEL_MISSING]


@pytest.mark.parametrize("said_model", ["tenant-b/llm", "tenant-a/gpt-4o", "gpt-4o"])
def test_a_lane_ends_when_a_name_comes_to_mean_another(said_model: str) -> None:
    """Also where no record stood for the name before: that there was none is what the lane rests on."""
    history = History()
    alter(f"host:{HOST}", paths=None, models=None)(history.world)
    call = by_host({"model": said_model})
    before = [one.publication and one.publication.record.uid for one in check(history.checker, call, call)]
    assert history.has_lane(call)
    lead(said_model, UIDS[1] if before[0] == UIDS[2] else UIDS[2])(history.world)
    (after,) = check(history.checker, call)
    assert after.publication is not None
    assert before == [before[0]] * 2
    assert after.publication.record.uid not in before


def test_what_a_traditional_models_body_names_is_nobodys_to_write() -> None:
    """Its body is not read, also where an Envoy of the release before tells of it."""
    history = History()
    unread = call_of((0, 0), "key", 0, {}, "/predict", "POST")
    told = structs.replace(unread, body=Body("another", 2), raw=b"")
    (verdict,) = check(history.checker, told)
    assert isinstance(verdict.asked, Lane)
    assert (verdict.reason, verdict.asked.upstream_model) == (Reason.OK, "")


@pytest.mark.parametrize("named", [{}, {"model": None}, {"model": ""}])
def test_what_names_no_model_shall_where_a_model_works(named: dict[str, Any]) -> None:
    """On its own path, found by it or not; nothing is written into what is only kept for somebody."""
    history = History()
    alter(f"pub:{UIDS[1]}", allowed_endpoints=("mine",))(history.world)
    (served,) = (one.served_as for one in PUBLICATIONS if one.uid == UIDS[1])
    for path, expected in (("/mine", ""), ("/chat/completions", served), ("/embeddings", served), ("/mine", "")) * 2:
        (verdict,) = check(history.checker, call_of((0, 0), "key", 1, named, path, "POST"))
        assert isinstance(verdict.asked, Lane)
        assert (verdict.reason, verdict.asked.upstream_model) == (Reason.OK, expected)


def test_no_model_stands_for_all_of_its_host() -> None:
    """Whatever type it is of: on a host each call's body decides."""
    history = History()
    alter(f"pub:{UIDS[1]}", type=ModelType.TRADITIONAL)(history.world)
    for call in (by_host({"model": "llm"}), by_host({"model": "tenant-b/llm"}), by_host({"model": "other"})):
        history.call([call, call])
    history.call([by_host({"model": "llm"}, "/files", "GET")])


def test_lanes_are_kept_in_the_table_that_was_given() -> None:
    """Also when nothing is in it yet: its bound and its clock are what counts."""
    history = History(lane_bytes=6_000)
    for call in (PLAIN, CHAT, SHARED, ROTATED, structs.replace(PLAIN, api_key=TEXTS[1][0].reveal())):
        check(history.checker, call)
    assert 0 < history.checker.lanes.size_bytes <= 6_000


def test_other_secrets_end_all_lanes_and_what_is_being_decided_is_not_kept() -> None:
    """A batch that began by the secrets before leaves nothing behind."""
    history = History()
    check(history.checker, PLAIN)
    assert history.has_lane(PLAIN)
    history.step("secrets", "no pepper")
    assert not history.has_lane(PLAIN)
    assert [one.reason for one in check(history.checker, PLAIN)] == [Reason.PEPPER_UNKNOWN]
    history.step("secrets", "same")
    read = history.world.read

    def change_then_read(execute: Any, refs: Any) -> Any:
        history.step("secrets", "no pepper")
        return read(execute, refs)

    history.cache.reset(history.world.epoch)
    history.world.read = change_then_read  # type: ignore[method-assign]
    assert [one.reason for one in check(history.checker, PLAIN)] == [Reason.OK]
    assert not history.has_lane(PLAIN)


def test_a_lane_ends_when_its_text_does() -> None:
    """By a lower bound of the store's clock; between that and the true time the script says it."""
    history = History()
    alter(f"key:{KEY_IDS[0]}", expires_at_ms=history.world.now_ms + 100)(history.world)
    check(history.checker, PLAIN)
    takes = history.world.takes
    for past_ms, taken in ((99, 1), (100, 1), (105, 0)):
        history.world.now_ms = 1_800_000_000_000 + past_ms
        reason = Reason.OK if past_ms < 100 else Reason.KEY_EXPIRED
        assert [one.reason for one in check(history.checker, PLAIN)] == [reason]
        takes, before = history.world.takes, takes
        assert takes - before == taken
    assert not history.has_lane(PLAIN)


def test_what_changes_between_a_look_at_the_records_and_the_lane_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower moves the cache on while a call is decided: its lane is one of before, and must not stand after."""
    history, change = History(), alter("tenant:tenant-a", limits=Limits(per_minute=1))

    def change_and_follow(admission: Admission, said_model: str, **api: bool) -> Lane:
        monkeypatch.undo()
        history.step("change", change)
        history.step("follow")
        return lane_of(admission, said_model, **api)

    monkeypatch.setattr(deciding, "lane_of", change_and_follow)
    (verdict,) = check(history.checker, PLAIN)
    assert said(verdict) == history.plainly([PLAIN])[0]
    history.call([PLAIN])


def test_marks_are_struck_before_the_epoch_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the new epoch finds no lane of before, at whatever moment it looks."""
    history, seen = History(), list[tuple[str, bool, bool]]()
    marks = history.cache.marks
    check(history.checker, PLAIN)
    for name in ("strike", "strike_all"):
        strike = getattr(marks, name)

        def spied(*arguments: Any, strike: Any = strike) -> None:
            held = next(iter(history.checker.lanes._lanes.values())).marks
            before = stand(held)
            strike(*arguments)
            seen.append((history.cache.epoch, before, stand(held)))

        monkeypatch.setattr(marks, name, spied)
    for move in ("follow", "reset"):
        check(history.checker, PLAIN)
        epoch, turn = history.cache.epoch, marks.turn
        history.step("change", alter(f"key:{KEY_IDS[0]}", limits=Limits()))
        history.step(move)
        assert seen.pop() == (epoch, True, False)
        assert history.cache.epoch != epoch
        assert marks.turn != turn
