"""What is read of a form, and which forms are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.reasons import Reason
from extauth.request.body import Body, BodyFault
from extauth.request.reading import read_body

TYPE = "multipart/form-data; boundary=XyZ"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF'


def part(name: str, value: str) -> bytes:
    """A field that is no file."""
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def form(*parts: bytes) -> bytes:
    """A form of these parts."""
    return b"".join(b"--XyZ\r\n" + one + b"\r\n" for one in parts) + b"--XyZ--\r\n"


def read(*parts: bytes, sent: str = TYPE) -> Body | BodyFault:
    """What is read of a form where the endpoint takes one."""
    return read_body(form(*parts), sent, takes_form=True)


def test_a_forms_model_and_its_files() -> None:
    """The boundary keeps its case; files are media, and none of their bytes are a prompt's."""
    body = read(part("model", "whisper"), FILE, part("n", "2"), part("stream", "true"), part("prompt", "p" * 9_000))
    assert isinstance(body, Body)
    assert (body.model, body.choices, body.stream, body.media_parts, body.media_bytes) == ("whisper", 2, True, 1, 4)
    assert body.prompt_bytes == len(form(part("model", "whisper"), FILE, part("n", "2"), part("stream", "true"),
                                         part("prompt", "p" * 9_000))) - 4  # fmt: skip
    assert read(FILE) == Body(prompt_bytes=len(form(FILE)) - 4, media_parts=1, media_bytes=4)


@pytest.mark.parametrize(
    ("parts", "reason", "param"),
    [
        ((part("model", "a"), part("model", "b")), Reason.FIELD_REPEATED, "model"),
        ((part("Model", "a"),), Reason.FIELD_MISSPELT, "Model"),
        ((part("n", "many"),), Reason.FIELD_INVALID, "n"),
        ((part("n", "129"),), Reason.FIELD_INVALID, "n"),
        ((b"Content-Disposition: form-data; name*=UTF-8''model\r\n\r\na",), Reason.BODY_NOT_JSON, None),
        ((b'Content-Disposition: form-data; name="x"; name="model"\r\n\r\na',), Reason.BODY_NOT_JSON, None),
        (
            (b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"\r\n\r\na',),
            Reason.BODY_NOT_JSON,
            None,
        ),
        (
            (b'Content-Disposition: form-data; name="model"; filename=""\r\n\r\na', part("model", "b")),
            Reason.FIELD_INVALID,
            "model",
        ),
        ((b'Content-Disposition: form-data; name="Model"; filename="m"\r\n\r\na',), Reason.FIELD_INVALID, "Model"),
        ((part("mod\\el", "a"),), Reason.BODY_NOT_JSON, None),
        ((part("mod%65l", "a"),), Reason.BODY_NOT_JSON, None),
        ((part(" model", "a"),), Reason.BODY_NOT_JSON, None),
        ((part("x", "a"),) * 201, Reason.BODY_NOT_JSON, None),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(parts: tuple[bytes, ...], reason: Reason, param: str | None) -> None:
    """As of JSON: which of two readings the model's server takes is not for us to say."""
    fault = read(*parts)
    assert isinstance(fault, BodyFault)
    assert (fault.reason, fault.param) == (reason, param)


@pytest.mark.parametrize(
    "raw", [b"", b"no form", form(FILE)[:-9], form(FILE)[:20], form(FILE).replace(b"XyZ", b"xyz"), b"--XyZ\r\n" * 300]
)
def test_what_is_no_whole_form_is_refused(raw: bytes) -> None:
    """400, whatever is missing."""
    fault = read_body(raw, TYPE, takes_form=True)
    assert isinstance(fault, BodyFault)
    assert fault.reason is Reason.BODY_NOT_JSON


@pytest.mark.parametrize(
    "sent",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=a; boundary=XyZ",
        "multipart/form-data; boundary*0=a; boundary=XyZ",
        "multipart/form-data; boundary=XyZ; Boundary*=utf-8''a",
        'multipart/form-data; boundary="X!Z"',
        'multipart/form-data; boundary="X\\yZ"',
    ],
)
def test_a_form_needs_one_plain_boundary(sent: str) -> None:
    """Of at most 70 characters, none of which a server or Envoy could change."""
    fault = read(part("model", "a"), sent=sent)
    assert isinstance(fault, BodyFault)
    assert "boundary" in fault.message


def test_elsewhere_a_form_is_of_the_wrong_type() -> None:
    """415 that quotes it."""
    fault = read_body(form(part("model", "a")), TYPE)
    assert isinstance(fault, BodyFault)
    assert (fault.reason, TYPE in fault.message) == (Reason.BODY_TYPE, True)


@given(raw=st.binary(max_size=80), sent=st.text(max_size=20))
def test_any_bytes_are_read_or_refused(raw: bytes, sent: str) -> None:
    """Nothing is raised."""
    for content_type in (TYPE, f"multipart/form-data; {sent}"):
        for whole in (raw, b"--XyZ\r\n" + raw + b"\r\n--XyZ--\r\n"):
            assert isinstance(read_body(whole, content_type, takes_form=True), Body | BodyFault)


def test_a_bad_form_writes_no_line_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may call could fill it: refusals have a line a second."""
    fault = read_body(b'{"model":"llm"}', "multipart/form-data; boundary=x", takes_form=True)
    assert isinstance(fault, BodyFault)
    assert not caplog.records
