"""The Check edge: the only module of this room that sees protobuf. Bytes to ``Call``, verdicts to bytes.

Every answer is a gRPC OK; a refusal is a status inside the CheckResponse with our HTTP answer
(envoy.service.auth.v3.CheckResponse). What every admitted call of a key and publication shares is encoded once:
protobuf messages that are concatenated are merged ("Encoding: last one wins", protobuf.dev), so an answer is the
shared bytes followed by the call's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from catalog.keys.keytext import TEXT_CHARACTERS, mask
from catalog.records import ModelType
from extauth.answers.amended import amended
from extauth.answers.answers import Denial, denial
from extauth.answers.denied import denied_answer
from extauth.answers.model_cards import PageError, told
from extauth.answers.open_inference import in_its_words, speaks_it
from extauth.answers.refusal_log import LOGGED, RefusalLog
from extauth.answers.requested import ANYBODYS, named_in, requested
from extauth.answers.rewriting import repathed, rewriting
from extauth.answers.shared import RESERVATION, reservation_of
from extauth.credentials.carriers import CREDENTIAL_HEADERS, KEY_HEADERS
from extauth.dialects.spoken import calls_in_anthropics, may_speak_anthropic
from extauth.grpc.refusals import as_grpc
from extauth.lanes.lane import Lane
from extauth.listing import Telling
from extauth.question import read_question
from extauth.reasons import Reason
from extauth.request.call import Asking, Call
from extauth.request.packed import weights_of
from extauth.verdict import Verdict
from protos.external_auth_pb2 import CheckResponse
from runtime.clock import Clock

CHECK_PATH: Final = "/envoy.service.auth.v3.Authorization/Check"


class UnwritableError(Exception):
    """A body was read as good in which the place of its model is not found."""


class AnswerEncoder:
    """Verdicts to CheckResponse bytes."""

    def __init__(self, answer_probe: Callable[[Call], Denial], key_headers: Sequence[str] = KEY_HEADERS) -> None:
        """``key_headers``: by which a key may come. None of them goes on, nor what else is a credential."""
        self._answer_probe = answer_probe
        self._takes_off = amended(dict.fromkeys((*CREDENTIAL_HEADERS, *key_headers)), {})

    def encode(self, verdict: Verdict, asking: Asking | None) -> bytes:
        """Encode one answer; raises ``UnwritableError`` of an admitted call that may not reach its server."""
        asked, grant, reason = verdict.asked, verdict.grant, verdict.reason
        if reason is Reason.OK and grant is not None and isinstance(asked, Lane):
            hold = grant.draw.hold
            answer = asked.shared + asked.shown.told(grant.numbers, verdict.now_ms) + self._takes_off
            if asking is not None and asking.amended:
                answer += asking.amended
            if asked.adds and asking is not None:
                answer += _added(asking, asked)
            return answer if hold is None else answer + reservation_of(hold.id)
        if reason is Reason.LIMITED or reason is Reason.TOO_MANY_ERRORS:  # told alike to many
            if asking is not None and speaks_it(asking):
                verdict.text_answer = verdict.text_answer or denied_answer(_denial(verdict, asking), reason)
                return verdict.text_answer
            if not verdict.answer:
                verdict.is_form = asking is not None and _speaks_anthropic(verdict, asking)
                verdict.answer = denied_answer(_denial(verdict, asking, ANYBODYS if verdict.is_form else ""), reason)
            return _told_to(asking, verdict) if verdict.is_form and asking else verdict.answer
        return denied_answer(self._instead(verdict, asking), reason)

    def _instead(self, verdict: Verdict, asking: Asking | None) -> Denial:
        """What is answered in a model's place."""
        if verdict.reason is Reason.MODELS_TOLD and isinstance(verdict.asked, Telling):
            tag, request_id = (asking.if_none_match, asking.request_id) if asking else ("", "")
            return told(verdict.asked, verdict.grant, verdict.now_ms, if_none_match=tag, request_id=request_id)
        if verdict.reason is Reason.PROBED and asking is not None:
            return self._answer_probe(asking.read())
        return _denial(verdict, asking)


def _added(asking: Asking, lane: Lane) -> bytes:
    """What is added to the answer of an admitted call by what its lane says."""
    named = requested(asking.request_id) if lane.is_anthropic else b""
    return _rewriting(asking, lane) + named if lane.upstream_model else named


def _told_to(asking: Asking, verdict: Verdict) -> bytes:
    """A refusal that is told to many, to one of them."""
    return named_in(verdict.answer, asking.request_id) or denied_answer(_denial(verdict, asking), verdict.reason)


def _speaks_anthropic(verdict: Verdict, asking: Asking) -> bool:
    """Whether a refusal is told in the words of Anthropic's API; as its lane says where it has one.

    That nothing is published there is never said so: the proxy says it too where there is no route, and finds the words
    for both. They must not differ.
    """
    if verdict.asked is not None:
        return verdict.asked.is_anthropic
    if asking.grpc or verdict.reason is Reason.NO_PUBLICATION or speaks_it(asking):
        return False
    return calls_in_anthropics(asking, verdict.publication.record if verdict.publication else None)


def _rewriting(asking: Asking, lane: Lane) -> bytes:
    """Tell Envoy to name the model as its server does, which might take what was said for another of its own."""
    try:
        if lane.by_path:
            told = repathed(asking, lane.upstream_model)
        else:
            told = rewriting(asking.posted(), lane.upstream_model, names_none=lane.names_none)
    except Exception as error:
        raise UnwritableError from error
    if told is None:
        raise UnwritableError
    return told


def _denial(verdict: Verdict, asking: Asking | None, request_id: str = "") -> Denial:
    """``request_id``: to be said instead of the call's own."""
    publication = verdict.publication
    by_body = ModelType.OPENAI if asking and asking.openai_host else None
    made = denial(
        verdict.reason,
        grant=verdict.grant,
        now_ms=verdict.now_ms,
        masked=masked_key(asking) if asking else "",
        hold=verdict.grant.draw.hold if verdict.grant else None,
        model_type=publication.record.type if publication else by_body,
        fault=verdict.fault,
        request_id=(request_id or asking.request_id) if asking and _speaks_anthropic(verdict, asking) else None,
    )
    if asking is None:
        return made
    return as_grpc(made) if asking.grpc else in_its_words(made) if speaks_it(asking) else made


def masked_key(asking: Asking) -> str:
    """Show the caller which key it sent, if what it sent has at least the length of one."""
    text = asking.api_key
    return mask(text[3:22]) if len(text) == TEXT_CHARACTERS else ""


class CheckService:
    """``Authorization/Check`` in batches."""

    def __init__(
        self,
        check: Callable[[Sequence[Asking], float], list[Verdict]],
        observe: Callable[[Sequence[Verdict], float], None],
        max_batch: Callable[[], int],
        clock: Clock,
        *,
        refusals: RefusalLog,
        release: Callable[[str], object],
        encoder: AnswerEncoder,
        read: Callable[[bytes], Asking | None] = read_question,
    ) -> None:
        self._check = check
        self._read = read
        self._release = release
        self._refusals = refusals
        self._clock = clock
        self._observe = observe
        self._max_batch = max_batch
        self._encoder = encoder

    @property
    def max_batch(self) -> int:
        """Most calls that one script should take, as measured so far."""
        return self._max_batch()

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[bytes]:
        """Answer every question, in order; a fault of ours refuses, it never admits."""
        begun_ms = self._clock.monotonic_ms()
        try:
            calls = [self._read(payload) for payload in payloads]
            verdicts = self._verdicts(calls, deadline_ms)
            answers = self._encoded(verdicts, calls, payloads)
            self._note(verdicts, calls)
        except Exception:  # noqa: BLE001  whatever it was, these calls are refused and the next ones served
            self._refusals.note(Reason.FAULT, lambda: None)  # with the traceback
            verdicts = [Verdict(Reason.FAULT)] * len(payloads)
            answers = [self._refused(Reason.FAULT, payload) for payload in payloads]
        self._observe(verdicts, self._clock.monotonic_ms() - begun_ms)
        return answers

    def _refused(self, reason: Reason, payload: bytes) -> bytes:
        """Refuse a call that nobody has looked at; whose API it speaks is seen from its bytes, if it can be."""
        asking = None
        with suppress(Exception):  # it may be what the fault is about
            asking = self._read(payload) if may_speak_anthropic(payload) else None
        return self._encoder.encode(Verdict(reason), asking)

    def _verdicts(self, calls: Sequence[Asking | None], deadline_ms: float) -> list[Verdict]:
        decided = iter(self._check([call for call in calls if call is not None], deadline_ms))
        return [next(decided) if call is not None else Verdict(Reason.CALL_UNREADABLE) for call in calls]

    def _encoded(
        self, verdicts: list[Verdict], calls: Sequence[Asking | None], payloads: Sequence[bytes]
    ) -> list[bytes]:
        """Encode every answer; a call that was admitted and cannot be let through is refused, and holds nothing."""
        answers = []
        for index, (verdict, call) in enumerate(zip(verdicts, calls, strict=True)):
            try:
                answers.append(self._encoder.encode(verdict, call))
            except UnwritableError:
                if verdict.grant is not None and verdict.grant.draw.hold is not None:
                    self._release(verdict.grant.draw.hold.id)
                verdicts[index] = Verdict(Reason.FAULT, verdict.publication, verdict.tenant)
                answers.append(self._refused(Reason.FAULT, payloads[index]))
            except PageError as error:
                verdicts[index] = Verdict(error.fault.reason, None, verdict.tenant, verdict.asked, fault=error.fault)
                answers.append(self._encoder.encode(verdicts[index], call))
        return answers

    def _note(self, verdicts: Sequence[Verdict], calls: Sequence[Asking | None]) -> None:
        for verdict, call in zip(verdicts, calls, strict=True):
            if verdict.reason in LOGGED:
                self._refusals.note(verdict.reason, partial(_whole, call))

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Weigh a packed body by what may come out of it."""
        return weights_of(payloads)

    def overloaded(self, payload: bytes) -> bytes:
        """Refuse a call that cannot be looked at in time."""
        verdict = Verdict(Reason.OVERLOADED)
        self._refusals.note(verdict.reason, lambda: _whole(self._read(payload)))
        self._observe([verdict], 0.0)
        return self._refused(verdict.reason, payload)

    def undelivered(self, answer: bytes) -> None:
        """Give up the reservation of a call that was admitted when its proxy did not wait any longer."""
        fields = CheckResponse.FromString(answer).dynamic_metadata.fields
        if RESERVATION in fields:
            self._release(fields[RESERVATION].string_value)


def _whole(asking: Asking | None) -> Call | None:
    return asking.read() if asking is not None else None
