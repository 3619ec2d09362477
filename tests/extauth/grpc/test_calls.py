"""What the gate hears of a call at a route of gRPC, and how it refuses one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.inference import called_as, is_grpc_type
from catalog.keys.keytext import mint
from catalog.keys.probetext import mint_probe
from catalog.keys.secrets import Secrets
from extauth.answers.answers import Denial, denial
from extauth.grpc.calls import binary_copies
from extauth.grpc.refusals import STATUS_OF, as_grpc
from extauth.question import Question, read_question
from extauth.reasons import WIRE, Outcome, Reason
from extauth.records.allowances import Allowances
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from ratelimit.windows.budgets import Answer, Charge, Draw, Grant
from tests.support.inference.protocol import google_rpc

SECRETS = Secrets({1: b"p" * 32}, 1, {1: b"m" * 32}, 1, jwt_key=b"j" * 32, recovery_key=b"r" * 32)
KEY = mint("007" + "a" * 16, SECRETS, lambda count: b"1" * count).reveal()
PATH = "/inference.GRPCInferenceService/ModelInfer"


def asked(
    content_type: str = "application/grpc",
    method: str = "POST",
    protocol: str = "HTTP/2",
    key: str = KEY,
    route: str = "grpc",
    **headers: str,
) -> Question:
    """A call's question at a publication's route, of gRPC unless told otherwise."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host, http.protocol = method, PATH, "h", protocol
    http.headers.update({"content-type": content_type, "x-api-key": key} | headers)
    metadata = request.attributes.route_metadata_context.filter_metadata["tollkeeper"]
    metadata.update({"publication": "0a1iris"} | ({route: "yes"} if route else {}))
    read = read_question(request.SerializeToString())
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        *(("application/grpc", True), ("application/grpc+proto", True), ("application/grpc+json", True)),
        *(("application/grpc-web", False), ("application/grpc-web+proto", False), ("application/grpc-web-text", False)),
        *(("application/grpcx", False), ("application/json", False), ("", False), ("x application/grpc", False)),
    ],
)
def test_what_grpcs_type_is(content_type: str, *, is_grpc: bool) -> None:
    """As Envoy decides it, so that both give a call the same form of answer."""
    assert is_grpc_type(content_type) is is_grpc
    question = asked(content_type)
    assert (question.grpc, question.key_fault is None) == (is_grpc, is_grpc)
    assert question.read().grpc is is_grpc


@pytest.mark.parametrize(
    ("method", "protocol"), [("GET", "HTTP/2"), ("POST", "HTTP/1.1"), ("POST", ""), ("PUT", "HTTP/2")]
)
def test_what_is_no_grpc_call(method: str, protocol: str) -> None:
    """Told in gRPC's form, since it says that it is one."""
    question = asked(method=method, protocol=protocol)
    assert (question.key_fault, question.grpc) == (Reason.NOT_GRPC, True)


def test_a_probe_is_let_through_to_be_answered() -> None:
    """By HTTP/1.1 and without a body; whether it is genuine is seen later."""
    probe = mint_probe(SECRETS, now_ms=0).reveal()
    assert asked("", "GET", "HTTP/1.1", probe).key_fault is None
    assert asked("", "GET", "HTTP/1.1", "tkprobe").key_fault is Reason.NOT_GRPC


def test_other_routes_know_nothing_of_it() -> None:
    """A call of gRPC's type at a model of HTTP is what it was."""
    question = asked(route="", protocol="HTTP/1.1", **{"x-copy-bin": base64.b64encode(KEY.encode()).decode()})
    assert (question.grpc, question.key_fault, question.amended) == (False, None, b"")


def test_a_key_in_bytes_is_taken_off() -> None:
    """By its header's name."""
    question = asked(**{"x-copy-bin": base64.b64encode(KEY.encode()).decode(), "x-fine-bin": "AAE="})
    change = CheckResponse.FromString(question.amended).ok_response
    assert list(change.headers_to_remove) == ["x-copy-bin"]


@given(before=st.binary(max_size=40), behind=st.binary(max_size=40), padded=st.booleans(), other=st.binary(max_size=30))
def test_no_place_in_bytes_hides_a_key(before: bytes, behind: bytes, *, padded: bool, other: bytes) -> None:
    """Whatever stands around it, with or without padding, in the first value of a name or the second."""
    text = base64.b64encode(before + KEY.encode() + behind).decode()
    value = text if padded else text.rstrip("=")
    joined = f"{base64.b64encode(other).decode()},{value}"
    found = binary_copies({"a-bin": value, "b-bin": joined, "c": value, "d-bin": base64.b64encode(before).decode()})
    assert found == ("a-bin", "b-bin")


@given(st.text())
def test_no_value_is_too_odd(value: str) -> None:
    """What is no base64 holds no bytes."""
    assert binary_copies({"a-bin": value}) == ()


_EXPLAINED = [one for one in Reason if WIRE[one].outcome is not Outcome.ALLOWED and one is not Reason.NO_PUBLICATION]


def test_what_is_not_there_is_told_without_details() -> None:
    """As by the proxy, where there is no route."""
    headers = dict(as_grpc(denial(Reason.NO_PUBLICATION)).headers)
    assert headers == {"grpc-status": "5", "x-tollkeeper-reason": "no_publication"}


@pytest.mark.parametrize("reason", _EXPLAINED)
def test_every_reason_has_a_status_and_is_explained(reason: Reason) -> None:
    """The message is the error's; details are Google's, and say all that the error does."""
    wire = WIRE[reason]
    made = as_grpc(denial(reason, now_ms=0))
    headers = dict(made.headers)
    status = google_rpc.Status.FromString(base64.b64decode(headers["grpc-status-details-bin"] + "=="))
    info = google_rpc.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (int(headers["grpc-status"]), made.status) == (STATUS_OF[wire.status], wire.status)
    assert status.code == STATUS_OF[wire.status]
    assert status.message == made.body == wire.message
    assert info.metadata["code"] == wire.code
    assert info.reason == headers["x-tollkeeper-reason"].upper()
    assert (len(status.details) == 2) is (wire.status == 503)  # else the gate adds when to come again
    assert not {"content-type", "www-authenticate", "allow", "accept-encoding"} & headers.keys()


@pytest.mark.parametrize(("wait_ms", "pushback"), [(1, "1"), (60_000, "60000"), (60_001, "-1"), (3_600_000, "-1")])
def test_a_wait_is_told_to_clients_that_try_again_by_themselves(wait_ms: int, pushback: str) -> None:
    """Up to a minute; beyond, they shall not."""
    error = {"message": "m", "reason": "limited", "code": "c", "retry_after_ms": wait_ms, "param": None}
    headers = dict(as_grpc(Denial(429, [("retry-after-ms", str(wait_ms))], json.dumps({"error": error}))).headers)
    assert (headers["grpc-retry-pushback-ms"], headers["retry-after-ms"]) == (pushback, str(wait_ms))
    status = google_rpc.Status.FromString(base64.b64decode(headers["grpc-status-details-bin"] + "=="))
    retry = google_rpc.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == wait_ms


def test_who_makes_too_many_bad_calls_is_not_told_to_make_them_again() -> None:
    """As by HTTP: when the wait is over it would be refused all the same."""
    subject = Allowances(errors_per_minute=1).errors("k")
    grant = Grant(Answer.REFUSED, Draw(Charge(subjects=(subject,))), (1, 9_000), place=1, retry_at_ms=9_000)
    headers = dict(as_grpc(denial(Reason.TOO_MANY_ERRORS, grant=grant, now_ms=1_000)).headers)
    assert (headers["grpc-retry-pushback-ms"], headers["x-should-retry"]) == ("-1", "false")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/models/iris", "iris"), ("/models/a/b", "/models/a/b"), ("/iris", "/iris"), ("/v1/models/x", "/v1/models/x")],
)
def test_how_a_path_is_said(path: str, name: str) -> None:
    """No two paths are said alike."""
    assert called_as(path) == name
