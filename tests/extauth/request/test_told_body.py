"""The body as an Envoy tells it that the release before configured: by metadata."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from extauth.reasons import Reason
from extauth.request.body import Body, BodyFault
from extauth.request.told_body import COUNT_FIELDS, REQUEST_NAMESPACE, UNTOLD_BYTES, read_counts, told_body
from ratelimit.tokens.terms import MAX_TOKENS


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, (None, 1)),
        ({"max_tokens": 5.0}, (5, 1)),
        ({"max_tokens": 5, "max_completion_tokens": 9, "max_output_tokens": 7}, (9, 1)),
        ({"max_tokens": None, "max_completion_tokens": 9}, (9, 1)),
        ({"n": 3.0}, (None, 3)),
        ({"max_tokens": 0}, (0, 1)),
        ({"max_tokens": MAX_TOKENS, "n": 128}, (MAX_TOKENS, 128)),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": -1.0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": MAX_TOKENS + 1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": []}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_output_tokens": float("inf")}, "max_output_tokens"),
        ({"max_tokens": float("nan")}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": "2"}, "n"),
    ],
)
def test_counts_are_whole_numbers_within_bounds(
    fields: dict[str, object], counts: tuple[int | None, int] | str
) -> None:
    """The largest bound counts; null says nothing; what one server might read otherwise than we is refused."""
    read = read_counts(fields)
    assert (read.param if isinstance(read, BodyFault) else read) == counts


_values = st.none() | st.booleans() | st.text() | st.floats() | st.integers() | st.just([])


@given(fields=st.dictionaries(st.sampled_from(COUNT_FIELDS), _values))
def test_any_body_gives_sane_counts(fields: dict[str, object]) -> None:
    """Whatever stands there: counts within bounds, or the name of a field that is there."""
    read = read_counts(fields)
    if isinstance(read, BodyFault):
        assert read.param in fields
        return
    max_tokens, choices = read
    assert max_tokens is None or 0 <= max_tokens <= MAX_TOKENS
    assert 1 <= choices <= 128


def told(size: int, **fields: object) -> Body | BodyFault | None:
    """What is read of a JSON body with these fields."""
    struct = Struct()
    struct.update({"json": True, **fields})
    return told_body({REQUEST_NAMESPACE: struct}, size)


def test_what_the_metadata_tells() -> None:
    """A model, counts and the size; no metadata is no body; a size that was not told stands for the largest."""
    assert told_body({}, 10) is None
    assert told(90, model="llm", max_tokens=7, n=2) == Body("llm", 90, 7, 2)
    assert told(-1) == Body("", UNTOLD_BYTES)
    assert told(90, model=None) == Body("", 90)
    for field in ("max_tokens", "model"):
        fault = told(90, **{field: ["7"]})
        assert isinstance(fault, BodyFault)
        assert (fault.reason, fault.param, fault.code) == (Reason.FIELD_INVALID, field, f"invalid_{field}")
