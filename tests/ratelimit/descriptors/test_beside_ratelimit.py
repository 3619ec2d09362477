"""The same files and the same calls here and at envoyproxy/ratelimit: what it accepts is obeyed alike, or refused."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
import redis
from google.protobuf.json_format import MessageToDict
from prometheus_client import CollectorRegistry
from ratelimitpeer import asked_of, ratelimit

from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.descriptors.deciding import Ordinary
from ratelimit.descriptors.metrics import OrdinaryMetrics
from ratelimit.descriptors.reading import DescriptorsError, parse
from ratelimit.service.edge import RateLimitService
from ratelimit.service.stream_done import StreamDone

DAY = 4
FILES = {
    "plain": """
domain: plain
descriptors:
  - {key: db, value: users, rate_limit: {unit: DAY, requests_per_unit: 3}}
  - {key: db, value: rest, rate_limit: {unit: day, requests_per_unit: 4294967295}}
  - {key: kind, value: mail, descriptors: [{key: to, rate_limit: {unit: day, requests_per_unit: 2}}]}
  - {key: to, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: ip, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: ip, value: 50.0.0.5, rate_limit: {unit: day, requests_per_unit: 0}}
  - {key: empty, value: "", rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: nothing, value: , rate_limit: }
  - {key: long, rate_limit: {unit: week, requests_per_unit: 2}}
""",
    "modes": """
domain: modes
descriptors:
  - {key: free, rate_limit: {unlimited: true}}
  - {key: tried, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: quota, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: both, quota_mode: true, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: never, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 0}}
  - {key: told, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 2}}
""",
    "wild": """
domain: wild
descriptors:
  - {key: path, value: /a/*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: path, value: /a/b/*, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: path, value: /c/d/*, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: path, value: /c/*, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: path, value: /c/d/e, rate_limit: {unit: day, requests_per_unit: 3}}
  - key: file
    value: pdf*
    share_threshold: true
    descriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: 2}}]
  - {key: any, value: "*", rate_limit: {unit: day, requests_per_unit: 1}}
""",
    "replaced": """
domain: replaced
descriptors:
  - {key: read, rate_limit: {name: reads, unit: day, requests_per_unit: 2}}
  - {key: gold, rate_limit: {replaces: [{name: reads}, {name: unknown}], unit: day, requests_per_unit: 4}}
  - {key: open, rate_limit: {name: reads, unlimited: true}}
""",
}
VALUES = {
    "plain": {
        "db": ("users", "rest", "x"),
        "kind": ("mail",),
        "to": ("1", "2"),
        "ip": ("50.0.0.5", "50.0.0.6"),
        "empty": ("", "a"),
        "nothing": ("a",),
        "long": ("a",),
        "unknown": ("a",),
    },
    "modes": dict.fromkeys(("free", "tried", "quota", "both", "never", "told"), ("", "a")),
    "wild": {
        "path": ("/a/", "/a/x", "/a/b/x", "/a/*", "/c/x", "/c/d/x", "/c/d/e", "/"),
        "file": ("pdf", "pdf1", "pdf2", "txt"),
        "user": ("ann", "bob"),
        "any": ("", "a"),
    },
    "replaced": {"read": ("a",), "gold": ("a", "b"), "open": ("a",)},
}
REFUSED_BY_BOTH = {
    "no domain": "descriptors: []",
    "empty domain": "domain: ''",
    "a key twice": "domain: d\ndescriptors: [{key: k, value: v}, {key: k, value: v}]",
    "no key": "domain: d\ndescriptors: [{value: v}]",
    "no such field": "domain: d\ndescriptors: [{key: k, vlaue: v}]",
    "no such unit": "domain: d\ndescriptors: [{key: k, rate_limit: {unit: eon, requests_per_unit: 1}}]",
    "no unit": "domain: d\ndescriptors: [{key: k, rate_limit: {requests_per_unit: 1}}]",
    "unlimited by the day": "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: true, unit: day}}]",
    "sharing nothing": "domain: d\ndescriptors: [{key: k, value: v, share_threshold: true}]",
    "it replaces itself": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: true, name: n, replaces: [{name: n}]}}]"
    ),
    "it replaces nothing": "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: true, replaces: [{name: ''}]}}]",
    "too large": "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 4294967296}}]",
    "no list": "domain: d\ndescriptors: [5]",
    "a wrong flag": "domain: d\ndescriptors: [{key: k, shadow_mode: perhaps}]",
}
REFUSED_HERE = {
    "month": ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 30}}]", "unit: week"),
    "year": ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 30}}]", "unit: week"),
    "no number": ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: day}}]", "write 0 to refuse all"),
    "a flag below": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, shadow_mode: true}}]",
        "it belongs to a descriptor",
    ),
    "a key that is a beginning": (
        "domain: d\ndescriptors: [{key: k*, rate_limit: {unlimited: true}}]",
        "only values may",
    ),
    "octal": ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 010}}]", "whole number"),
}


def _request(domain: str, *descriptors: Sequence[tuple[str, str]], per_day: int | None = None) -> RateLimitRequest:
    request = RateLimitRequest(domain=domain)
    for entries in descriptors:
        made = request.descriptors.add()
        for key, value in entries:
            made.entries.add(key=key, value=value)
        if per_day is not None:
            made.limit.requests_per_unit, made.limit.unit = per_day, DAY  # type: ignore[assignment]
    return request


def _any_requests(domain: str, count: int) -> Iterator[RateLimitRequest]:
    """Calls of one descriptor, and each with the same limit always: there refused calls are counted too."""
    dice, values = random.Random(domain), VALUES[domain]  # noqa: S311  the same at each run
    deep = {"plain": ("kind", "to"), "wild": ("file", "user")}.get(domain)
    for _ in range(count):
        keys = deep if deep and dice.random() < 0.3 else (dice.choice([*values]),)
        entries = [(key, dice.choice(values[key])) for key in keys]
        yield _request(domain, entries, per_day=_brought(entries))


def _brought(entries: Sequence[tuple[str, str]]) -> int | None:
    """The limit that calls of a descriptor bring along, if they do: the same always."""
    if entries[-1][0] == "long" or entries[-1][1].endswith("*"):
        return None
    dice = random.Random(repr(entries))  # noqa: S311
    return dice.choice((None, None, None, 0, 2, 3, 4_294_967_295))


CALLS = [
    *[one for name in FILES for one in _any_requests(name, 150)],
    _request("modes", [("free", "x")], [("tried", "x")], [("quota", "x")], [("never", "x")]),
    _request("replaced", [("read", "x")], [("gold", "x")]),
    _request("replaced", [("read", "x")], [("open", "x")], [("gold", "x")]),
    _request("elsewhere", [("read", "x")], per_day=1),
]


@pytest.fixture
def ours(store: redis.Redis) -> dict[str, RateLimitService]:
    """The service with each file, by its domain."""

    def service(text: str) -> RateLimitService:
        ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(CollectorRegistry()), writes_format=lambda: 2)
        ordinary.use(parse(text))
        return RateLimitService(
            StreamDone(lambda _told: None, lambda: None),
            lambda asked, _deadline_ms: ordinary.decide(asked, store.execute_command, 0),
            lambda: None,
            on_fault=lambda _calls: pytest.fail("a fault of ours"),
            denies_undecided=lambda: True,
        )

    return {name: service(text) for name, text in FILES.items()}


def _told(response: RateLimitResponse) -> dict[str, Any]:
    """An answer without its times: theirs end where a window of the calendar does."""
    told = MessageToDict(response, preserving_proto_field_name=True)
    for status in told.get("statuses", []):
        status.pop("duration_until_reset", None)
    metadata = told.pop("dynamic_metadata", {})
    told["violations"] = metadata.get("quotaModeViolations", [])
    if metadata.get("quotaModeEnabled"):
        told["descriptors"] = [one["entries"] for one in metadata["descriptors"]]
    return told


def test_every_call_is_answered_alike(ours: dict[str, RateLimitService]) -> None:
    """Codes, limits, what remains, and what is above a quota; limits of the file and those that calls bring along."""
    with ratelimit(FILES) as channel:
        theirs = asked_of(channel, CALLS)
    assert len({one.overall_code for one in theirs}) == 2
    for number, (request, their) in enumerate(zip(CALLS, theirs, strict=True)):
        service = ours.get(request.domain, ours["plain"])
        (answer,) = service.answer([request.SerializeToString()], 0.0)
        assert isinstance(answer, bytes), answer
        assert _told(RateLimitResponse.FromString(answer)) == _told(their), (number, request)


def _is_accepted_there(text: str) -> bool:
    with ratelimit({"one": text}) as channel:
        try:
            asked_of(channel, [_request("d", [("k", "v")])])
        except grpc.RpcError:
            return False
        return True


@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_what_it_refuses_is_refused_here(name: str) -> None:
    """Nothing that means nothing there means something here."""
    with pytest.raises(DescriptorsError):
        parse(REFUSED_BY_BOTH[name])
    assert not _is_accepted_there(REFUSED_BY_BOTH[name])


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_what_only_it_accepts_is_refused_with_what_to_do(name: str) -> None:
    """It reads all of these; each has its reason here."""
    text, said = REFUSED_HERE[name]
    with pytest.raises(DescriptorsError, match=said):
        parse(text)
    assert _is_accepted_there(text)
