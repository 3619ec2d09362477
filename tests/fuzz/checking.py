"""The Check path under fire: payloads in batches into the real service, on a real store; the oracle judges each answer.

A fault that our own net caught counts as a crash: it is answered 503 with the reason ``fault``.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from extauth.credentials.carriers import CREDENTIAL_HEADERS
from extauth.edge import CheckService
from protos.external_auth_pb2 import CheckResponse
from tests.fuzz.calls import Source, describe
from tests.fuzz.found import Found, Tally
from tests.fuzz.oracle import Pass, must_pass, must_tell, presented_text, read
from tests.fuzz.world import World

BATCH: Final = 50
CHURN_EVERY: Final = 60  # batches
PATIENCE_MS: Final = 5_000
SECRET_AT: Final = slice(23, 66)  # of a key's text
REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 415, 429, 503})
TOLD: Final = 200
LIMITED: Final = 429
UNAVAILABLE: Final = 503
MAX_UNAVAILABLE: Final = 0.01
"""Share of 503s that a busy machine may cause before the run proves too little."""


class CheckTarget:
    """Feeds ``Authorization/Check``."""

    name = "check"

    def __init__(self, world: World, service: CheckService, tally: Tally) -> None:
        self._world = world
        self._service = service
        self._tally = tally
        self._batches = 0

    def run(self, rng: random.Random, count: int) -> None:
        """Ask this many questions; raises ``Found``."""
        source = Source(self._world, rng)
        for first in range(0, count, BATCH):
            self._batches += 1
            if self._batches % CHURN_EVERY == 0:
                self._world.churn(rng)
            made = [source.payload() for _ in range(min(BATCH, count - first))]
            self._batch([payload for _, payload in made])

    def _batch(self, payloads: Sequence[bytes]) -> None:
        answers = self._service.answer(payloads, time.monotonic() * 1000 + PATIENCE_MS)
        if len(answers) != len(payloads):
            raise Found(f"{len(payloads)} questions, {len(answers)} answers")
        for payload, answer in zip(payloads, answers, strict=True):
            try:
                self._tally.add(self.name, judge(payload, answer, self._world))
            except Found as found:
                raise Found(f"{found}: {describe(payload)}") from None

    def verify(self) -> None:
        """Say whether the run proved anything: enough was let through and little was left undecided."""
        outcomes = self._tally.outcomes
        asked = self._tally.inputs[self.name]
        if outcomes[f"{self.name} 200"] < asked * 0.05:
            raise Found("hardly any question was let through: the fuzzer asks nonsense only")
        if not outcomes[f"{self.name} told"]:
            raise Found("no question about models was answered")
        if outcomes[f"{self.name} 503"] > 10 + asked * MAX_UNAVAILABLE:
            raise Found("too many questions were left undecided")


def judge(payload: bytes, answer: bytes, world: World) -> str:
    """Return the answer's HTTP status, "200" for let through; raises ``Found`` where it should be another."""
    try:
        response = CheckResponse.FromString(answer)
    except DecodeError:
        raise Found("an answer that is none") from None
    attributes = read(payload)
    due = must_pass(attributes, world)
    if response.status.code == 0:
        if due is None:
            raise Found("let through without a right")
        _judge_admission(response, due)
        return "200"
    if response.status.message == "models_told":
        return _judge_told(response, must_tell(attributes, world))
    status = _judge_refusal(response)
    if attributes is None:
        return _judge_unreadable(status)
    _judge_silence(presented_text(attributes), answer)
    if must_tell(attributes, world) is not None and status not in {LIMITED, UNAVAILABLE}:
        raise Found(f"a good question was answered {status}")
    if due is not None and status != UNAVAILABLE and not (status == LIMITED and due.holder and due.holder.is_limited):
        raise Found(f"a good call was answered {status}")
    return str(status)


def _judge_told(response: CheckResponse, due: list[str] | None) -> str:
    """What the gate itself answers names what may be called, and nothing else."""
    if due is None:
        raise Found("told of models without a right")
    body = json.loads(response.denied_response.body)
    told = sorted(card["id"] for card in body.get("data", [body]))
    if told != due or response.denied_response.status.code != TOLD:
        raise Found(f"told {told}, meant {due}")
    return "told"


def _judge_unreadable(status: int) -> str:
    if status != UNAVAILABLE:
        raise Found(f"what is no question was answered {status}")
    return "no question"


def _judge_silence(text: str, answer: bytes) -> None:
    secret = text[SECRET_AT].encode()
    if len(secret) >= SECRET_AT.stop - SECRET_AT.start and secret in answer:
        raise Found("the answer holds the secret it was asked with")


def _judge_admission(response: CheckResponse, due: Pass) -> None:
    """What is let through goes on as who called, to where it may."""
    ok = response.ok_response
    told = {option.header.key: option.header.value for option in ok.headers}
    meant = {"x-tenant-id": due.holder.tenant, "x-key-id": due.holder.key_id} if due.holder else {}
    if due.place.is_openai:
        meant["x-tollkeeper-publication"] = due.place.uid
    if told != meant:
        raise Found(f"let through as {told}, meant {meant}")
    if not {*CREDENTIAL_HEADERS} <= set(ok.headers_to_remove):
        raise Found("the key goes on to the model")
    metadata: Any = response.dynamic_metadata
    if metadata["publication"] != due.place.uid:
        raise Found("counted for another publication")


def _judge_refusal(response: CheckResponse) -> int:
    reason, status = response.status.message, response.denied_response.status.code
    if reason == "fault":
        raise Found("a fault of ours")
    if status not in REFUSALS:
        raise Found(f"refused with {status}")
    try:
        error = json.loads(response.denied_response.body)["error"]
    except (ValueError, KeyError):
        raise Found("a refusal whose body is no error object") from None
    if not error["message"] or not error["type"]:
        raise Found("a refusal that says nothing")
    return int(status)
