"""The Check edge: the only module of this room that sees protobuf. Bytes to ``Call``, verdicts to bytes.

Every answer is a gRPC OK; a refusal is a status inside the CheckResponse with our HTTP answer
(envoy.service.auth.v3.CheckResponse). What every admitted call of a key and publication shares is encoded once:
protobuf messages that are concatenated are merged ("Encoding: last one wins", protobuf.dev), so an answer is the
shared bytes followed by the call's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from catalog.keys.keytext import TEXT_CHARACTERS, mask
from catalog.records import ModelType
from extauth.answers.answers import Denial, Headers, denial, limit_headers
from extauth.answers.model_cards import told
from extauth.answers.refusal_log import LOGGED, RefusalLog
from extauth.batch import Verdict
from extauth.decide import Admission
from extauth.reasons import Reason
from extauth.request.call import Call
from extauth.request.counts import COUNT_FIELDS, NO_COUNTS, read_counts
from extauth.request.routed import routed
from protos.core_pb2 import HeaderValueOption
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from runtime.clock import Clock

CHECK_PATH: Final = "/envoy.service.auth.v3.Authorization/Check"
REQUEST_NAMESPACE: Final = "tollkeeper.request"
RESERVATION: Final = "reservation"
"""The dynamic metadata by which the proxy tells how an admitted call ended: the reservation's id."""
KEY_HEADERS: Final = ("x-api-key", "authorization")
MAX_REQUEST_ID: Final = 64
MAX_ADDRESS: Final = 64
"""Longer than any address is written; it becomes part of a name in the store, which must be bounded."""
UNTOLD_BYTES: Final = 10**9
"""Stands for a body whose size the proxy did not tell: its call holds back all that any call can cost."""
PERMISSION_DENIED: Final = 7  # google.rpc.Code; any code but 0 makes Envoy send the denied response

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def read_call(payload: bytes, gateway_namespace: str = "") -> Call | None:
    """Read Envoy's question; ``None`` where it is not one.

    ``gateway_namespace``: of the HTTPRoutes of Envoy Gateway whose rules' names are believed.
    """
    try:
        attributes = CheckRequest.FromString(payload).attributes
    except DecodeError:
        return None
    http = attributes.request.http
    headers = http.headers
    route = routed(attributes.route_metadata_context.filter_metadata, gateway_namespace)
    body = _body_fields(attributes.metadata_context.filter_metadata)
    counts = read_counts(_plain(body)) if body is not None else NO_COUNTS
    return Call(
        api_key=headers.get("x-api-key", "").strip(" \t"),
        authorization=headers.get("authorization", ""),
        publication=route.publication,
        openai_host=route.openai_host,
        method=http.method,
        content_type=headers.get("content-type", "").lower(),
        body_model=_model(body) if body is not None else None,
        body_parsed=body is not None,
        body_unread=route.body_unread,
        body_bytes=http.size if http.size > 0 else UNTOLD_BYTES,
        max_tokens=counts.max_tokens,
        choices=counts.choices,
        count_fault=counts.fault,
        content_encoding=headers.get("content-encoding", "").lower(),
        address=headers.get("x-envoy-external-address", "")[:MAX_ADDRESS],
        path=http.path.partition("?")[0],
        request_id=headers.get("x-request-id", "")[:MAX_REQUEST_ID],
    )


_Fields = Mapping[str, Value]


def _body_fields(namespaces: Mapping[str, Struct]) -> _Fields | None:
    """What json_to_metadata found in the body; ``None`` where there was no JSON body."""
    return namespaces[REQUEST_NAMESPACE].fields if REQUEST_NAMESPACE in namespaces else None


def _model(fields: _Fields) -> str | None:
    model = fields.get("model")
    is_text = model is not None and model.WhichOneof("kind") == "string_value"
    return (model.string_value or None) if is_text and model is not None else None


def _plain(fields: _Fields) -> dict[str, object]:
    """The body's counts as Python values; what is no number, text or truth is told as a list, which no count is."""
    kinds = {name: (fields[name], fields[name].WhichOneof("kind")) for name in COUNT_FIELDS if name in fields}
    return {
        name: None if kind in {None, "null_value"} else [] if kind in _NESTED else getattr(value, kind)
        for name, (value, kind) in kinds.items()
    }


_NESTED: Final = frozenset({"list_value", "struct_value"})

MAX_PREPARED: Final = 32_768
"""Shared answers kept ready, each of one key and publication and under 1 KiB with its names: 20 MB as a rule."""


class AnswerEncoder:
    """Verdicts to CheckResponse bytes."""

    def __init__(self, answer_probe: Callable[[Call], Denial]) -> None:
        self._answer_probe = answer_probe
        self._shared = functools.lru_cache(maxsize=MAX_PREPARED)(_shared_answer)

    def encode(self, verdict: Verdict, call: Call | None) -> bytes:
        """Encode one answer."""
        if verdict.reason is Reason.OK and verdict.admission is not None and call is not None:
            return self._admitted(verdict, verdict.admission, body_routed=bool(call.openai_host))
        if verdict.telling is not None and verdict.reason is Reason.MODELS_TOLD:
            return _denied(told(verdict.telling, verdict.grant, verdict.now_ms), verdict.reason)
        if verdict.reason is Reason.PROBED and call is not None:
            return _denied(self._answer_probe(call), verdict.reason)
        return _denied(_denial(verdict, call), verdict.reason)

    def _admitted(self, verdict: Verdict, admission: Admission, *, body_routed: bool) -> bytes:
        states = verdict.grant.states if verdict.grant else ()
        key = admission.key  # all callers without a key are told the same
        who = (key.ref, key.tenant) if key else ("", "")
        shared = self._shared(admission.publication.record.uid, *who, body_routed)
        headers = limit_headers(states, verdict.now_ms, admission.publication.record.type)
        hold = admission.charge.hold
        if not headers and hold is None:
            return shared
        own = CheckResponse()
        _fill(own.ok_response.response_headers_to_add, headers)
        if hold is not None:  # adds to the shared metadata: messages that are concatenated are merged
            own.dynamic_metadata.fields[RESERVATION].string_value = hold.id
        return shared + own.SerializeToString()


def _shared_answer(publication: str, key_ref: str, tenant: str, body_routed: bool) -> bytes:  # noqa: FBT001  cached by place
    """What Envoy must do for every call of this key ("": none) to this publication, named by its uid."""
    key = key_ref.partition(":")[2]
    to_upstream = [("x-tenant-id", tenant), ("x-key-id", key)] if key else []
    if body_routed:  # the route is chosen again by this header; other routes add it for the upstream themselves
        to_upstream.append(("x-tollkeeper-publication", publication))
    response = CheckResponse()
    _fill(response.ok_response.headers, to_upstream)
    response.ok_response.headers_to_remove.extend(KEY_HEADERS)
    who = {"key": key, "tenant": tenant} if key else {}
    response.dynamic_metadata.update({**who, "publication": publication})
    return response.SerializeToString()


def _denial(verdict: Verdict, call: Call | None) -> Denial:
    publication = verdict.publication
    by_body = ModelType.OPENAI if call and call.openai_host else None
    return denial(
        verdict.reason,
        grant=verdict.grant,
        now_ms=verdict.now_ms,
        masked=masked_key(call) if call else "",
        tokens=verdict.admission.charge.tokens if verdict.admission else 0,
        model_type=publication.record.type if publication else by_body,
    )


def masked_key(call: Call) -> str:
    """Show the caller which key it sent, if what it sent has at least the length of one."""
    text = call.api_key or call.authorization.rpartition(" ")[2]
    return mask(text[3:22]) if len(text) == TEXT_CHARACTERS else ""


def _denied(answer: Denial, reason: Reason) -> bytes:
    response = CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.status.message = reason.value
    response.dynamic_metadata["reason"] = reason.value  # for the proxy's access log
    denied = response.denied_response
    denied.status.code = answer.status
    denied.body = answer.body
    _fill(denied.headers, answer.headers)
    return response.SerializeToString()


def _fill(options: RepeatedCompositeFieldContainer[HeaderValueOption], headers: Headers) -> None:
    for name, value in headers:
        option = options.add()
        option.header.key = name
        option.header.value = value
        option.append_action = _OVERWRITE


class CheckService:
    """``Authorization/Check`` in batches."""

    def __init__(
        self,
        check: Callable[[Sequence[Call], float], list[Verdict]],
        observe: Callable[[Sequence[Verdict], float], None],
        max_batch: Callable[[], int],
        clock: Clock,
        *,
        refusals: RefusalLog,
        release: Callable[[str], object],
        answer_probe: Callable[[Call], Denial],
        gateway_namespace: str = "",
    ) -> None:
        self._check = check
        self._gateway_namespace = gateway_namespace
        self._release = release
        self._refusals = refusals
        self._clock = clock
        self._observe = observe
        self._max_batch = max_batch
        self._encoder = AnswerEncoder(answer_probe)

    @property
    def max_batch(self) -> int:
        """Most calls that one script should take, as measured so far."""
        return self._max_batch()

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[bytes]:
        """Answer every question, in order; a fault of ours refuses, it never admits."""
        begun_ms = self._clock.monotonic_ms()
        try:
            calls = [read_call(payload, self._gateway_namespace) for payload in payloads]
            verdicts = self._verdicts(calls, deadline_ms)
            answers = [self._encoder.encode(verdict, call) for verdict, call in zip(verdicts, calls, strict=True)]
            self._note(verdicts, calls)
        except Exception:  # noqa: BLE001  whatever it was, these calls are refused and the next ones served
            self._refusals.note(Reason.FAULT, lambda: None)  # with the traceback
            verdicts = [Verdict(Reason.FAULT)] * len(payloads)
            answers = [self._encoder.encode(verdict, None) for verdict in verdicts]
        self._observe(verdicts, self._clock.monotonic_ms() - begun_ms)
        return answers

    def _verdicts(self, calls: Sequence[Call | None], deadline_ms: float) -> list[Verdict]:
        decided = iter(self._check([call for call in calls if call is not None], deadline_ms))
        return [next(decided) if call is not None else Verdict(Reason.CALL_UNREADABLE) for call in calls]

    def _note(self, verdicts: Sequence[Verdict], calls: Sequence[Call | None]) -> None:
        for verdict, call in zip(verdicts, calls, strict=True):
            if verdict.reason in LOGGED:
                self._refusals.note(verdict.reason, partial(_given, call))

    def overloaded(self, payload: bytes) -> bytes:
        """Refuse a call that cannot be looked at in time."""
        verdict = Verdict(Reason.OVERLOADED)
        self._refusals.note(verdict.reason, partial(read_call, payload, self._gateway_namespace))
        self._observe([verdict], 0.0)
        return self._encoder.encode(verdict, None)

    def undelivered(self, answer: bytes) -> None:
        """Give up the reservation of a call that was admitted when its proxy did not wait any longer."""
        fields = CheckResponse.FromString(answer).dynamic_metadata.fields
        if RESERVATION in fields:
            self._release(fields[RESERVATION].string_value)


def _given(call: Call | None) -> Call | None:
    return call
