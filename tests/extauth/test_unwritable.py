"""A call that was admitted and whose model's name cannot be written into its body: refused, and it holds nothing."""

from __future__ import annotations

from typing import Any

import pytest

from extauth.answers.refusal_log import RefusalLog
from extauth.answers.shown import shown_of
from extauth.edge import AnswerEncoder, CheckService
from extauth.lanes.lane import Lane
from extauth.reasons import Reason
from extauth.request.call import Call, Posted
from extauth.verdict import Verdict
from protos.external_auth_pb2 import CheckResponse
from ratelimit.windows.budgets import Answer, Charge, Draw, Grant, Hold
from runtime.clock import SystemClock


class Broken:
    """A call whose body cannot be looked at again."""

    amended = b""

    def posted(self) -> Posted:
        """Fail."""
        raise RuntimeError("broken")

    def read(self) -> Call:
        """What the log is told of."""
        return call(b"")


def admitted(hold: Hold | None) -> Verdict:
    """A call that passed by a name which its server does not know."""
    charge = Charge(())
    record: Any = None
    lane = Lane(
        record, None, Draw(charge), 0, "", "", b"", shown_of(charge, is_openai=True), upstream_model="llama3.1:8b"
    )
    return Verdict(Reason.OK, asked=lane, grant=Grant(Answer.ADMITTED, Draw(charge, hold=hold)))


def call(raw: bytes) -> Call:
    """A call with this body."""
    return Call("", None, "u1", "", "POST", "application/json", raw=raw)


@pytest.mark.parametrize("bad", [call(b"{}"), Broken()], ids=["no place", "a fault"])
def test_its_hold_is_given_back_and_the_others_pass(bad: Any) -> None:
    """What came with it in a batch is answered as it would have been; what is counted is the refusal."""
    released: list[str] = []
    observed: list[Reason] = []
    calls: dict[bytes, Any] = {b"0": call(b'{"model":"llama"}'), b"1": bad, b"2": bad}
    verdicts = [admitted(Hold(name, 1, 1, 1, b"")) if name else admitted(None) for name in ("first", "second", "")]
    service = CheckService(
        lambda _calls, _deadline_ms: list(verdicts),
        lambda seen, _spent_ms: observed.extend(one.reason for one in seen),
        lambda: 1,
        SystemClock(),
        refusals=RefusalLog(lambda: 0.0, lambda _call: "", lambda _reason: None),
        release=released.append,
        encoder=AnswerEncoder(lambda _call: pytest.fail("no probe")),
        read=lambda payload: calls[payload],
    )
    answers = [CheckResponse.FromString(one) for one in service.answer([*calls], 0.0)]
    assert [one.denied_response.status.code for one in answers] == [0, 503, 503]
    assert answers[0].dynamic_metadata.fields["rewrite"].string_value == '9 16 17 "llama3.1:8b"'
    assert (released, observed) == (["second"], [Reason.OK, Reason.FAULT, Reason.FAULT])
